// What rank_exchange_test.cpp starts under a launcher: rank_exchange_program SLICES.
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/distributed/communicator.h"
#include "kernels/grad_norm/grad_norm.h"
#include "nn/layers/linear.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/rank_exchange.h"
#include "tests/support/random.h"
#include "tests/support/ranks_log.h"

namespace {

using namespace retort;
using nn::RankExchange;
using test::say;
using Values = std::vector<float>;

void must(bool good, const std::string& what) {
  if (!good) throw std::logic_error(what);
}

bool same(const Values& a, const Values& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

Values added(const Values& left, const Values& right) {
  Values sum(left.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] + right[i];
  return sum;
}

Values slice_values(std::int64_t s, std::int64_t n) {
  return test::randn({n}, static_cast<std::uint64_t>(s) + 1).to_vector<float>();
}

// Slices [begin, end) as Note [Sum of slices] draws them.
Values drawn(std::int64_t begin, std::int64_t end, std::int64_t n) {
  if (end - begin == 1) return slice_values(begin, n);
  std::int64_t left = 1;
  while (2 * left < end - begin) left *= 2;
  return added(drawn(begin, begin + left, n), drawn(begin + left, end, n));
}

std::vector<double> squares_of(const Values& values) {
  const auto n = static_cast<std::int64_t>(values.size()), block = kernels::kGradNormBlock;
  std::vector<double> squares(static_cast<std::size_t>((n + block - 1) / block));
  kernels::grad_norm_squares_cpu(values.data(), n, squares.data());
  return squares;
}

// Another order than the tree's; on more than two ranks it must have other bytes, or what is
// compared here says nothing.
void check_that_order_matters(const Values& sum, std::int64_t slices, int ranks, std::int64_t n) {
  Values in_rank_order;
  for (int r = 0; r < ranks; ++r) {
    const auto own = RankExchange::slices_of(slices, ranks, r);
    const Values node = drawn(own.begin, own.end, n);
    in_rank_order = r == 0 ? node : added(in_rank_order, node);
  }
  must(same(sum, in_rank_order) == (ranks <= 3), "the order of ranks is told from the tree");
}

void check(Communicator& ranks, std::int64_t slices, std::int64_t n) {
  RankExchange exchange(ranks, slices, n);
  const auto own = exchange.own();
  const Values sum = drawn(0, slices, n);
  const Tensor node = Tensor::from(drawn(exchange.slices().begin, exchange.slices().end, n), {n});
  for (int turn = 0; turn < 2; ++turn) {
    const Tensor part = exchange.sum(node);
    must(same(part.to_vector<float>(), {sum.begin() + own.begin, sum.begin() + own.end}),
         join("the sum of ", n, " values"));
    for (const std::int64_t first : {n, n / 2, std::int64_t{0}}) {
      const std::vector<double> squares = exchange.squares(part, first);
      must(squares == squares_of({sum.begin(), sum.begin() + first}), join("squares of ", first));
    }
  }
  // What everybody owns, over what nobody has; and of a shorter array.
  for (const std::int64_t length : {n, n / 3}) {
    const Tensor values = Tensor::full({length}, -1);
    const auto mine = own.within(0, length);
    values.slice(mine.begin, mine.end)
        .copy_from(Tensor::from(sum, {n}).slice(mine.begin, mine.end));
    exchange.share(values);
    must(same(values.to_vector<float>(), {sum.begin(), sum.begin() + length}),
         join("sharing ", length, " values"));
  }
  check_that_order_matters(sum, slices, ranks.size(), n);
}

struct MomentsOf : nn::Sgd {
  using Sgd::Sgd;
  double size() const { return static_cast<double>(moments_[0].values.numel()); }
};

std::string said_of(nn::Linear& linear, const nn::SgdConfig& config) {
  try {
    nn::Sgd refused(linear, config);
    return "accepted";
  } catch (const Error& error) {
    return error.what();
  }
}

// Memory of the optimizer's state is shared out; numbers that do not go together are refused.
void check_optimizers(Communicator& ranks, std::int64_t slices) {
  nn::Linear linear(200, 300);
  nn::SgdConfig config;
  config.ranks = &ranks, config.slices = slices, config.momentum = 0.9;
  MomentsOf sgd(linear, config);
  double all = 0;
  for (const double size : sgd.slices()->exchange()->gather({{sgd.size()}})) all += size;
  must(all == static_cast<double>(sgd.arena().numel()) && sgd.size() < all, "moments' memory");
  for (const std::int64_t unfit : {1, 7}) {
    config.slices = unfit;
    const std::string said = said_of(linear, config);
    const std::string want = join(unfit == 1 ? "1 rank" : "1 or 7 ranks", ", got ", ranks.size());
    must(said.find(want) != std::string::npos, "refused: " + said);
  }
  config.slices = slices;
  linear.to(Device::kCuda);  // emulated
  const std::string said = said_of(linear, config);
  must(said.find("expected parameters on cpu for a batch that") != std::string::npos, said);
}

void run(std::int64_t slices) {
  Communicator& ranks = Communicator::start();
  for (const std::int64_t n : {90, 16384, 16385, 5 * 16384 + 7}) check(ranks, slices, n);
  check_optimizers(ranks, slices);
  if (ranks.rank() == 0) say(join("good on ", ranks.size(), " ranks"));
  ranks.finish();
}

}  // namespace

int main(int, char** argv) { return retort::test::run_and_say(run, argv[1]); }
