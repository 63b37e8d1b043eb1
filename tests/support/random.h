// Reproducible random tensors, and the devices a test runs on.
#pragma once
#include <cmath>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/tensor/tensor.h"
#include "kernels/common/philox.h"

namespace retort::test {

/// Standard normal values times `scale` plus `shift`, rounded to dtype. Element i depends on (seed,
/// i) only.
inline Tensor randn(const Shape& shape, std::uint64_t seed, DType dtype = DType::kF32,
                    double scale = 1, double shift = 0) {
  const auto n = static_cast<std::size_t>(shape.numel());
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Philox4 r = philox(seed, static_cast<std::uint32_t>(i), 0, 0, path_hash("test"));
    const double u = (r.v[0] + 1.0) / 4294967297.0, v = r.v[1] / 4294967296.0;
    values[i] = shift + scale * std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  return Tensor::from(values, shape).to(dtype);
}

/// Uniform integers in [0, below), as i32.
inline Tensor randint(const Shape& shape, std::uint64_t seed, std::uint32_t below) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::int32_t>(uniform_below(
        philox(seed, static_cast<std::uint32_t>(i), 1, 0, path_hash("test")).v[0], below));
  return Tensor::from(values, shape);
}

/// kCpu, and kCuda where a plug-in is there (the emulated one in ordinary test runs).
inline std::vector<Device> devices() {
  std::vector<Device> list{Device::kCpu};
  if (cuda_available()) list.push_back(Device::kCuda);
  return list;
}

}  // namespace retort::test
