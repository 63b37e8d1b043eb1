// CUDA kernels of the mean squared error and their launch configuration.
#pragma once
#include "kernels/mse/mse.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kMseThreads = 256;

// Block b adds the squared differences of every gridDim-th pack into partial[b].
// Shared: 8 doubles. Launch: grid of any size, block 256.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMseThreads)
    mse_block_per_slice_kernel(double* partial, const T* x, const T* target, std::int64_t n) {
  using A = accumulator_t<T>;
  SIMT_SHARED(double, slots, [kMseThreads / 32]);
  A lane[kWidth] = {};
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto a = load_pack<kW>(x + i), b = load_pack<kW>(target + i);
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      const A d = to_float(a.v[k]) - to_float(b.v[k]);
      lane[k] += d * d;
    }
  });
  double mine = 0;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) mine += static_cast<double>(lane[k]);
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// loss = sum of the partials / n, in a fixed order.
// Shared: 8 doubles. Launch: one block of 256.
template <class T>
__global__ void __launch_bounds__(kMseThreads)
    mse_finish_one_block_kernel(T* loss, const double* partial, std::int64_t partials,
                                std::int64_t n) {
  SIMT_SHARED(double, slots, [kMseThreads / 32]);
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < partials; i += kMseThreads) mine += partial[i];
  const double sum = block_sum(mine, slots);
  if (threadIdx.x == 0)
    loss[0] = from_float<T>(static_cast<accumulator_t<T>>(sum / static_cast<double>(n)));
}

// One thread per pack of kWidth elements, grid-stride, tail by single elements.
// Shared: none. Launch: any one-dimensional grid.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMseThreads)
    mse_backward_thread_per_pack_kernel(T* dx, T* dtarget, const T* x, const T* target,
                                        const T* dloss, std::int64_t n) {
  using A = accumulator_t<T>;
  const A factor =
      static_cast<A>(2.0 / static_cast<double>(n) * static_cast<double>(to_float(dloss[0])));
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto a = load_pack<kW>(x + i), b = load_pack<kW>(target + i);
    Pack<T, kW> r_dx, r_dtarget;
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      const A d = factor * (to_float(a.v[k]) - to_float(b.v[k]));
      r_dx.v[k] = from_float<T>(d);
      r_dtarget.v[k] = from_float<T>(-d);
    }
    if (dx) store_pack(dx + i, r_dx);
    if (dtarget) store_pack(dtarget + i, r_dtarget);
  });
}

}  // namespace SIMT_NS

inline void mse_launch(const Context& context, const MseArgs& args) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const std::int64_t wanted = (args.n + kMseThreads * 16 - 1) / (kMseThreads * 16);
  const unsigned partials = static_cast<unsigned>(wanted < 1024 ? wanted : 1024);
  double* const partial = static_cast<double*>(context.scratch->get(1024 * sizeof(double)));
  dispatch_float(args.dtype, "mse", [&]<class T>() {
    constexpr int kPack = 16 / sizeof(T);
    const T* const x = static_cast<const T*>(args.x);
    const T* const target = static_cast<const T*>(args.target);
    if (packs_aligned<kPack>(x, target))
      simt::launch({"mse", partials, kMseThreads, 0, stream}, mse_block_per_slice_kernel<T, kPack>,
                   partial, x, target, args.n);
    else
      simt::launch({"mse", partials, kMseThreads, 0, stream}, mse_block_per_slice_kernel<T, 1>,
                   partial, x, target, args.n);
    simt::launch({"mse", 1, kMseThreads, 0, stream}, mse_finish_one_block_kernel<T>,
                 static_cast<T*>(args.loss), partial, std::int64_t{partials}, args.n);
  });
}

inline void mse_backward_launch(const Context& context, const MseBackwardArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "mse_backward", [&]<class T>() {
    constexpr int kPack = 16 / sizeof(T);
    T* const dx = static_cast<T*>(args.dx);
    T* const dtarget = static_cast<T*>(args.dtarget);
    const T* const x = static_cast<const T*>(args.x);
    const T* const target = static_cast<const T*>(args.target);
    const T* const dloss = static_cast<const T*>(args.dloss);
    const auto run = [&](auto width) {
      constexpr int kW = decltype(width)::value;
      simt::launch({"mse_backward", blocks_for(args.n, kW), kMseThreads, 0,
                    static_cast<cudaStream_t>(context.stream)},
                   mse_backward_thread_per_pack_kernel<T, kW>, dx, dtarget, x, target, dloss,
                   args.n);
    };
    if (packs_aligned<kPack>(x, target, dx, dtarget))
      run(std::integral_constant<int, kPack>{});
    else
      run(std::integral_constant<int, 1>{});
  });
}

}  // namespace retort::kernels
