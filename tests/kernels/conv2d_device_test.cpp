// What providers of a convolution get beside the kernels (kernels/conv2d/conv2d_device.h): the
// epilogue and statistics as passes of their own, and the digest of a result.
#include "kernels/conv2d/conv2d_device.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::Conv2dArgs;
using kernels::Conv2dShape;

void expect_success(const Status& status) {
  ASSERT_EQ(status.code, Status().code) << status.message;
}

class Conv2dDevice : public ::testing::Test {
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  }
};

// Filters that fill vectors and filters that do not; 150 rows: a chunk of statistics and a part.
TEST_F(Conv2dDevice, finish_is_the_epilogue_and_the_statistics) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const std::int64_t filters : {16, 13}) {
      const Conv2dShape s{2, 15, 5, 1, filters, 1, 1, 1, 0};
      const std::int64_t rows = 150, chunks = 2;
      const Tensor plain = randn({rows, filters}, 1, dtype),
                   residual = randn({rows, filters}, 2, dtype), bias = randn({filters}, 3);
      const Tensor y = plain.to(Device::kCuda).clone(), added = residual.to(Device::kCuda),
                   columns = bias.to(Device::kCuda),
                   statistics = Tensor::empty({chunks, 2, filters}, DType::kF32, Device::kCuda);
      Conv2dArgs args{y.raw(), nullptr, nullptr, s, dtype, dtype};
      args.epilogue = {columns.raw(), added.raw(), /*relu=*/true};
      expect_success(kernels::conv2d_finish_cuda(context_of(Device::kCuda), args));
      args.epilogue = {};
      args.statistics = statistics.raw();
      expect_success(kernels::conv2d_finish_cuda(context_of(Device::kCuda), args));

      const auto p = plain.to_vector<double>(), r = residual.to_vector<double>(),
                 b = bias.to_vector<double>(), got = y.to_vector<double>();
      const auto width = static_cast<std::size_t>(filters);
      const double rtol = dtype == DType::kF32 ? 1e-6 : 4e-3;
      for (std::size_t i = 0; i < p.size(); ++i)
        ASSERT_TRUE(close(got[i], std::max(0.0, p[i] + b[i % width] + r[i]), rtol, rtol))
            << name_of(dtype) << ", " << filters << " filters, element " << i;
      const auto v = statistics.to_vector<double>();
      for (std::size_t chunk = 0; chunk < 2; ++chunk)
        for (std::size_t k = 0; k < width; ++k) {
          const std::size_t begin = chunk * 128, end = chunk == 0 ? 128 : 150;
          double mean = 0, m2 = 0;
          for (std::size_t i = begin; i < end; ++i)
            mean += got[i * width + k] / static_cast<double>(end - begin);
          for (std::size_t i = begin; i < end; ++i) m2 += std::pow(got[i * width + k] - mean, 2);
          EXPECT_TRUE(close(v[(2 * chunk) * width + k], mean, 1e-5, 1e-6));
          EXPECT_TRUE(close(v[(2 * chunk + 1) * width + k], m2, 1e-5, 1e-5));
        }
    }
}

TEST_F(Conv2dDevice, fingerprint_is_a_signed_sum_and_a_size) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const std::int64_t n : {1, 31, 256, 300, 5000}) {
      const Tensor data = randn({n}, 4, dtype), there = data.to(Device::kCuda);
      const std::int64_t pieces = kernels::conv2d_fingerprint_pieces(n);
      const Tensor to = Tensor::full({2 * pieces + 1}, 7, DType::kF32, Device::kCuda);
      expect_success(kernels::conv2d_fingerprint_cuda(context_of(Device::kCuda),
                                                      {there.raw(), dtype, n, to.data<float>()}));
      const auto x = data.to_vector<double>(), got = to.to_vector<double>();
      EXPECT_EQ(got.back(), 7);
      for (std::size_t piece = 0; piece < static_cast<std::size_t>(pieces); ++piece) {
        double sum = 0, size = 0;
        for (std::size_t i = piece * 256; i < std::min(x.size(), piece * 256 + 256); ++i) {
          sum += static_cast<std::uint32_t>(i) * 0x9E3779B1u >> 31 ? -x[i] : x[i];
          size += std::abs(x[i]);
        }
        EXPECT_TRUE(close(got[2 * piece], sum, 1e-5, 1e-5 * size)) << n << " of " << name_of(dtype);
        EXPECT_TRUE(close(got[2 * piece + 1], size, 1e-5, 0));
      }
    }
}

}  // namespace
}  // namespace retort::test
