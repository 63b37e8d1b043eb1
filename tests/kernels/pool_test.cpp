#include "kernels/pool/pool.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/ops/pool.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct Case {
  std::int64_t batch, height, width, channels;
  int kernel, stride, padding;
};
const std::vector<Case> kCases{
    {1, 1, 1, 1, 1, 1, 0},  {2, 5, 7, 3, 3, 2, 1},   {1, 8, 8, 16, 2, 2, 0}, {3, 6, 5, 17, 3, 1, 1},
    {2, 9, 4, 64, 2, 3, 1}, {1, 7, 7, 130, 7, 1, 0}, {2, 16, 16, 8, 3, 2, 1}};

// y and dx by definition, in double.
void reference(const Case& k, bool max, const std::vector<double>& x, const std::vector<double>& dy,
               std::vector<double>& y, std::vector<double>& dx) {
  const std::int64_t out_h = (k.height + 2 * k.padding - k.kernel) / k.stride + 1;
  const std::int64_t out_w = (k.width + 2 * k.padding - k.kernel) / k.stride + 1;
  dx.assign(x.size(), 0);
  y.clear();
  for (std::int64_t n = 0; n < k.batch; ++n)
    for (std::int64_t p = 0; p < out_h; ++p)
      for (std::int64_t q = 0; q < out_w; ++q)
        for (std::int64_t c = 0; c < k.channels; ++c) {
          double best = -INFINITY, sum = 0;
          std::size_t winner = 0;
          const double g = dy[y.size()];
          for (std::int64_t i = 0; i < k.kernel; ++i)
            for (std::int64_t j = 0; j < k.kernel; ++j) {
              const std::int64_t h = p * k.stride - k.padding + i, w = q * k.stride - k.padding + j;
              if (h < 0 || w < 0 || h >= k.height || w >= k.width) continue;
              const auto at =
                  static_cast<std::size_t>(((n * k.height + h) * k.width + w) * k.channels + c);
              sum += x[at];
              if (x[at] > best) best = x[at], winner = at;
              if (!max) dx[at] += g / (k.kernel * k.kernel);
            }
          if (max) dx[winner] += g;
          y.push_back(max ? best : sum / (k.kernel * k.kernel));
        }
}

TEST(Pool, equals_the_double_reference) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const Case& k : kCases)
        for (const bool max : {true, false}) {
          SCOPED_TRACE(join(name_of(device), " ", name_of(dtype), " (", k.batch, ", ", k.height,
                            ", ", k.width, ", ", k.channels, ") kernel ", k.kernel, " max ", max));
          const Shape shape{k.batch, k.height, k.width, k.channels};
          const Tensor values = randn(shape, 1, dtype);
          Tensor x = values.to(device).clone();
          x.set_requires_grad(true);
          const Tensor y = max ? max_pool2d(x, k.kernel, k.stride, k.padding)
                               : average_pool2d(x, k.kernel, k.stride, k.padding);
          const Tensor dy = randn(y.shape(), 2, dtype);
          y.backward(dy.to(device));
          std::vector<double> want_y, want_dx;
          reference(k, max, values.to_vector<double>(), dy.to_vector<double>(), want_y, want_dx);
          const Tolerance t = dtype == DType::kBF16 ? Tolerance{1.6e-2, 1e-3} : tolerance_of(dtype);
          EXPECT_TRUE(all_close(y, Tensor::from(want_y, y.shape()), t));
          EXPECT_TRUE(all_close(x.grad(), Tensor::from(want_dx, shape), t));
        }
}

TEST(Pool, global_average_is_the_mean_of_each_image) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 10, 2, 20, 3, 30, 4, 40}, {1, 2, 2, 2}, device);
    x.set_requires_grad(true);
    const Tensor y = global_average_pool(x);
    EXPECT_TRUE(all_close(y, Tensor::from<float>({2.5f, 25}, {1, 2})));
    y.backward(Tensor::from<float>({4, 8}, {1, 2}, device));
    EXPECT_TRUE(all_close(x.grad(), Tensor::from<float>({1, 2, 1, 2, 1, 2, 1, 2}, {1, 2, 2, 2})));
  }
}

TEST(Pool, the_first_of_equal_values_wins) {
  for (const Device device : devices()) {
    Tensor x = Tensor::full({1, 2, 2, 1}, 7, DType::kF32, device);
    x.set_requires_grad(true);
    max_pool2d(x, 2, 2, 0).backward(Tensor::full({1, 1, 1, 1}, 3, DType::kF32, device));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{3, 0, 0, 0}));
  }
}

TEST(Pool, special_values_pass) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, -INFINITY, NAN, -INFINITY, 2, -INFINITY, 3, -INFINITY},
                                         {1, 2, 2, 2}, device);
    const auto y = max_pool2d(x, 2, 2, 0).to_vector<float>();
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], -INFINITY);
  }
}

TEST(Pool, errors_name_what_is_wrong) {
  const Tensor x = Tensor::zeros({1, 4, 4, 2});
  EXPECT_THROW(max_pool2d(x, 5, 1, 0), Error);
  EXPECT_THROW(max_pool2d(x, 2, 1, 2), Error);
  EXPECT_THROW(max_pool2d(x, 2, 0, 0), Error);
  EXPECT_THROW(max_pool2d(x, 0, 1, 0), Error);
  EXPECT_THROW(average_pool2d(x, 2, 1, -1), Error);
  EXPECT_THROW(max_pool2d(Tensor::zeros({1, 20, 20, 1}), 17, 1, 0), Error);
  EXPECT_THROW(global_average_pool(Tensor::zeros({4, 4})), Error);
  EXPECT_EQ(max_pool2d(Tensor::zeros({0, 4, 4, 2}), 2, 2, 0).shape(), (Shape{0, 2, 2, 2}));
}

}  // namespace
}  // namespace retort::test
