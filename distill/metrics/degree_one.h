// The degree-1 probe: does a hidden layer show which inputs matter, one by one?
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "distill/teacher/teacher.h"

namespace retort::distill {

struct DegreeOneOptions {
  std::int64_t samples = 32768;
  std::int64_t projections = 256;
  std::uint64_t seed = 0;  // draws the projections
  std::int64_t chunk = 2048;
  int layer = -1;  // hidden layer from the input side; -1: the last
};

struct DegreeOneResult {
  double in_support = 0, off_support = 0;  // RMS of c over bits of the kind and projections
  double ratio = 0;                        // in / off
  double output_in = 0, output_off = 0;    // the same for the output tanh(f), f = z_0 - z_1 over 2
  double floor = 0;                        // 1 / sqrt(samples): what no signal at all gives
};

/// For Gaussian projections r ~ N(0, I) of the hidden activations h (after the nonlinearity):
///
///   c(i, r) = |E[x_i (r.h - E[r.h])]| / std(r.h),   x in {-1, 1}^n uniform
///
/// A single projection can mislead, so the root mean square over all of them is reported, apart for
/// the bits in `support` and the others.
///
/// Shapes    inputs(first, count) gives samples first .. first + count - 1 as (count, n) f32 of -1
///           and 1, on the teacher's device. Two classes for the output figures.
/// Cost      one forward pass over all samples; O(samples * width * projections).
DegreeOneResult degree_one_probe(
    const Teacher& teacher,
    const std::function<Tensor(std::int64_t first, std::int64_t count)>& inputs,
    std::span<const std::int64_t> support, const DegreeOneOptions& options = {});

}  // namespace retort::distill
