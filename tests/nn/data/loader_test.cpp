#include "nn/data/loader.h"

#include <gtest/gtest.h>

#include <numeric>

#include "nn/data/image_dataset.h"
#include "nn/data/parity.h"
#include "nn/data/permutation.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn::test {
namespace {

using retort::test::same_bytes;

std::shared_ptr<const Dataset> images_of(std::int64_t count) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 4);
  return std::make_shared<ImageDataset>(
      retort::test::randint({count, 3, 8, 8}, 1, 256).to(DType::kU8), labels, 4, "synthetic");
}

std::shared_ptr<const Source> images(std::int64_t count, const SourceOptions& options = {}) {
  return images_of(count)->source(options);
}

std::shared_ptr<const ParityDataset> parity(const ParityOptions& options) {
  return std::make_shared<ParityDataset>(options);
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
      {.steps_per_epoch = 2});
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
  const auto source = images(50, {.seed = 3, .treatment = {{"augment", "crop_flip"}}});
  const auto same = [](std::int64_t) { return iota(50); };
  Loader loader(source, same, {.steps_per_epoch = 3});
  const Batch first = loader.at(0);
  EXPECT_EQ(loader.at(2).variant, first.variant);
  EXPECT_NE(loader.at(3).variant, first.variant);
}

TEST(Loader, a_batch_is_a_function_of_its_step) {
  const auto source = images(50, {.seed = 11, .treatment = {{"augment", "crop_flip"}}});
  Loader a(source, scattered(50, 8), {.steps_per_epoch = 7}),
      b(source, scattered(50, 8), {.steps_per_epoch = 7, .prefetch = true});
  // In order across an epoch's end, then a jump back (a resumed run), then the same again.
  for (const std::int64_t step : {4, 5, 6, 7, 8, 9, 50, 50, 51, 0}) {
    const Batch x = a.at(step), y = b.at(step);
    EXPECT_EQ(x.sample, y.sample);
    EXPECT_EQ(x.variant, y.variant);
    EXPECT_TRUE(same_bytes(x.inputs[0].values, y.inputs[0].values));
    EXPECT_TRUE(same_bytes(x.targets, y.targets));
  }
}

TEST(Loader, the_plan_may_change_while_a_batch_is_being_made) {
  Loader loader(images(64), sequential_plan(64, 4), {.prefetch = true});
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
  for (const bool draws : {false, true}) {
    const std::shared_ptr<const Dataset> data =
        draws ? parity({.n = 40, .k = 5, .size = 12}) : images_of(12);
    for (const bool own_normalize : {false, true}) {
      SourceOptions options;
      options.readings.resize(2);
      if (!draws) {
        options.treatment.set("augment", "crop_flip");
        options.readings[0].options.set("normalize", "cifar");
        options.readings[1].options.set("normalize", own_normalize ? "imagenet" : "cifar");
      }
      const auto make = [&](DType student, DType teacher) {
        options.readings[0].dtype = student, options.readings[1].dtype = teacher;
        return data->source(options)->make(iota(12));
      };
      const Batch f32 = make(DType::kF32, DType::kF32), mixed = make(DType::kBF16, DType::kF32);
      const Tensor &student = f32.inputs[0].values, &teacher = f32.inputs[1].values;
      EXPECT_EQ(mixed.inputs[0].values.dtype(), DType::kBF16);
      EXPECT_TRUE(same_bytes(mixed.inputs[0].values, student.to(DType::kBF16)));
      EXPECT_TRUE(same_bytes(mixed.inputs[1].values, teacher));
      EXPECT_EQ(mixed.variant, f32.variant);
      EXPECT_TRUE(
          same_bytes(make(DType::kF32, DType::kBF16).inputs[1].values, teacher.to(DType::kBF16)));
    }
  }
}

// Stands for a file that fails in the middle of a run.
class Failing : public Source {
 public:
  const DataFacts& facts() const override { return facts_; }
  const SourceOptions& options() const override { return options_; }
  Batch make(std::span<const std::int64_t> samples, std::uint32_t) const override {
    RETORT_CHECK_AS(kIo, samples[0] < 4, "cannot read");
    Batch batch;
    batch.sample.assign(samples.begin(), samples.end());
    return batch;
  }

 private:
  DataFacts facts_{.size = 8, .epoch_size = 8, .classes = 2, .input = {1}};
  SourceOptions options_;
};

TEST(Loader, an_error_ahead_is_thrown_where_its_batch_is_asked_for) {
  Loader loader(std::make_shared<Failing>(), sequential_plan(8, 2), {.prefetch = true});
  EXPECT_EQ(loader.at(0).sample[0], 0);
  EXPECT_EQ(loader.at(1).sample[0], 2);
  EXPECT_THROW(loader.at(2), Error);
  EXPECT_THROW(loader.at(2), Error);
  EXPECT_EQ(loader.at(1).sample[0], 2);
}

TEST(Loader, wrong_settings_are_errors) {
  EXPECT_THROW(Loader(nullptr, sequential_plan(4, 1), {}), Error);
  EXPECT_THROW(Loader(images(4), nullptr, {}), Error);
  EXPECT_THROW(Loader(images(4), sequential_plan(4, 1), {.steps_per_epoch = 0}), Error);
  Loader outside(images(4), sequential_plan(5, 5), {});
  EXPECT_THROW(outside.at(0), Error);
  EXPECT_THROW(outside.at(-1), Error);
}

}  // namespace
}  // namespace retort::nn::test
