// What the definitions of ops in plain double code (<op>_composed.h) share. Tests, the bench and
// the mutation probes hold the ops against these; no op calls them.
#pragma once
#include <cmath>
#include <cstdint>

namespace retort::kernels {

/// A sum of products, and the sum of their magnitudes: rounding errors of a sum are relative to the
/// latter, not to the result.
struct ProductSum {
  double value = 0, size = 0;
  void add(double product) { value += product, size += std::abs(product); }
};

/// Mean and centred sum of squares.
struct Moments64 {
  double mean = 0, squares = 0;
};
/// Of at(begin) ... at(end - 1), in two passes; at least one.
template <class At>
Moments64 moments_composed(std::int64_t begin, std::int64_t end, At&& at) {
  Moments64 m;
  for (std::int64_t r = begin; r < end; ++r) m.mean += at(r);
  m.mean /= static_cast<double>(end - begin);
  for (std::int64_t r = begin; r < end; ++r) m.squares += (at(r) - m.mean) * (at(r) - m.mean);
  return m;
}

}  // namespace retort::kernels
