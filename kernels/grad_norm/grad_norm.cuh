// CUDA kernels of the gradient norm and their launch configuration.
#pragma once
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/grad_norm/grad_norm_math.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kNormThreads = 256, kNormSegments = 64;
inline constexpr std::int64_t kNormChunk = 16384;  // elements of a block

// By value in the launch: segments of 64 tensors a launch, no table to copy to the device.
struct NormSegments {
  const void* values[kNormSegments];
  std::int64_t n[kNormSegments];
  unsigned first_block[kNormSegments + 1];
};

// Block b squares and adds one chunk of one segment into partial[b]; the segment is looked for by
// bisection. Alignment is decided per segment.
// Shared: 8 doubles. Launch: grid of all chunks, block 256.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    grad_norm_block_per_chunk_kernel(double* partial, NormSegments s, int segments) {
  using A = accumulator_t<T>;
  constexpr int kPack = 16 / sizeof(T);
  SIMT_SHARED(double, slots, [kNormThreads / 32]);
  int low = 0, high = segments;  // first_block[low] <= b < first_block[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (s.first_block[middle] <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  const std::int64_t begin = std::int64_t{blockIdx.x - s.first_block[low]} * kNormChunk,
                     left = s.n[low] - begin, n = left < kNormChunk ? left : kNormChunk;
  const T* const x = static_cast<const T*>(s.values[low]) + begin;
  A lane[kPack] = {};
  std::int64_t done = 0;
  if (reinterpret_cast<std::uintptr_t>(x) % 16 == 0) {
    for (std::int64_t i = threadIdx.x; i < n / kPack; i += kNormThreads) {
      const auto in = load_pack<kPack>(x + i * kPack);
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        const A v = to_float(in.v[k]);
        lane[k] += v * v;
      }
    }
    done = n / kPack * kPack;
  }
  for (std::int64_t i = done + threadIdx.x; i < n; i += kNormThreads) {
    const A v = to_float(x[i]);
    lane[0] += v * v;
  }
  double mine = 0;
#pragma unroll
  for (int k = 0; k < kPack; ++k) mine += static_cast<double>(lane[k]);
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Adds the partials in a fixed order and writes the three results.
// Shared: 8 doubles. Launch: one block of 256.
static __global__ void __launch_bounds__(kNormThreads)
    grad_norm_finish_one_block_kernel(const double* partial, std::int64_t partials, double max_norm,
                                      float* norm, float* clip, std::int32_t* not_finite) {
  SIMT_SHARED(double, slots, [kNormThreads / 32]);
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < partials; i += kNormThreads) mine += partial[i];
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) grad_norm_finish(sum, max_norm, norm, clip, not_finite);
}

}  // namespace SIMT_NS

inline void grad_norm_launch(const Context& context, const GradNormArgs& args) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const auto chunks = [](std::int64_t n) { return (n + kNormChunk - 1) / kNormChunk; };
  std::int64_t total = 0;
  for (const GradientSegment& s : args.segments) total += chunks(s.n);
  double* const partial = static_cast<double*>(
      context.scratch->get(static_cast<std::size_t>(total + 1) * sizeof(double)));
  dispatch_float(args.dtype, "grad_norm", [&]<class T>() {
    std::int64_t done = 0;
    NormSegments batch{};
    int count = 0;
    const auto flush = [&] {
      if (count == 0) return;
      simt::launch({"grad_norm", batch.first_block[count], kNormThreads, 0, stream},
                   grad_norm_block_per_chunk_kernel<T>, partial + done, batch, count);
      done += batch.first_block[count];
      count = 0;
    };
    for (const GradientSegment& s : args.segments) {
      if (s.n == 0) continue;
      batch.values[count] = s.values;
      batch.n[count] = s.n;
      if (count == 0) batch.first_block[0] = 0;
      batch.first_block[count + 1] = batch.first_block[count] + static_cast<unsigned>(chunks(s.n));
      if (++count == kNormSegments) flush();
    }
    flush();
  });
  simt::launch({"grad_norm", 1, kNormThreads, 0, stream}, grad_norm_finish_one_block_kernel,
               partial, total, args.max_norm, args.norm, args.clip, args.not_finite);
}

}  // namespace retort::kernels
