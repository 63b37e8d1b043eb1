// The hand-written CUDA kernels of a convolution, each by name, against the CPU (which
// conv2d_test.cpp holds against a double loop).
#include <gtest/gtest.h>

#include <cmath>

#include "engine/runtime/device.h"
#include "kernels/conv2d/conv2d.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/wgmma.h"

namespace retort::test {
namespace {

using kernels::Conv2dAlgorithm;
using kernels::Conv2dShape;

struct Results {
  Tensor y, fused, statistics, dx, dweight;
};

// All passes on tensors that depend on the shape alone; skips those that wgmma cannot do.
Results run(const Conv2dShape& s, DType dtype, DType weight_dtype, Device device,
            Conv2dAlgorithm algorithm,
            std::int64_t multiprocessors = kernels::kConv2dMultiprocessors) {
  const Context& context = context_of(device);
  const Tensor x = randn({s.batch, s.height, s.width, s.channels}, 1, dtype).to(device),
               weight =
                   randn({s.filters, s.filter_height, s.filter_width, s.channels}, 2, weight_dtype)
                       .to(device),
               dy = randn({s.batch, s.out_height(), s.out_width(), s.filters}, 3, dtype).to(device),
               bias = randn({s.filters}, 4).to(device),
               added = randn(dy.shape(), 5, dtype).to(device);
  const std::int64_t chunks = kernels::conv2d_statistics_chunks(s, device).count;
  Results r{Tensor::empty(dy.shape(), dtype, device), Tensor::empty(dy.shape(), dtype, device),
            Tensor::empty({chunks, 2, s.filters}, DType::kF32, device),
            Tensor::empty(x.shape(), dtype, device),
            Tensor::empty(weight.shape(), weight_dtype, device)};
  const bool wgmma = algorithm == Conv2dAlgorithm::kWgmma;
  const auto dgrad = wgmma && s.filters % 64 != 0 ? Conv2dAlgorithm::kAuto : algorithm;
  kernels::conv2d(context, {r.y.raw(),
                            x.raw(),
                            weight.raw(),
                            s,
                            dtype,
                            weight_dtype,
                            {},
                            r.statistics.raw(),
                            algorithm,
                            multiprocessors});
  kernels::conv2d(context, {r.fused.raw(),
                            x.raw(),
                            weight.raw(),
                            s,
                            dtype,
                            weight_dtype,
                            {bias.raw(), added.raw(), true},
                            nullptr,
                            algorithm,
                            multiprocessors});
  kernels::conv2d_backward_data(context, {r.dx.raw(), dy.raw(), weight.raw(), s, dtype,
                                          weight_dtype, dgrad, multiprocessors});
  kernels::conv2d_backward_weight(
      context, {r.dweight.raw(), x.raw(), dy.raw(), s, dtype, weight_dtype, dgrad});
  return r;
}

// The mean and the sum of squares of all rows, from chunks of `rows` rows: (2, K).
Tensor merged(const Tensor& statistics, const Conv2dShape& s, Device device) {
  const std::vector<double> v = statistics.to_vector<double>();
  const std::int64_t rows = kernels::conv2d_statistics_chunks(s, device).rows,
                     all = s.batch * s.out_height() * s.out_width();
  const auto width = static_cast<std::size_t>(s.filters), chunks = v.size() / 2 / width;
  std::vector<double> result(2 * width);
  const auto rows_of = [&](std::size_t i) {
    return static_cast<double>(std::min(rows, all - static_cast<std::int64_t>(i) * rows));
  };
  for (std::size_t k = 0; k < width; ++k) {
    for (std::size_t i = 0; i < chunks; ++i)
      result[k] += v[i * 2 * width + k] * rows_of(i) / static_cast<double>(all);
    for (std::size_t i = 0; i < chunks; ++i)
      result[width + k] +=
          v[(i * 2 + 1) * width + k] + rows_of(i) * std::pow(v[i * 2 * width + k] - result[k], 2);
  }
  return Tensor::from(result, {2, s.filters});
}

void check(const Conv2dShape& s, DType weight_dtype, Conv2dAlgorithm algorithm,
           std::int64_t multiprocessors = kernels::kConv2dMultiprocessors) {
  SCOPED_TRACE(join(s.batch, "x", s.height, "x", s.width, " C", s.channels, " K", s.filters, " ",
                    s.filter_height, "x", s.filter_width, " stride ", s.stride, " padding ",
                    s.padding, algorithm == Conv2dAlgorithm::kWgmma ? " wgmma" : " mma"));
  const DType bf16 = DType::kBF16;
  const Results want = run(s, bf16, weight_dtype, Device::kCpu, Conv2dAlgorithm::kAuto);
  const Results got = run(s, bf16, weight_dtype, Device::kCuda, algorithm, multiprocessors);
#if defined(RETORT_SANITIZED)
  const Results& again = got;  // minutes; a race is the sanitizer's to report
#else
  const Results again = run(s, bf16, weight_dtype, Device::kCuda, algorithm, multiprocessors);
#endif
  // Products of standard normal values: a sum of n of them is about sqrt(n), and rounded to bf16.
  const auto near = [](const Tensor& a, const Tensor& b, double n) {
    return all_close(a, b, {8e-3, 2e-3 * std::sqrt(n)});
  };
  const auto taps = static_cast<double>(s.filter_height * s.filter_width);
  const double forward = taps * static_cast<double>(s.channels),
               backward = taps * static_cast<double>(s.filters),
               pixels = static_cast<double>(s.batch * s.out_height() * s.out_width());
  EXPECT_TRUE(near(got.y, want.y, forward));
  EXPECT_TRUE(near(got.fused, want.fused, forward));
  EXPECT_TRUE(near(got.dx, want.dx, backward));
  EXPECT_TRUE(near(got.dweight, want.dweight, pixels));
  EXPECT_TRUE(all_close(merged(got.statistics, s, Device::kCuda),
                        merged(want.statistics, s, Device::kCpu),
                        {5e-3, 5e-3 * std::sqrt(forward)}));
  EXPECT_TRUE(same_bytes(got.y, again.y) && same_bytes(got.fused, again.fused) &&
              same_bytes(got.dx, again.dx) && same_bytes(got.dweight, again.dweight) &&
              same_bytes(got.statistics, again.statistics));
}

// clang-format off
const Conv2dShape kShapes[] = {
    //  N   H   W    C    K  R  S  stride padding
    {   1,  1,  1,  64,  64, 1, 1, 1, 0},   // one pixel
    {   1,  7,  5,  64,  64, 3, 3, 1, 1},   // part of a tile of rows, odd image
    {   3,  9,  7,  64,  72, 3, 3, 2, 1},   // filters beyond a tile; dgrad by mma
    {   2,  6,  6, 128,  64, 1, 1, 2, 0},   // a projection: three phases of dx are zero
    {   1, 11, 11,  64,  64, 7, 7, 2, 3},   // 49 taps, four phases of unequal size
    {   1,  5,  6,  64, 128, 5, 3, 1, 2},   // neither square nor symmetric
    {   1,  4,  4, 192, 192, 3, 3, 1, 1},   // no multiple of 128
    {   1,  3,  3,  64,  64, 3, 3, 1, 4},   // padding beyond the filter
    {   1,  4,  9,  64,  64, 2, 2, 3, 0},   // gaps between the filters
};
// clang-format on

TEST(Conv2dAlgorithm, wgmma_equals_the_cpu_at_edge_shapes) {
  if (const std::string why = wgmma_unavailable_reason(); !why.empty()) GTEST_SKIP() << why;
  for (const Conv2dShape& s : kShapes) check(s, DType::kBF16, Conv2dAlgorithm::kWgmma);
  check(kShapes[1], DType::kF32, Conv2dAlgorithm::kWgmma);  // weights rounded on the way
}

TEST(Conv2dAlgorithm, mma_equals_the_cpu_at_edge_shapes) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const Conv2dShape& s : kShapes) check(s, DType::kBF16, Conv2dAlgorithm::kMma);
}

// The tiles that a GPU would be given enough of.
const Conv2dShape kWideShapes[] = {
    {1, 9, 15, 64, 256, 1, 1, 1, 0},   // y in tiles of 256 columns, or 128 by mma
    {1, 9, 15, 256, 128, 1, 1, 1, 0},  // y in 128, dx in 256
    {1, 9, 15, 128, 64, 1, 1, 1, 0},   // dx in 128
};
void check_wide_tiles(Conv2dAlgorithm algorithm) {
  for (const Conv2dShape& s : kWideShapes) {
    check(s, DType::kBF16, algorithm, 1);
    const auto with = [&](std::int64_t multiprocessors) {
      return run(s, DType::kBF16, DType::kBF16, Device::kCuda, algorithm, multiprocessors);
    };
    const Results wide = with(1), narrow = with(kernels::kConv2dMultiprocessors);
    EXPECT_TRUE(same_bytes(wide.y, narrow.y) && same_bytes(wide.fused, narrow.fused) &&
                same_bytes(wide.dx, narrow.dx))
        << "K = " << s.filters;
  }
}
TEST(Conv2dAlgorithm, wide_tiles_of_wgmma) {
  if (const std::string why = wgmma_unavailable_reason(); !why.empty()) GTEST_SKIP() << why;
  check_wide_tiles(Conv2dAlgorithm::kWgmma);
}
TEST(Conv2dAlgorithm, wide_tiles_of_mma) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  check_wide_tiles(Conv2dAlgorithm::kMma);
}

TEST(Conv2dAlgorithm, wgmma_refuses_what_it_cannot_do) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  const auto refused = [](const Conv2dShape& s, DType dtype) {
    EXPECT_THROW(run(s, dtype, dtype, Device::kCuda, Conv2dAlgorithm::kWgmma), Error);
    EXPECT_NO_THROW(run(s, dtype, dtype, Device::kCuda, Conv2dAlgorithm::kAuto));
  };
  refused({1, 4, 4, 8, 64, 1, 1, 1, 0}, DType::kBF16);
  refused({1, 4, 4, 64, 64, 1, 1, 1, 0}, DType::kF32);
  // An address that is no multiple of 16 bytes.
  const Conv2dShape s{1, 4, 4, 64, 64, 1, 1, 1, 0};
  const Tensor all = Tensor::zeros({1025}, DType::kBF16, Device::kCuda),
               weight = Tensor::zeros({64, 1, 1, 64}, DType::kBF16, Device::kCuda),
               y = Tensor::zeros({1, 4, 4, 64}, DType::kBF16, Device::kCuda);
  const Tensor x = Tensor::wrap(all.storage(), 1, {1, 4, 4, 64}, DType::kBF16, 64);
  const auto with = [&](Conv2dAlgorithm algorithm) {
    kernels::conv2d(
        context_of(Device::kCuda),
        {y.raw(), x.raw(), weight.raw(), s, DType::kBF16, DType::kBF16, {}, nullptr, algorithm});
  };
  EXPECT_THROW(with(Conv2dAlgorithm::kWgmma), Error);
  EXPECT_NO_THROW(with(Conv2dAlgorithm::kAuto));
}

TEST(Conv2dAlgorithm, empty_batch) {
  if (const std::string why = wgmma_unavailable_reason(); !why.empty()) GTEST_SKIP() << why;
  const Tensor dweight = Tensor::full({64, 1, 1, 64}, 5, DType::kF32, Device::kCuda);
  kernels::conv2d_backward_weight(context_of(Device::kCuda), {dweight.raw(),
                                                              nullptr,
                                                              nullptr,
                                                              {0, 4, 4, 64, 64, 1, 1, 1, 0},
                                                              DType::kBF16,
                                                              DType::kF32,
                                                              Conv2dAlgorithm::kWgmma});
  for (const float v : dweight.to_vector<float>()) EXPECT_EQ(v, 0);
}

}  // namespace
}  // namespace retort::test
