// What dropout is told, and how its masks are keyed: for its own kernels and for those that fuse it.
#pragma once
#include <cstdint>

#include "kernels/common/dropout_math.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y = x / (1 - p) where the element is kept, else 0. The backward is the same op on dy.
///
///   kept where word >= p 2^32, word = philox(key = seed, counter = {block, sample[n], step,
///   path}), block = position[n] * ceil(columns / 4) + c / 4, its word c mod 4
///
/// Shapes    x, y (N, columns), contiguous, of `dtype` (f64, f32, bf16); y may be x. sample (N),
///           i32 or i64, of which the low 32 bits count; null: n. position (N): which row of its
///           sample a row is; null: 0. step: one i64 in device memory, so that a captured graph
///           reads the one of its time; the low 32 bits count.
///           Null: 0.
/// Numerics  the same bits on CPU and CUDA, for any thread count and any split or order of the
///           rows. A dropped element is 0 whatever it was.
/// Cost      reads and writes N columns elements; ten rounds of Philox for four of them. No mask is
///           kept.
/// Errors    Error if p is outside [0, 1), a size negative, or a pointer null.
struct DropoutArgs {
  void* y;
  const void* x;
  std::int64_t rows, columns;
  double p;
  std::uint64_t seed;
  std::uint32_t path;
  const std::int64_t* step = nullptr;
  const void* sample = nullptr;
  const std::int32_t* position = nullptr;
  DType sample_dtype = DType::kI32;
  DType dtype = DType::kF32;
};

/// The counter word of row n's sample.
RETORT_HD std::uint32_t dropout_sample(const DropoutArgs& a, std::int64_t n) {
  if (a.sample == nullptr) return static_cast<std::uint32_t>(n);
  return a.sample_dtype == DType::kI64
             ? static_cast<std::uint32_t>(static_cast<const std::int64_t*>(a.sample)[n])
             : static_cast<std::uint32_t>(static_cast<const std::int32_t*>(a.sample)[n]);
}
/// The number of row n's first block.
RETORT_HD std::uint32_t dropout_first_block(const DropoutArgs& a, std::int64_t n) {
  return a.position == nullptr ? 0u
                               : static_cast<std::uint32_t>(a.position[n]) *
                                     static_cast<std::uint32_t>(dropout_blocks(a.columns));
}
RETORT_HD DropoutKey dropout_key(const DropoutArgs& a) {
  return {a.seed, a.step == nullptr ? 0u : static_cast<std::uint32_t>(*a.step), a.path,
          dropout_threshold(a.p)};
}

}  // namespace retort::kernels
