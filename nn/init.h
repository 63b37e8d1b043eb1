// How a parameter gets its first values: a pure function of (seed, the parameter's path).
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#include "engine/tensor/tensor.h"

namespace retort::nn {

/// Distribution of a parameter's first values.
struct Init {
  enum class Kind : std::uint8_t { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  double value = 0;  // the constant; b of U(-b, b); the standard deviation of N(0, sd^2)

  static Init constant(double value) { return {Kind::kConstant, value}; }
  static Init uniform(double bound) { return {Kind::kUniform, bound}; }
  static Init normal(double sd) { return {Kind::kNormal, sd}; }
  /// N(0, 2 / fan): He et al. 2015, arXiv:1502.01852. fan is fan_in or fan_out, as the network's
  /// authors chose.
  static Init he_normal(std::int64_t fan) {
    return normal(std::sqrt(2.0 / static_cast<double>(fan)));
  }
  /// U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what PyTorch's nn.Linear does to weight and bias.
  static Init linear_default(std::int64_t fan_in) {
    return uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
  }
};

/// Overwrites `parameter` (f32 or f64, contiguous, any device). Element i depends on (seed, path,
/// i) only: four elements a Philox block, counter {i / 4, 0, 0, hash of "init." + path}.
void initialize(const Tensor& parameter, const Init& init, std::uint64_t seed,
                const std::string& path);

/// The fourth counter word used above.
std::uint32_t init_hash(const std::string& path);

}  // namespace retort::nn
