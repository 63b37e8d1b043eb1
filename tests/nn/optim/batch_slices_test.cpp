#include "nn/optim/batch_slices.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "nn/layers/batch_norm.h"
#include "nn/optim/optimizer.h"
#include "tests/support/close.h"
#include "tests/support/error_of.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::devices;
using test::error_of;
using test::randn;

constexpr std::int64_t kC = 3;

// Two batch norms, of which a pass may leave out the second.
struct Net : Module {
  BatchNorm& first = add_module("first", std::make_shared<BatchNorm>(kC));
  BatchNorm& second = add_module("second", std::make_shared<BatchNorm>(kC));
  Tensor loss(const Tensor& x, bool both) const {
    const Tensor y = first.forward(x);
    return sum(square(both ? second.forward(y) : y));
  }
  std::vector<float> buffer(std::size_t i) const {
    return named_buffers().at(i).second.to_vector<float>();
  }
};

struct Steps {
  explicit Steps(Device on, std::int64_t slices, SgdConfig config = {}) : device(on) {
    net.to(on);
    config.slices = slices;
    sgd = std::make_unique<Sgd>(net, config);
    sgd->zero_grad();
  }
  // One update on rows of x, cut in slices; `each` rows of a slice at once.
  void step(const Tensor& x, std::int64_t each = 1000, bool both = true) {
    BatchSlices& slices = *sgd->slices();
    for (std::int64_t s = 0; s < slices.count(); ++s) {
      const auto [begin, end] = slice_of(x.dim(0), slices.count(), s);
      std::int64_t part = 0;
      for (std::int64_t at = begin; at < end; at += each, ++part) {
        const StatisticsScope scope(slices.begin_pass(part));
        net.loss(x.slice(at, std::min(at + each, end)), both).backward();
      }
      slices.add(s, begin < end);
    }
    sgd->step();
    sgd->zero_grad();
  }
  Device device;
  Net net;
  std::unique_ptr<Sgd> sgd;
};

// Mean and unbiased variance of channel c over rows [begin, end), in double.
std::pair<double, double> moments(const Tensor& x, std::int64_t begin, std::int64_t end,
                                  std::int64_t c) {
  const std::vector<float> v = x.to_vector<float>();
  const double n = static_cast<double>(end - begin);
  double mean = 0, var = 0;
  const auto at = [&](std::int64_t r) {
    return static_cast<double>(v[static_cast<std::size_t>(r * kC + c)]);
  };
  for (std::int64_t r = begin; r < end; ++r) mean += at(r) / n;
  for (std::int64_t r = begin; r < end; ++r) var += (at(r) - mean) * (at(r) - mean) / (n - 1);
  return {mean, var};
}

TEST(BatchSlices, running_statistics_take_in_the_mean_of_the_slices) {
  const Tensor x = randn({14, kC}, 1, DType::kF32, 2, 1);
  for (const Device device : devices())
    for (const std::int64_t slices : {2, 4}) {
      Steps run(device, slices);
      run.step(x.to(device));
      for (std::int64_t c = 0; c < kC; ++c) {
        double mean = 0, var = 0;
        for (std::int64_t s = 0; s < slices; ++s) {
          const auto [begin, end] = slice_of(14, slices, s);
          const auto own = moments(x, begin, end, c);
          mean += own.first / static_cast<double>(slices);
          var += own.second / static_cast<double>(slices);
        }
        const auto i = static_cast<std::size_t>(c);
        EXPECT_NEAR(run.net.buffer(0)[i], 0.1 * mean, 1e-6) << name_of(device) << slices;
        EXPECT_NEAR(run.net.buffer(1)[i], 0.9 + 0.1 * var, 1e-6) << name_of(device) << slices;
      }
    }
}

TEST(BatchSlices, passes_of_a_slice_leave_their_mean) {
  const Tensor x = randn({12, kC}, 2, DType::kF32, 2, 1);
  for (const Device device : devices()) {
    Steps run(device, 2);
    run.step(x.to(device), 2);  // three passes a slice
    for (std::int64_t c = 0; c < kC; ++c) {
      double mean = 0;
      for (std::int64_t r = 0; r < 12; r += 2) mean += moments(x, r, r + 2, c).first / 6;
      EXPECT_NEAR(run.net.buffer(0)[static_cast<std::size_t>(c)], 0.1 * mean, 1e-6);
    }
  }
}

TEST(BatchSlices, empty_slices_have_no_part_in_the_mean) {
  const Tensor x = randn({2, 2, 2, kC}, 3, DType::kF32, 2, 1);
  for (const Device device : devices()) {
    Steps few(device, 8), all(device, 2);
    few.step(x.to(device));
    all.step(x.to(device));
    EXPECT_EQ(few.net.buffer(0), all.net.buffer(0)) << name_of(device);
    EXPECT_EQ(few.net.buffer(3), all.net.buffer(3)) << name_of(device);
  }
}

TEST(BatchSlices, what_no_pass_reaches_stays) {
  const Tensor x = randn({8, kC}, 4);
  for (const Device device : devices()) {
    Steps run(device, 4);
    run.step(x.to(device));
    const auto mean = run.net.buffer(2), var = run.net.buffer(3), own = run.net.buffer(0);
    run.step(x.to(device), 1000, false);
    EXPECT_EQ(run.net.buffer(2), mean) << name_of(device);
    EXPECT_EQ(run.net.buffer(3), var) << name_of(device);
    EXPECT_NE(run.net.buffer(0), own) << name_of(device);
  }
}

TEST(BatchSlices, gradients_are_the_sum_and_are_clipped_as_one) {
  const Tensor x = randn({9, kC}, 5);
  for (const Device device : devices())
    for (const double clip : {0.0, 0.01}) {
      SgdConfig config;
      config.clip_norm = clip;
      Steps run(device, 3, config);
      Net by_hand;
      by_hand.to(device);
      Sgd plain(by_hand, config);
      for (std::int64_t s = 0; s < 3; ++s)
        by_hand.loss(x.to(device).slice(3 * s, 3 * s + 3), true).backward();
      plain.step();
      run.step(x.to(device));
      for (std::size_t i = 0; i < 4; ++i)
        EXPECT_TRUE(
            all_close(run.net.named_parameters()[i].second, by_hand.named_parameters()[i].second))
            << name_of(device) << clip << i;
      if (clip > 0) {
        EXPECT_TRUE(all_close(run.sgd->gradient_norm(), plain.gradient_norm()));
      }
    }
}

TEST(BatchSlices, a_skipped_update_moves_no_statistics) {
  for (const Device device : devices()) {
    SgdConfig config;
    config.skip_not_finite = true;
    Steps run(device, 2, config);
    const Tensor x = randn({8, kC}, 7).to(device);
    run.step(x);
    const auto before = run.net.buffer(0);
    const Tensor bad = x.clone();
    bad.slice(5, 6).fill(std::numeric_limits<double>::quiet_NaN());
    run.step(bad);
    EXPECT_EQ(run.net.buffer(0), before) << name_of(device);
    run.step(x);
    EXPECT_NE(run.net.buffer(0), before) << name_of(device);
  }
}

// Not even where a slice before left no number.
TEST(BatchSlices, a_slice_leaves_nothing_to_the_next) {
  const Tensor x = randn({8, kC}, 6);
  Steps run(Device::kCpu, 2), other(Device::kCpu, 2);
  {
    const StatisticsScope scope(run.sgd->slices()->begin_pass(0));
    const Tensor bad = Tensor::full({4, kC}, std::numeric_limits<float>::infinity());
    run.net.loss(bad, true).backward();
  }
  run.sgd->slices()->add(0, true);
  run.sgd->zero_grad();  // the step came to no end
  run.step(x);
  other.step(x);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(run.net.buffer(i), other.net.buffer(i)) << i;
}

TEST(BatchSlices, statistics_are_views_behind_the_parameters) {
  Steps run(Device::kCpu, 2);
  const ParameterArena& arena = run.sgd->arena();
  ASSERT_EQ(arena.statistics().size(), 4u);
  EXPECT_EQ(arena.statistics()[3].path, "second.running_var");
  EXPECT_EQ(arena.numel(), 4 * 16);
  EXPECT_EQ(arena.values().numel(), 8 * 16);
  EXPECT_EQ(run.net.buffer(1), std::vector<float>(kC, 1));  // their values are kept
  for (const auto& [name, buffer] : run.net.named_buffers())
    EXPECT_EQ(buffer.storage(), arena.values().storage()) << name;
  Sgd whole(run.net, {});
  EXPECT_TRUE(whole.arena().statistics().empty());
  EXPECT_EQ(whole.slices(), nullptr);
}

TEST(BatchSlices, what_does_not_fit_is_refused) {
  Net net;
  SgdConfig config;
  config.slices = 0;
  EXPECT_THROW(Sgd(net, config), Error);
  config.slices = kMostSlices + 1;
  EXPECT_THROW(Sgd(net, config), Error);
  config.slices = 2;
  Sgd sgd(net, config);
  EXPECT_THROW(sgd.step(), Error);  // no slice was given
  sgd.slices()->add(0, false);
  EXPECT_NE(error_of([&] { sgd.step(); }, ErrorCode::kUsage).find("all 2 slices of a batch"),
            std::string::npos);
  sgd.zero_grad();
  EXPECT_EQ(sgd.steps(), 0);
  sgd.slices()->add(0, false);
  EXPECT_NE(error_of([&] { sgd.step(); }, ErrorCode::kUsage).find("expected all 2 slices"),
            std::string::npos);
  EXPECT_THROW(sgd.slices()->add(2, false), Error);
  Sgd later(net, config);  // takes the statistics over, as it does the parameters
  EXPECT_THROW(sgd.step(), Error);
  net.visit_buffers([](const std::string&, Tensor& t) { t = t.clone(); });
  EXPECT_NE(error_of([&] { later.step(); }, ErrorCode::kUsage).find("first.running_mean"),
            std::string::npos);
}

}  // namespace
}  // namespace retort::nn
