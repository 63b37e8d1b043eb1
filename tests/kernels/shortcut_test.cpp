#include "kernels/shortcut/shortcut.h"

#include <gtest/gtest.h>

#include "engine/ops/shortcut.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Shortcut, hand_checked_numbers) {
  for (const Device device : devices()) {
    // One image of 3 x 2 pixels with 1 channel: rows {1 2} {3 4} {5 6}.
    Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {1, 3, 2, 1}, device);
    x.set_requires_grad(true);
    const Tensor y = shortcut_a(x, 2, 4);
    EXPECT_EQ(y.shape(), (Shape{1, 2, 1, 4}));
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{0, 1, 0, 0, 0, 5, 0, 0}));
    y.backward(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 1, 4}, device));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{2, 0, 0, 0, 6, 0}));
  }
}

TEST(Shortcut, equals_its_definition_at_edge_shapes) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const int stride : {1, 2, 3})
        for (const std::int64_t channels : {1, 3, 16, 17})
          for (const std::int64_t more : {0, 1, 16}) {
            const std::int64_t n = 2, h = 5, w = 4, k = channels + more, before = more / 2;
            const std::int64_t p = (h + stride - 1) / stride, q = (w + stride - 1) / stride;
            const Tensor values = randn({n, h, w, channels}, 1, dtype);
            Tensor x = values.to(device).clone();
            x.set_requires_grad(true);
            const Tensor y = shortcut_a(x, stride, k), dy = randn({n, p, q, k}, 2, dtype);
            y.backward(dy.to(device));
            const auto from = values.to_vector<double>(), gradient = dy.to_vector<double>();
            std::vector<double> want_y(static_cast<std::size_t>(n * p * q * k));
            std::vector<double> want_dx(from.size());
            for (std::int64_t b = 0; b < n; ++b)
              for (std::int64_t i = 0; i < p; ++i)
                for (std::int64_t j = 0; j < q; ++j)
                  for (std::int64_t c = 0; c < channels; ++c) {
                    const auto a = static_cast<std::size_t>(
                        ((b * h + i * stride) * w + j * stride) * channels + c);
                    const auto o = static_cast<std::size_t>(((b * p + i) * q + j) * k + before + c);
                    want_y[o] = from[a];
                    want_dx[a] = gradient[o];
                  }
            EXPECT_TRUE(all_close(y, Tensor::from(want_y, y.shape()), {0, 0}));
            EXPECT_TRUE(all_close(x.grad(), Tensor::from(want_dx, x.shape()), {0, 0}));
          }
}

// The kernel moves elements of any type.
TEST(Shortcut, bytes) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<std::uint8_t>({1, 2, 3, 4, 5, 6}, {1, 3, 2, 1}, device),
                 dy = Tensor::from<std::uint8_t>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 1, 4}, device),
                 y = Tensor::full({8}, 9, DType::kU8, device),
                 dx = Tensor::full({6}, 9, DType::kU8, device);
    kernels::shortcut(context_of(device), {x.raw(), y.raw(), 1, 3, 2, 1, 4, 2, DType::kU8});
    kernels::shortcut_backward(context_of(device),
                               {dy.raw(), dx.raw(), 1, 3, 2, 1, 4, 2, DType::kU8});
    EXPECT_EQ(y.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{0, 1, 0, 0, 0, 5, 0, 0}));
    EXPECT_EQ(dx.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{2, 0, 0, 0, 6, 0}));
  }
}

TEST(Shortcut, errors_name_what_is_wrong) {
  const Tensor x = Tensor::zeros({1, 4, 4, 2});
  EXPECT_THROW(shortcut_a(x, 2, 1), Error);
  EXPECT_THROW(shortcut_a(x, 0, 4), Error);
  EXPECT_THROW(shortcut_a(Tensor::zeros({4, 4}), 1, 4), Error);
  EXPECT_EQ(shortcut_a(Tensor::zeros({0, 4, 4, 2}), 2, 4).shape(), (Shape{0, 2, 2, 4}));
}

}  // namespace
}  // namespace retort::test
