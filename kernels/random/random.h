// Random fills by counter: element i depends on the key and i alone, on every device.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

enum class Random : std::uint8_t {
  kUniform,    // a + (b - a) * u, u in [0, 1)
  kNormal,     // a + b * z (Box-Muller)
  kBernoulli,  // 1 with probability a, else 0
  kSigns,      // -1 or +1
};

/// Fills y[0 .. n) with random numbers of Philox4x32-10, key = seed, counter =
/// {block of elements, sample, epoch, path}. A block is 4 elements (kSigns: 128, a bit each).
///
/// Shapes    y holds n elements, adjacent, of `dtype` (f64, f32 or bf16).
/// Numerics  computed in float and rounded to dtype, so that all dtypes hold the same numbers.
///           Every kind has the same bits on CPU and CUDA (normal by functions of our own).
/// Errors    Error if n is negative or has more than 2^32 blocks.
struct RandomArgs {
  Random kind;
  void* y;
  std::int64_t n;
  double a = 0, b = 1;
  std::uint64_t seed = 0;
  std::uint32_t sample = 0, epoch = 0, path = 0;
  const std::int64_t* epoch_pointer = nullptr;  // if given, read instead of epoch, on the device
  DType dtype = DType::kF32;
};
void random_cpu(const Context& context, const RandomArgs& args);
extern CudaOp<RandomArgs> random_cuda;

inline void random(const Context& context, const RandomArgs& args) {
  RETORT_CHECK(args.n >= 0 && args.n <= std::int64_t{1} << 34,
               "[random] expected 0 <= n <= 2^34, got ", args.n);
  if (args.n == 0) return;
  RETORT_CHECK(args.y, "[random] expected a non-null y");
  dispatch("random", context, args, random_cpu, random_cuda);
}

}  // namespace retort::kernels
