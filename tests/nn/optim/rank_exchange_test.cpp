#include "nn/optim/rank_exchange.h"

#include <gmock/gmock.h>

#include "engine/distributed/communicator.h"
#include "kernels/grad_norm/grad_norm.h"
#include "nn/layers/linear.h"
#include "nn/optim/optimizer.h"
#include "tests/support/close.h"
#include "tests/support/error_of.h"
#include "tests/support/launch.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RankExchangeLaunch : public test::UnderMpi {};
INSTANTIATE_TEST_SUITE_P(Mpi, RankExchangeLaunch, ::testing::ValuesIn(test::known_mpis()),
                         test::family_of);

TEST_P(RankExchangeLaunch, the_sum_of_all_ranks_is_that_of_the_tree_and_reaches_all) {
  struct Case {
    int ranks;
    const char* slices;
  };
  for (const auto& [ranks, slices] : {Case{3, "6"}, {4, "8"}}) {
    const test::Launched r = test::launch(GetParam(), ranks, {RETORT_RANK_EXCHANGE_PROGRAM, slices},
                                          {"RETORT_CUDA_LIBRARY=" RETORT_EMULATED_PLUGIN});
    EXPECT_EQ(r.status, 0) << r.all();
    EXPECT_THAT(r.said, HasSubstr(join("good on ", ranks, " ranks")));
  }
}

TEST(RankExchange, ranks_that_go_with_a_number_of_slices) {
  EXPECT_THAT(RankExchange::fitting_ranks(1), ElementsAre(1));
  EXPECT_THAT(RankExchange::fitting_ranks(6), ElementsAre(1, 3, 6));
  EXPECT_THAT(RankExchange::fitting_ranks(8), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(RankExchange::fitting_ranks(12), ElementsAre(1, 3, 6, 12));
  for (const std::int64_t slices : {1, 6, 7, 8})
    for (std::int64_t ranks = 1; ranks <= 9; ++ranks) {
      const auto fitting = RankExchange::fitting_ranks(slices);
      if (std::find(fitting.begin(), fitting.end(), ranks) != fitting.end())
        RankExchange::check_ranks(slices, ranks);
      else
        EXPECT_THROW(RankExchange::check_ranks(slices, ranks), Error) << slices << ranks;
    }
  EXPECT_THAT(error_of([] { RankExchange::check_ranks(8, 3); }, ErrorCode::kUsage),
              HasSubstr("slices = 8 goes with 1, 2, 4 or 8 ranks, got 3"));
  EXPECT_THAT(error_of([] { RankExchange::check_ranks(1, 2); }, ErrorCode::kUsage),
              HasSubstr("slices = 1 goes with 1 rank, got 2"));
}

TEST(RankExchange, one_rank_owns_all) {
  constexpr std::int64_t kN = 16384 + 9;
  RankExchange exchange(Communicator::world(), 4, kN);
  EXPECT_EQ(exchange.slices().size(), 4);
  EXPECT_EQ(exchange.own().size(), kN);
  const Tensor node = test::randn({kN}, 3), values = node.clone();
  EXPECT_TRUE(test::same_bytes(exchange.sum(node), node));
  exchange.share(values);
  EXPECT_TRUE(test::same_bytes(values, node));
  EXPECT_EQ(exchange.squares(node, kN).size(), 2u);
  EXPECT_THROW(exchange.sum(node.slice(0, 5)), Error);
  EXPECT_THROW(exchange.squares(node, kN + 1), Error);
  EXPECT_THROW(exchange.share(test::randn({kN + 1}, 1)), Error);
}

// No memory, no message: ranks in the settings are nobody's.
TEST(RankExchange, an_optimizer_of_one_rank_has_none) {
  Linear linear(4, 3);
  SgdConfig config;
  config.ranks = &Communicator::world();
  EXPECT_EQ(Sgd(linear, config).slices(), nullptr);
  config.slices = 4;
  Sgd sgd(linear, config);
  EXPECT_EQ(sgd.slices()->exchange(), nullptr);
  EXPECT_EQ(sgd.slices()->first(), 0);
  EXPECT_EQ(sgd.slices()->last(), 4);
  EXPECT_EQ(sgd.slices()->own().size(), sgd.arena().numel());
}

}  // namespace
}  // namespace retort::nn
