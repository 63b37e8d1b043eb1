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

// What the finishing block writes. ticket null: another launch finishes.
struct NormResults {
  float* norm;
  float* clip;
  std::int32_t* not_finite;
  std::uint32_t* ticket;
  double max_norm;
};

// The partials in a fixed order, then the three results. `slots` as for block_sum.
SIMT_D void grad_norm_finish_block(const volatile double* partial, std::int64_t partials,
                                   const NormResults& out, double* slots) {
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < partials; i += kNormThreads) mine += partial[i];
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) grad_norm_finish(sum, out.max_norm, out.norm, out.clip, out.not_finite);
}

// Block b squares and adds one chunk of one segment into partial[b]; the segment is looked for by
// bisection. Alignment is decided per segment. With a ticket the last block to be done finishes.
// Shared: 8 doubles and a flag. Launch: grid of all chunks, block 256.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    grad_norm_block_per_chunk_kernel(double* partial, NormSegments s, int segments,
                                     NormResults out) {
  constexpr int kPack = 16 / sizeof(T);
  SIMT_SHARED(double, slots, [kNormThreads / 32]);
  SIMT_SHARED(int, is_last, [1]);
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
  double lane[kPack] = {};  // squares of f32 leave the range of f32
  std::int64_t done = 0;
  if (reinterpret_cast<std::uintptr_t>(x) % 16 == 0) {
    for (std::int64_t i = threadIdx.x; i < n / kPack; i += kNormThreads) {
      const auto in = load_pack<kPack>(x + i * kPack);
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        const auto v = static_cast<double>(to_float(in.v[k]));
        lane[k] = fma(v, v, lane[k]);
      }
    }
    done = n / kPack * kPack;
  }
  for (std::int64_t i = done + threadIdx.x; i < n; i += kNormThreads) {
    const auto v = static_cast<double>(to_float(x[i]));
    lane[0] = fma(v, v, lane[0]);
  }
  double mine = 0;
#pragma unroll
  for (int k = 0; k < kPack; ++k) mine += lane[k];
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  if (out.ticket == nullptr) return;
  if (threadIdx.x == 0) {
    __threadfence();  // the partial is seen by whoever sees the ticket
    is_last[0] = atomicAdd(out.ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (is_last[0] == 0) return;
  grad_norm_finish_block(partial, gridDim.x, out, slots);
  if (threadIdx.x == 0) *out.ticket = 0;
}

// Shared: 8 doubles. Launch: one block of 256.
static __global__ void __launch_bounds__(kNormThreads)
    grad_norm_finish_one_block_kernel(const double* partial, std::int64_t partials,
                                      NormResults out) {
  SIMT_SHARED(double, slots, [kNormThreads / 32]);
  grad_norm_finish_block(partial, partials, out, slots);
}

}  // namespace SIMT_NS

inline void grad_norm_launch(const Context& context, const GradNormArgs& args) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const auto chunks = [](std::int64_t n) { return (n + kNormChunk - 1) / kNormChunk; };
  std::int64_t total = 0;
  int filled = 0;
  for (const GradientSegment& s : args.segments) {
    total += chunks(s.n);
    filled += s.n > 0;
  }
  const NormResults out{args.norm, args.clip, args.not_finite,
                        filled > 0 && filled <= kNormSegments ? args.ticket : nullptr,
                        args.max_norm};
  double* const partial = static_cast<double*>(
      context.scratch->get(static_cast<std::size_t>(total + 1) * sizeof(double)));
  dispatch_float(args.dtype, "grad_norm", [&]<class T>() {
    std::int64_t done = 0;
    NormSegments batch{};
    int count = 0;
    const auto flush = [&] {
      if (count == 0) return;
      simt::launch({"grad_norm", batch.first_block[count], kNormThreads, 0, stream},
                   grad_norm_block_per_chunk_kernel<T>, partial + done, batch, count, out);
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
  if (out.ticket == nullptr)
    simt::launch({"grad_norm", 1, kNormThreads, 0, stream}, grad_norm_finish_one_block_kernel,
                 partial, total, out);
}

}  // namespace retort::kernels
