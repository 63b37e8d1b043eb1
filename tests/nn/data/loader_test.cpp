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

// A plan whose batches jump about, so that neighbours differ.
BatchPlan scattered(std::int64_t size, std::int64_t batch) {
  return [size, batch](std::int64_t step) {
    std::vector<std::int64_t> samples;
    for (std::int64_t i = 0; i < batch; ++i)
      samples.push_back(
          static_cast<std::int64_t>(permute(static_cast<std::uint64_t>((step * batch + i) % size),
                                            static_cast<std::uint64_t>(size), 5, 0, 0)));
    return samples;
  };
}

TEST(Loader, a_batch_holds_the_samples_of_the_plan) {
  Loader loader(
      images(10),
      [](std::int64_t step) {
        return step % 2 == 0 ? std::vector<std::int64_t>{9, 3, 3} : std::vector<std::int64_t>{7};
      },
      {.steps_per_epoch = 2}, {});
  EXPECT_EQ(loader.at(0).sample, (std::vector<std::int64_t>{9, 3, 3}));
  const Batch last = loader.at(5);
  EXPECT_EQ(last.sample, (std::vector<std::int64_t>{7}));
  EXPECT_EQ(last.targets.to_vector<std::int32_t>(), (std::vector<std::int32_t>{3}));
  EXPECT_EQ(loader.epoch_of(5), 2);
}

TEST(Loader, sequential_plan_ends_each_epoch_with_a_short_batch) {
  const BatchPlan plan = sequential_plan(10, 4);
  EXPECT_EQ(plan(0), (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(plan(2), (std::vector<std::int64_t>{8, 9}));
  EXPECT_EQ(plan(3), plan(0));
  EXPECT_EQ(plan(3 * (std::int64_t{1} << 40) + 1), plan(1));
  EXPECT_EQ(sequential_plan(8, 4)(2), (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_THROW(sequential_plan(0, 1), Error);
  EXPECT_THROW(sequential_plan(1, 0), Error);
}

TEST(Loader, the_augmentation_changes_with_the_epoch_and_not_before) {
  BatchOptions make;
  make.augment = Augment::kCropFlip;
  make.seed = 3;
  const auto same = [](std::int64_t) { return iota(50); };
  Loader loader(images(50), same, {.steps_per_epoch = 3}, make);
  const Batch first = loader.at(0);
  EXPECT_EQ(loader.at(2).augment, first.augment);
  EXPECT_NE(loader.at(3).augment, first.augment);
}

TEST(Loader, a_batch_is_a_function_of_its_step) {
  const auto data = images(50);
  BatchOptions make;
  make.augment = Augment::kCropFlip;
  make.seed = 11;
  Loader a(data, scattered(50, 8), {.steps_per_epoch = 7}, make),
      b(data, scattered(50, 8), {.steps_per_epoch = 7, .prefetch = true}, make);
  // In order across an epoch's end, then a jump back (a resumed run), then the same again.
  for (const std::int64_t step : {4, 5, 6, 7, 8, 9, 50, 50, 51, 0}) {
    const Batch x = a.at(step), y = b.at(step);
    EXPECT_EQ(x.sample, y.sample);
    EXPECT_EQ(x.augment, y.augment);
    EXPECT_TRUE(same_bytes(x.inputs, y.inputs));
    EXPECT_TRUE(same_bytes(x.targets, y.targets));
  }
}

TEST(Loader, the_plan_may_change_while_a_batch_is_being_made) {
  Loader loader(images(64), sequential_plan(64, 4), {.prefetch = true}, {});
  for (std::int64_t round = 0; round < 20; ++round) {
    EXPECT_EQ(loader.at(0).sample[0], round);
    loader.set_plan(
        [round](std::int64_t step) { return std::vector<std::int64_t>{round + 1 + step}; });
  }
  EXPECT_THROW(loader.set_plan(nullptr), Error);
}

// What a teacher sees may not depend on the precision of the student that asks: its logits are
// cached for all.
TEST(Loader, a_teacher_of_another_dtype_sees_the_images_that_it_would_see_alone) {
  for (const bool parity : {false, true}) {
    const std::shared_ptr<const Dataset> data =
        parity ? std::shared_ptr<const Dataset>(
                     std::make_shared<ParityDataset>(ParityOptions{.n = 40, .k = 5, .size = 12}))
               : images(12);
    for (const bool own_normalize : {false, true}) {
      BatchOptions make;
      make.augment = Augment::kCropFlip;
      make.normalize = Normalize::named("cifar");
      if (own_normalize) make.teacher_normalize = Normalize::named("imagenet");
      const Batch f32 = data->make_batch(iota(12), make);
      make.teacher_dtype = DType::kF32;
      make.dtype = DType::kBF16;
      const Batch mixed = data->make_batch(iota(12), make);
      EXPECT_EQ(mixed.inputs.dtype(), DType::kBF16);
      EXPECT_TRUE(same_bytes(mixed.inputs, f32.inputs.to(DType::kBF16)));
      EXPECT_TRUE(same_bytes(mixed.teacher_inputs, f32.teacher_inputs));
      EXPECT_EQ(mixed.augment, f32.augment);
      make.teacher_dtype = DType::kBF16;
      make.dtype = DType::kF32;
      EXPECT_TRUE(same_bytes(data->make_batch(iota(12), make).teacher_inputs,
                             f32.teacher_inputs.to(DType::kBF16)));
    }
  }
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
  Loader loader(std::make_shared<Failing>(), sequential_plan(8, 2), {.prefetch = true}, {});
  EXPECT_EQ(loader.at(0).sample[0], 0);
  EXPECT_EQ(loader.at(1).sample[0], 2);
  EXPECT_THROW(loader.at(2), Error);
  EXPECT_THROW(loader.at(2), Error);
  EXPECT_EQ(loader.at(1).sample[0], 2);
}

TEST(Loader, wrong_settings_are_errors) {
  EXPECT_THROW(Loader(nullptr, sequential_plan(4, 1), {}, {}), Error);
  EXPECT_THROW(Loader(images(4), nullptr, {}, {}), Error);
  EXPECT_THROW(Loader(images(4), sequential_plan(4, 1), {.steps_per_epoch = 0}, {}), Error);
  Loader outside(images(4), sequential_plan(5, 5), {}, {});
  EXPECT_THROW(outside.at(0), Error);
  EXPECT_THROW(outside.at(-1), Error);
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
  Loader loader(data, sequential_plan(data->size(), 32), {}, {});
  const Batch far = loader.at(std::int64_t{1} << 30);
  EXPECT_EQ(far.sample[0], std::int64_t{1} << 35);
  EXPECT_EQ(far.inputs.shape(), (Shape{32, 130}));
  // The high half of the index counts: 2^35 and 0 are other samples.
  EXPECT_NE(far.inputs.to_vector<float>(), loader.at(0).inputs.to_vector<float>());
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
