// Ranks that share a batch give the bytes of one rank with as many slices.
#include <gmock/gmock.h>

#include "distill/step.h"
#include "nn/optim/optimizer.h"
#include "tests/distill/models.h"
#include "tests/support/error_of.h"
#include "tests/support/launch.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;
using namespace distill;

class RankStep : public UnderMpi {};
INSTANTIATE_TEST_SUITE_P(Mpi, RankStep, ::testing::ValuesIn(known_mpis()), family_of);

// Weights, statistics, moments and norms: MLP and ResNet, SGD and AdamW, clipped, a step skipped on
// all ranks for one slice that is no number, batches with empty slices, rows that do not count.
TEST_P(RankStep, bytes_depend_on_slices_and_not_on_ranks) {
  struct Case {
    const char* slices;
    std::vector<int> ranks;
  };
  for (const Case& c : {Case{"8", {2, 4, 8}}, Case{"6", {3}}}) {
    const Launched alone = run_program({RETORT_RANK_STEP_PROGRAM, c.slices});
    EXPECT_EQ(alone.status, 0) << alone.all();
    EXPECT_THAT(alone.said, HasSubstr(join("resnet8, adamw, ", c.slices, " slices: ")));
    for (const int ranks : c.ranks) {
      const Launched r = launch(GetParam(), ranks, {RETORT_RANK_STEP_PROGRAM, c.slices});
      EXPECT_EQ(r.status, 0) << ranks << " ranks, " << r.all();
      EXPECT_EQ(r.said, alone.said) << ranks << " ranks";
    }
  }
}

struct OneRank {
  OneRank() {
    nn::SgdConfig config;
    config.slices = 4;
    optimizer = std::make_unique<nn::Sgd>(student, config);
    optimizer->zero_grad();
    settings.lambda = {0};
    settings.slices = optimizer->slices();
    settings.share = BatchShare::of(*optimizer->slices(), labels);
  }
  void step(std::int64_t samples) {
    distill_step(nullptr, student, {randn({samples, 6}, 3), randint({samples}, 4, 4)}, settings,
                 [this] { optimizer->step(), optimizer->zero_grad(); });
  }
  TinyMlp student{6, {16}, 4, 1};
  std::vector<std::int32_t> labels{0, 1, -100, 3, 2, -100};
  std::unique_ptr<nn::Sgd> optimizer;
  StepSettings settings;
};

TEST(BatchShare, counts_the_rows_of_the_whole_batch) {
  const OneRank one;
  EXPECT_EQ(one.settings.share->samples, 6);
  EXPECT_EQ(one.settings.share->first, 0);
  EXPECT_EQ(one.settings.share->last, 6);
  EXPECT_EQ(one.settings.share->counted, 4);
}

TEST(BatchShare, rows_of_other_slices_are_refused) {
  OneRank one;
  one.step(6);
  const std::string less = error_of([&] { one.step(5); }, ErrorCode::kUsage);
  EXPECT_THAT(less, HasSubstr("expected samples 0 to 6 of 6 for slices 0 to 4, got 5 as 0 to 6"));
  one.settings.share->first = 1;
  EXPECT_THROW(one.step(6), Error);
  one.settings.share->first = 0;
  one.settings.slices = nullptr;  // nobody to say which slices
  EXPECT_THROW(one.step(6), Error);
  EXPECT_EQ(one.optimizer->steps(), 1);
}

}  // namespace
}  // namespace retort::test
