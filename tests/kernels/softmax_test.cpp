#include "kernels/softmax/softmax.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

// Rows for a warp and for a block, aligned alike and not, both directions, against the definition.
TEST(SoftmaxKernel, equals_the_definition_at_edge_sizes) {
  constexpr std::int64_t kRows = 5;  // a block holds 4 rows of a warp each
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const std::int64_t classes : {1, 7, 33, 1029})
        for (const std::int64_t extra : {0, 3})
          for (const bool log : {false, true}) {
            const std::int64_t pitch = classes + extra;
            const Shape shape{kRows * pitch + 1};
            const Tensor x = randn(shape, 1, dtype, 2), dy = randn(shape, 2, dtype);
            const Tensor y = Tensor::full(shape, 9, dtype, device), dx = y.clone();
            const Tensor on = x.to(device), dy_on = dy.to(device);
            kernels::softmax(context_of(device),
                             {y.raw(), on.raw(), kRows, classes, pitch, pitch, log, dtype});
            kernels::softmax_backward(
                context_of(device),
                {dx.raw(), dy_on.raw(), y.raw(), kRows, classes, pitch, pitch, pitch, log, dtype});
            const auto logits = x.to_vector<double>(), gradient = dy.to_vector<double>();
            const auto got = y.to_vector<double>(), got_dx = dx.to_vector<double>();
            const Tolerance t =
                dtype == DType::kF32 ? Tolerance{1e-5, 1e-5} : Tolerance{1.6e-2, 1e-3};
            for (std::int64_t r = 0; r < kRows; ++r) {
              const auto at = [&](std::int64_t c) {
                return static_cast<std::size_t>(r * pitch + c);
              };
              double sum = 0, dot = 0;
              for (std::int64_t c = 0; c < classes; ++c) {
                sum += std::exp(logits[at(c)]);
                dot += gradient[at(c)] * (log ? 1 : got[at(c)]);  // of what it was given
              }
              for (std::int64_t c = 0; c < classes; ++c) {
                const double p = std::exp(logits[at(c)]) / sum, y_c = got[at(c)],
                             want_dx = log ? gradient[at(c)] - std::exp(y_c) * dot
                                           : y_c * (gradient[at(c)] - dot);
                ASSERT_TRUE(close(y_c, log ? std::log(p) : p, t.rtol, t.atol))
                    << name_of(device) << " " << name_of(dtype) << " " << classes << " log " << log
                    << " row " << r << " class " << c << ": " << y_c;
                ASSERT_TRUE(close(got_dx[at(c)], want_dx, t.rtol, t.atol))
                    << name_of(device) << " " << name_of(dtype) << " " << classes << " log " << log
                    << " row " << r << " class " << c << ": " << got_dx[at(c)] << " " << want_dx;
              }
              for (std::int64_t c = classes; c < pitch; ++c) ASSERT_EQ(got[at(c)], 9) << "the gap";
            }
            ASSERT_EQ(got_dx.back(), 9) << "behind the last row";
          }
}

TEST(SoftmaxKernel, bad_sizes_throw) {
  const Context& cpu = context_of(Device::kCpu);
  float x[4] = {};
  EXPECT_THROW(kernels::softmax(cpu, {x, x, 2, 0, 4, 4, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax(cpu, {x, x, 2, 2, 1, 2, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax(cpu, {nullptr, x, 2, 2, 2, 2, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax_backward(cpu, {x, x, x, 2, 2, 2, 1, 2, false, DType::kF32}), Error);
  kernels::softmax(cpu, {nullptr, nullptr, 0, 2, 2, 2, false, DType::kF32});
}

}  // namespace
}  // namespace retort::test
