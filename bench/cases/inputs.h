// Inputs of cases and how results are judged.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/ops/random.h"
#include "engine/tensor/tensor.h"
#include "kernels/common/philox.h"

namespace retort::bench {

/// N(shift, scale^2), element i a function of (seed, i).
inline Tensor normal(const Shape& shape, std::uint64_t seed, DType dtype, Device device,
                     double scale = 1, double shift = 0) {
  const Tensor t = Tensor::empty(shape, dtype, device);
  fill_normal(t, {seed, 0, 0, path_hash("bench")}, shift, scale);
  return t;
}

/// Uniform integers in [0, below).
inline Tensor integers(std::int64_t n, std::uint64_t seed, std::int64_t below, Device device) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::int32_t>(
        uniform_below(philox(seed, static_cast<std::uint32_t>(i), 1, 0, path_hash("bench")).v[0],
                      static_cast<std::uint32_t>(below)));
  return Tensor::from(values, {n}, device);
}

/// At most `most` of 0 .. n-1: both ends and random places between, ascending.
inline std::vector<std::int64_t> sampled(std::int64_t n, std::int64_t most,
                                         std::uint32_t seed = 0) {
  std::vector<std::int64_t> at;
  if (n <= most) {
    for (std::int64_t i = 0; i < n; ++i) at.push_back(i);
    return at;
  }
  at = {0, n - 1};
  for (std::uint32_t k = 0; static_cast<std::int64_t>(at.size()) < most; ++k) {
    const Philox4 r = philox(seed, k, 0, 0, path_hash("sampled"));
    at.push_back(static_cast<std::int64_t>(uniform01(r.v[0]) * static_cast<float>(n - 1)));
  }
  std::sort(at.begin(), at.end());
  at.erase(std::unique(at.begin(), at.end()), at.end());
  return at;
}

/// The larger error, or NaN if either is: std::max drops the NaN of its second argument.
inline double worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

/// |got - want|, 0 also where both are the same infinity or both NaN.
inline double difference(double got, double want) {
  return got == want || (std::isnan(got) && std::isnan(want)) ? 0 : std::abs(got - want);
}

/// Of single figures: the difference as a share of what is wanted, of 1e-3 where that is less.
inline double relative_error(double got, double want) {
  return difference(got, want) / std::max(1e-3, std::abs(want));
}

/// Largest difference as a share of the largest finite magnitude that is wanted. NaN anywhere gives
/// NaN, unless both have it; all wanted 0: the largest magnitude that was got.
class Error64 {
 public:
  void add(double got, double want) {
    worst_ = worse(worst_, difference(got, want));
    if (std::isfinite(want)) largest_ = std::max(largest_, std::abs(want));
  }
  double value() const { return largest_ > 0 ? worst_ / largest_ : worst_; }

 private:
  double worst_ = 0, largest_ = 0;
};

/// A floating tensor's elements as doubles, converted when they are read: oracles look at few.
class Host {
 public:
  Host() = default;
  explicit Host(const Tensor& t) : tensor_(t.detach().contiguous().to(Device::kCpu)) {}
  std::size_t size() const { return static_cast<std::size_t>(tensor_.numel()); }
  double operator[](std::size_t i) const {
    switch (tensor_.dtype()) {
      case DType::kF32: return static_cast<double>(static_cast<const float*>(tensor_.raw())[i]);
      case DType::kBF16:
        return static_cast<double>(to_float(static_cast<const bf16*>(tensor_.raw())[i]));
      default: return tensor_.data<double>()[i];  // says so if it is another type
    }
  }

 private:
  Tensor tensor_;
};

inline double norm_of_difference(const Host& a, const Host& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

inline double norm_of(const Tensor& t) {
  const Host values(t);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * values[i];
  return std::sqrt(sum);
}

}  // namespace retort::bench
