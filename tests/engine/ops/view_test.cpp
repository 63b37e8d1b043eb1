#include "engine/ops/view.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(View, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2}, device);
    EXPECT_EQ(reshape(x, {2, 3}).shape(), (Shape{2, 3}));
    EXPECT_EQ(slice_rows(x, 1, 2).to_vector<float>(), (std::vector<float>{3, 4}));
    EXPECT_EQ(concatenate({slice_rows(x, 2, 3), slice_rows(x, 0, 1)}).to_vector<float>(),
              (std::vector<float>{5, 6, 1, 2}));
  }
}

TEST(View, gradients) {
  const std::vector<Tensor> in{randn({3, 4}, 1, DType::kF64), randn({2, 4}, 2, DType::kF64)};
  const auto check = [&](auto f) {
    const auto result = gradcheck(f, in);
    EXPECT_TRUE(result.ok) << result.message;
  };
  check([](const std::vector<Tensor>& t) { return reshape(t[0], {2, 6}); });
  check([](const std::vector<Tensor>& t) { return slice_rows(t[0], 1, 3); });
  check([](const std::vector<Tensor>& t) { return concatenate({t[0], t[1], t[0]}); });
  check([](const std::vector<Tensor>& t) { return slice_columns(t[0], 1, 3); });
  check([](const std::vector<Tensor>& t) { return slice_columns(t[0], 4, 4); });
  check([](const std::vector<Tensor>& t) {  // slices that overlap, of a leaf and of a result
    const Tensor s = square(t[0]);
    return add(multiply(slice_columns(t[0], 0, 3), slice_columns(s, 1, 4)),
               multiply(slice_columns(s, 0, 3), slice_columns(t[0], 1, 4)));
  });
  check([](const std::vector<Tensor>& t) {
    return multiply(slice_rows(t[0], 0, 2), slice_rows(t[0], 1, 3));
  });
}

TEST(View, columns_are_views_that_keep_the_pitch) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}, device);
    const Tensor y = slice_columns(x, 1, 3);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2, 3, 6, 7}));
    EXPECT_EQ(y.storage(), x.storage());
    EXPECT_EQ(y.row_pitch(), 4);
    EXPECT_FALSE(y.is_contiguous());
    EXPECT_EQ(slice_columns(y, 1, 2).to_vector<float>(), (std::vector<float>{3, 7}));
    y.fill(0);
    EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{1, 0, 0, 4, 5, 0, 0, 8}));
    const Tensor stacked = x.view({2, 1, 2, 2});
    EXPECT_EQ(slice_columns(stacked, 1, 2).to_vector<float>(), (std::vector<float>{0, 4, 0, 8}));
    EXPECT_EQ(slice_columns(x.slice(0, 1).view({4}), 2, 4).to_vector<float>(),
              (std::vector<float>{0, 4}));
    EXPECT_EQ(slice_columns(Tensor::empty({0, 6}, DType::kF32, device), 4, 6).shape(),
              (Shape{0, 2}));
    EXPECT_EQ(slice_columns(x, 4, 4).shape(), (Shape{2, 0}));
  }
}

// (T, 3H) split into three, each through a linear layer: no copy forward, one gradient backward.
TEST(View, packed_columns_go_through_layers_and_share_one_gradient) {
  constexpr std::int64_t kT = 512, kH = 64;
  for (const Device device : devices()) {
    Tensor x = randn({kT, 16}, 1).to(device), packed_weight = randn({3 * kH, 16}, 2).to(device);
    packed_weight.set_requires_grad(true);
    const Tensor w = randn({4, kH}, 3).to(device);
    const auto loss_of = [&](const std::vector<Tensor>& parts) {
      Tensor total = linear(parts[0], w, {});
      for (std::size_t i = 1; i < 3; ++i)
        total = add(total, scale(linear(parts[i], w, {}), static_cast<double>(i + 1)));
      return sum(square(total));
    };
    const Tensor packed = linear(x, packed_weight, {});
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < 3; ++i) {
      parts.push_back(slice_columns(packed, i * kH, (i + 1) * kH));
      EXPECT_EQ(parts.back().storage(), packed.storage());
    }
    loss_of(parts).backward();
    const Tensor got = packed_weight.grad().clone();
    // The definition: three layers with their rows of the weight.
    packed_weight.zero_grad();
    parts.clear();
    for (std::int64_t i = 0; i < 3; ++i)
      parts.push_back(linear(x, slice_rows(packed_weight, i * kH, (i + 1) * kH), {}));
    loss_of(parts).backward();
    EXPECT_TRUE(all_close(got, packed_weight.grad(), {1e-4, 1e-1})) << name_of(device);
  }
}

TEST(View, errors) {
  EXPECT_THROW(reshape(Tensor::zeros({3}), {2}), Error);
  EXPECT_THROW(slice_rows(Tensor::zeros({3}), 2, 4), Error);
  EXPECT_THROW(slice_columns(Tensor::zeros({3, 2}), 1, 3), Error);
  EXPECT_THROW(slice_columns(Tensor::zeros({3, 2}), 2, 1), Error);
  EXPECT_THROW(slice_columns(Tensor::scalar(1), 0, 0), Error);
  EXPECT_THROW(concatenate({}), Error);
  EXPECT_THROW(concatenate({Tensor::zeros({2, 3}), Tensor::zeros({2, 4})}), Error);
}

}  // namespace
}  // namespace retort::test
