#include "kernels/row_rank/row_rank.h"

#include <gtest/gtest.h>

#include "engine/ops/row_rank.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Ranks = std::vector<std::int32_t>;

Ranks ranks(const Tensor& logits, const std::vector<std::int32_t>& targets, Device device,
            std::int32_t ignore = -100) {
  return row_rank(logits.to(device),
                  Tensor::from<std::int32_t>(targets, {static_cast<std::int64_t>(targets.size())},
                                             device),
                  ignore)
      .to_vector<std::int32_t>();
}

TEST(RowRank, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor row = Tensor::from<float>({1, 5, 3, 5}, {1, 4});
    for (const auto& [target, rank] : {std::pair{0, 3}, {1, 0}, {2, 2}, {3, 1}, {-100, -1}})
      EXPECT_EQ(ranks(row, {target}, device), (Ranks{rank})) << target << name_of(device);
    EXPECT_EQ(ranks(row, {2}, device, 2), (Ranks{-1}));
    const Tensor stacked =
        row_rank(randn({2, 3, 5}, 1).to(device), Tensor::zeros({2, 3}, DType::kI32, device));
    EXPECT_EQ(stacked.shape(), (Shape{2, 3}));
  }
}

TEST(RowRank, nan_is_never_right_and_infinities_are_ordered) {
  for (const Device device : devices()) {
    const Tensor nan = Tensor::from<float>({1, NAN, 3, 2, NAN}, {1, 5});
    for (const auto& [target, rank] : {std::pair{0, 4}, {1, 5}, {2, 2}, {3, 3}, {4, 5}})
      EXPECT_EQ(ranks(nan, {target}, device), (Ranks{rank})) << target << name_of(device);
    const Tensor all = Tensor::full({1, 3}, NAN);
    EXPECT_EQ(ranks(all, {0}, device), (Ranks{3}));
    const Tensor infinite = Tensor::from<float>({-kInfinity, 0, kInfinity, -kInfinity}, {1, 4});
    for (const auto& [target, rank] : {std::pair{0, 2}, {1, 1}, {2, 0}, {3, 3}})
      EXPECT_EQ(ranks(infinite, {target}, device), (Ranks{rank})) << target << name_of(device);
  }
}

// Wherever in a vector of logits the NaN lies, in every type: rows of -inf before five others.
TEST(RowRank, nan_is_larger_than_every_number_at_every_place) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (std::int32_t before = 0; before < 20; ++before) {
        std::vector<float> row(static_cast<std::size_t>(before), -kInfinity);
        for (const float v : {1.0f, NAN, 3.0f, 2.0f, NAN}) row.push_back(v);
        for (int k = 0; k < 20; ++k) row.push_back(-kInfinity);
        const std::int32_t classes = static_cast<std::int32_t>(row.size());
        const Tensor logits = Tensor::from<float>(row, {1, classes}).to(dtype);
        for (const auto& [target, rank] :
             {std::pair{0, 4}, {1, classes}, {2, 2}, {3, 3}, {4, classes}})
          ASSERT_EQ(ranks(logits, {before + target}, device), (Ranks{rank}))
              << target << " behind " << before << " of " << name_of(dtype) << " on "
              << name_of(device);
      }
}

// Whole numbers, so that many logits are equal.
Tensor few_values(const Shape& shape, std::uint64_t seed, DType dtype) {
  return randint(shape, seed, 9).to(dtype);
}

TEST(RowRank, equals_the_definition_at_edge_sizes) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t rows : {0, 1, 7, 33})
      for (const std::int64_t classes : {1, 2, 31, 32, 33, 1000, 1024, 1025, 5000}) {
        if (rows > 7 && classes > 1000) continue;   // the emulator is slow
        for (const std::int64_t offset : {0, 1}) {  // rows that do not start at 16 bytes
          const Tensor wide = few_values({rows, classes + 3}, 1, dtype);
          const Tensor logits = wide.slice_columns(offset, offset + classes);
          std::vector<std::int32_t> targets =
              randint({rows}, 2, static_cast<std::uint32_t>(classes)).to_vector<std::int32_t>();
          if (rows > 1) targets[1] = -100;
          const auto s = logits.to_vector<double>();
          Ranks want;
          for (std::size_t n = 0; n < targets.size(); ++n) {
            std::int32_t before_it = targets[n] == -100 ? -1 : 0;
            for (std::int64_t v = 0; targets[n] != -100 && v < classes; ++v) {
              const double* const row = &s[n * static_cast<std::size_t>(classes)];
              const double mine = row[targets[n]];
              before_it += row[v] > mine || (row[v] == mine && v < targets[n]);
            }
            want.push_back(before_it);
          }
          set_thread_count(offset == 0 ? 1 : 3);
          for (const Device device : devices()) {
            if (device == Device::kCuda && dtype == DType::kF64) continue;
            const Tensor there = wide.to(device).slice_columns(offset, offset + classes);
            const Tensor at = Tensor::from<std::int32_t>(targets, {rows}, device);
            ASSERT_EQ(row_rank(there, at).to_vector<std::int32_t>(), want)
                << name_of(dtype) << " on " << name_of(device) << " " << rows << " x " << classes;
          }
        }
      }
  set_thread_count(before);
}

TEST(RowRank, errors) {
  const Tensor logits = randn({2, 3}, 1);
  try {
    ranks(logits, {0, 3}, Device::kCpu);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[row_rank] expected targets in [0, 3) or -100, got 3 in row 1");
  }
  EXPECT_THROW(ranks(logits, {-1, 0}, Device::kCpu), Error);
  EXPECT_THROW(ranks(logits, {0}, Device::kCpu), Error);
  EXPECT_THROW(row_rank(logits, Tensor::zeros({2})), Error);
  EXPECT_THROW(row_rank(logits, {}), Error);
  EXPECT_THROW(row_rank(Tensor::zeros({2, 0}), Tensor::zeros({2}, DType::kI32)), Error);
  if (cuda_available()) {
    EXPECT_EQ(ranks(logits, {3, -1}, Device::kCuda), (Ranks{3, 3}));
    EXPECT_THROW(ranks(randn({1, 3}, 1, DType::kF64), {0}, Device::kCuda), Error);
  }
}

}  // namespace
}  // namespace retort::test
