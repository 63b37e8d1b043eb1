// The only place where numbers are compared, and the only place with tolerances.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort::test {

struct Tolerance {
  double rtol, atol;
};

/// PyTorch's defaults by dtype (torch/testing/_comparison.py).
inline Tolerance tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::kF64: return {1e-7, 1e-7};
    case DType::kF32: return {1.3e-6, 1e-5};
    case DType::kF16: return {1e-3, 1e-5};
    case DType::kBF16: return {1.6e-2, 1e-5};
    default: return {0, 0};
  }
}

/// True if got is within rtol, atol of want. Any NaN fails. Infinities pass only if equal: without
/// the isfinite tests, want = inf would accept every got, since inf <= inf.
inline bool close(double got, double want, double rtol, double atol) {
  if (got == want) return true;
  return std::isfinite(got) && std::isfinite(want) &&
         std::abs(got - want) <= atol + rtol * std::abs(want);
}

/// Compares all elements; the message names the count of mismatches and the worst index.
inline ::testing::AssertionResult all_close(const Tensor& got, const Tensor& want,
                                            Tolerance tolerance) {
  if (!(got.shape() == want.shape()))
    return ::testing::AssertionFailure()
           << "expected shape " << want.shape().str() << ", got " << got.shape().str();
  const std::vector<double> g = got.to_vector<double>(), w = want.to_vector<double>();
  std::size_t bad = 0, worst = 0;
  double worst_error = -1;
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (close(g[i], w[i], tolerance.rtol, tolerance.atol)) continue;
    ++bad;
    const double error = std::isfinite(g[i] - w[i]) ? std::abs(g[i] - w[i]) : HUGE_VAL;
    if (error > worst_error) worst_error = error, worst = i;
  }
  if (bad == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << bad << " of " << g.size() << " elements of " << got.shape().str()
         << " differ; worst at flat index " << worst << ": got " << g[worst] << ", want "
         << w[worst] << " (rtol " << tolerance.rtol << ", atol " << tolerance.atol << ")";
}
inline ::testing::AssertionResult all_close(const Tensor& got, const Tensor& want) {
  return all_close(got, want, tolerance_of(got.dtype()));
}

/// Bit for bit.
inline ::testing::AssertionResult same_bytes(const Tensor& got, const Tensor& want) {
  if (!(got.shape() == want.shape()) || got.dtype() != want.dtype())
    return ::testing::AssertionFailure() << "shape or dtype differ";
  const Tensor a = got.to(Device::kCpu).contiguous(), b = want.to(Device::kCpu).contiguous();
  if (a.numel() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0)
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "the bytes differ";
}

}  // namespace retort::test
