#include "nn/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "nn/data/image_dataset.h"
#include "nn/data/parity.h"
#include "nn/data/permutation.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn::test {
namespace {

using retort::test::same_bytes;

std::shared_ptr<const Dataset> images(std::int64_t count) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 4);
  return std::make_shared<ImageDataset>(
      retort::test::randint({count, 3, 8, 8}, 1, 256).to(DType::kU8), labels, 4, "synthetic");
}

std::vector<std::int64_t> epoch_of(const Loader& loader, std::int64_t epoch) {
  std::vector<std::int64_t> all;
  for (std::int64_t s = 0; s < loader.steps_per_epoch(); ++s)
    for (const std::int64_t i : loader.indices({epoch, s})) all.push_back(i);
  return all;
}

std::vector<std::int64_t> sorted(std::vector<std::int64_t> v) {
  std::sort(v.begin(), v.end());
  return v;
}

std::vector<std::int64_t> iota(std::int64_t n) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

TEST(Permutation, is_a_bijection_for_any_size) {
  for (const std::uint64_t n : {1, 2, 3, 10, 255, 256, 257, 5000}) {
    std::vector<bool> hit(n);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t to = permute(i, n, 7, 1, 0);
      ASSERT_LT(to, n);
      ASSERT_FALSE(hit[to]) << n;
      hit[to] = true;
    }
  }
  EXPECT_LT(permute(12345678901, std::uint64_t{1} << 40, 1, 2, 3), std::uint64_t{1} << 40);
}

TEST(Permutation, every_element_goes_everywhere_equally_often) {
  constexpr std::uint64_t kSize = 5;
  int count[kSize][kSize] = {};
  for (std::uint32_t epoch = 0; epoch < 5000; ++epoch)
    for (std::uint64_t i = 0; i < kSize; ++i) ++count[i][permute(i, kSize, 3, epoch, 0)];
  for (const auto& row : count)
    for (const int c : row) EXPECT_NEAR(c, 1000, 4.5 * 28);  // binomial, 4.5 deviations
}

TEST(Loader, follows_the_order_given_and_never_reshuffles) {
  const std::vector<std::int64_t> order{9, 3, 3, 0, 7};
  Loader loader(images(10), order, {.batch = 2}, {});
  EXPECT_EQ(loader.steps_per_epoch(), 3);
  for (const std::int64_t epoch : {0, 1, 5}) EXPECT_EQ(epoch_of(loader, epoch), order);
  const Batch last = loader.at({0, 2});
  EXPECT_EQ(last.sample, (std::vector<std::int64_t>{7}));
  EXPECT_EQ(last.targets.to_vector<std::int32_t>(), (std::vector<std::int32_t>{3}));
}

TEST(Loader, drop_last_leaves_out_the_short_batch) {
  Loader loader(images(10), {}, {.batch = 4, .drop_last = true}, {});
  EXPECT_EQ(epoch_of(loader, 0), iota(8));
  EXPECT_EQ(loader.next({0, 1}), (Position{1, 0}));
  EXPECT_THROW(loader.indices({0, 2}), Error);
  EXPECT_THROW(Loader(images(3), {}, {.batch = 4, .drop_last = true}, {}), Error);
}

TEST(Loader, epoch_shuffle_is_a_new_permutation_each_epoch) {
  Loader loader(images(103), {}, {.batch = 10, .shuffle = Shuffle::kEpoch, .seed = 1}, {});
  const auto a = epoch_of(loader, 0), b = epoch_of(loader, 1);
  EXPECT_EQ(sorted(a), iota(103));
  EXPECT_EQ(sorted(b), iota(103));
  EXPECT_NE(a, b);
  EXPECT_NE(a, iota(103));
  Loader other(images(103), {}, {.batch = 10, .shuffle = Shuffle::kEpoch, .seed = 2}, {});
  EXPECT_NE(epoch_of(other, 0), a);
}

TEST(Loader, window_shuffle_keeps_samples_within_their_window) {
  Loader loader(images(103), {}, {.batch = 10, .shuffle = Shuffle::kWindow, .window = 3, .seed = 1},
                {});
  const auto all = epoch_of(loader, 0);
  EXPECT_EQ(sorted(all), iota(103));
  for (std::size_t w = 0; w < all.size(); w += 30) {
    const std::size_t end = std::min(w + 30, all.size());
    for (std::size_t i = w; i < end; ++i) {
      EXPECT_GE(all[i], static_cast<std::int64_t>(w));
      EXPECT_LT(all[i], static_cast<std::int64_t>(end));
    }
    EXPECT_FALSE(std::is_sorted(all.begin() + static_cast<std::ptrdiff_t>(w),
                                all.begin() + static_cast<std::ptrdiff_t>(end)));
  }
  EXPECT_THROW(Loader(images(9), {}, {.shuffle = Shuffle::kWindow}, {}), Error);
}

TEST(Loader, a_batch_is_a_function_of_its_position) {
  const auto data = images(50);
  BatchOptions make;
  make.augment = Augment::kCropFlip;
  make.seed = 11;
  const LoaderOptions plain{.batch = 8, .shuffle = Shuffle::kEpoch, .seed = 4};
  LoaderOptions ahead = plain;
  ahead.prefetch = true;
  Loader a(data, {}, plain, make), b(data, {}, ahead, make);
  // In order across an epoch's end, then a jump back (a resumed run), then the same again.
  std::vector<Position> visits;
  for (Position p{0, 4}; visits.size() < 9; p = a.next(p)) visits.push_back(p);
  visits.insert(visits.end(), {{7, 1}, {7, 1}, {7, 2}, {0, 0}});
  for (const Position& p : visits) {
    const Batch x = a.at(p), y = b.at(p);
    EXPECT_EQ(x.sample, y.sample);
    EXPECT_EQ(x.augment, y.augment);
    EXPECT_TRUE(same_bytes(x.inputs, y.inputs));
    EXPECT_TRUE(same_bytes(x.targets, y.targets));
  }
}

TEST(Loader, the_order_may_change_while_a_batch_is_being_made) {
  const auto data = images(64);
  Loader loader(data, {}, {.batch = 4, .prefetch = true}, {});
  for (std::int64_t round = 0; round < 20; ++round) {
    EXPECT_EQ(loader.at({0, 0}).sample[0], round == 0 ? 0 : 63 - (round - 1));
    std::vector<std::int64_t> order = iota(64);
    std::reverse(order.begin(), order.end());
    std::rotate(order.begin(), order.begin() + round, order.end());
    loader.set_order(order);
  }
  EXPECT_THROW(loader.set_order({64}), Error);
}

// Stands for a file that fails in the middle of a run.
class Failing : public Dataset {
 public:
  std::int64_t size() const override { return 8; }
  std::int64_t classes() const override { return 2; }
  std::int32_t label(std::int64_t) const override { return 0; }
  std::uint64_t hash() const override { return 0; }
  Shape input_shape() const override { return {1}; }
  std::string describe() const override { return "failing"; }
  Batch make_batch(std::span<const std::int64_t> samples, const BatchOptions&) const override {
    RETORT_CHECK_AS(kIo, samples[0] < 4, "cannot read");
    Batch batch;
    batch.sample.assign(samples.begin(), samples.end());
    return batch;
  }
};

TEST(Loader, an_error_ahead_is_thrown_where_its_batch_is_asked_for) {
  Loader loader(std::make_shared<Failing>(), {}, {.batch = 2, .prefetch = true}, {});
  EXPECT_EQ(loader.at({0, 0}).sample[0], 0);
  EXPECT_EQ(loader.at({0, 1}).sample[0], 2);
  EXPECT_THROW(loader.at({0, 2}), Error);
  EXPECT_THROW(loader.at({0, 2}), Error);
  EXPECT_EQ(loader.at({0, 1}).sample[0], 2);
}

TEST(Loader, wrong_settings_are_errors) {
  EXPECT_THROW(Loader(images(4), {}, {.batch = 0}, {}), Error);
  EXPECT_THROW(Loader(images(4), {4}, {.batch = 1}, {}), Error);
  EXPECT_THROW(Loader(images(4), {-1}, {.batch = 1}, {}), Error);
  EXPECT_THROW(Loader(nullptr, {}, {}, {}), Error);
}

TEST(Parity, labels_are_the_product_of_the_support) {
  const ParityDataset data({.n = 40, .k = 5, .size = 5000, .seed = 3});
  EXPECT_EQ(data.support(), (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  const auto samples = iota(5000);
  const Batch batch = data.make_batch(samples, {});
  const auto x = batch.inputs.to_vector<float>();
  const auto y = batch.targets.to_vector<std::int32_t>();
  double sum = 0, correlation = 0;
  int ones = 0;
  for (std::size_t i = 0; i < 5000; ++i) {
    float product = 1;
    for (std::size_t j = 0; j < 5; ++j) product *= x[i * 40 + j];
    ASSERT_EQ(y[i], product > 0 ? 0 : 1);
    ASSERT_EQ(data.label(static_cast<std::int64_t>(i)), y[i]);
    for (std::size_t j = 0; j < 40; ++j) {
      ASSERT_TRUE(x[i * 40 + j] == 1 || x[i * 40 + j] == -1);
      sum += x[i * 40 + j];
    }
    correlation += x[i * 40] * x[i * 40 + 39];
    ones += y[i];
  }
  EXPECT_LT(std::abs(sum), 4.5 * std::sqrt(200000.0));
  EXPECT_LT(std::abs(correlation), 4.5 * std::sqrt(5000.0));
  EXPECT_NEAR(ones, 2500, 4.5 * 35);
}

TEST(Parity, streams_differ_by_seed_and_by_being_held_out) {
  const auto samples = iota(64);
  const auto values = [&](std::uint64_t seed, bool held_out) {
    return ParityDataset({.n = 40, .k = 5, .size = 64, .seed = seed, .held_out = held_out})
        .make_batch(samples, {})
        .inputs.to_vector<float>();
  };
  EXPECT_EQ(values(1, false), values(1, false));
  EXPECT_NE(values(1, false), values(2, false));
  EXPECT_NE(values(1, false), values(1, true));
}

TEST(Parity, online_samples_are_read_in_sequence) {
  const auto data = std::make_shared<ParityDataset>(
      ParityOptions{.n = 130, .k = 2, .size = std::int64_t{1} << 40, .seed = 9});
  Loader loader(data, {}, {.batch = 32}, {});
  const Batch far = loader.at({0, std::int64_t{1} << 30});
  EXPECT_EQ(far.sample[0], std::int64_t{1} << 35);
  EXPECT_EQ(far.inputs.shape(), (Shape{32, 130}));
  // The high half of the index counts: 2^35 and 0 are other samples.
  EXPECT_NE(far.inputs.to_vector<float>(), loader.at({0, 0}).inputs.to_vector<float>());
}

TEST(Parity, a_seeded_support_has_k_distinct_coordinates) {
  const ParityDataset a({.n = 40, .k = 6, .size = 1, .support_seed = 1});
  const ParityDataset b({.n = 40, .k = 6, .size = 1, .support_seed = 2});
  EXPECT_EQ(a.support().size(), 6u);
  EXPECT_EQ(std::adjacent_find(a.support().begin(), a.support().end()), a.support().end());
  EXPECT_NE(a.support(), b.support());
  EXPECT_NE(a.hash(), b.hash());
  EXPECT_THROW(ParityDataset({.n = 4, .k = 5, .size = 1}), Error);
  EXPECT_THROW(ParityDataset({.n = 4, .k = 0, .size = 1}), Error);
  EXPECT_THROW(ParityDataset({.n = 4, .k = 2, .size = 0}), Error);
}

}  // namespace
}  // namespace retort::nn::test
