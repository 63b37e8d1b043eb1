// CUDA kernel of dropout and its launch configuration.
#pragma once
#include "kernels/dropout/dropout.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// One thread per Philox block of four elements, grid-stride.
// Shared: none. Launch: any one-dimensional grid; kPacked wants aligned pointers and columns a
// multiple of 4.
template <class T, bool kPacked>
__global__ void __launch_bounds__(256)
    dropout_thread_per_block_kernel(const DropoutArgs a, accumulator_t<T> scale) {
  using A = accumulator_t<T>;
  const DropoutKey key = dropout_key(a);
  const std::int64_t blocks = dropout_blocks(a.columns), all = a.rows * blocks,
                     step = std::int64_t{gridDim.x} * blockDim.x;
  T* const y = static_cast<T*>(a.y);
  const T* const x = static_cast<const T*>(a.x);
#pragma unroll 1
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < all; i += step) {
    const std::int64_t n = i / blocks, b = i - n * blocks;
    const Philox4 words = dropout_words(key, dropout_sample(a, n),
                                        dropout_first_block(a, n) + static_cast<std::uint32_t>(b));
    const std::int64_t at = n * a.columns + b * kDropoutBlock;
    if constexpr (kPacked) {
      auto pack = load_pack<kDropoutBlock>(x + at);
#pragma unroll
      for (int k = 0; k < kDropoutBlock; ++k)
        pack.v[k] =
            from_float<T>(dropout_value<A>(to_float(pack.v[k]), words.v[k], key.threshold, scale));
      store_pack(y + at, pack);
    } else {
      const std::int64_t left = a.columns - b * kDropoutBlock;
#pragma unroll
      for (int k = 0; k < kDropoutBlock; ++k)
        if (k < left)
          y[at + k] = from_float<T>(
              dropout_value<A>(to_float(x[at + k]), words.v[k], key.threshold, scale));
    }
  }
}

}  // namespace SIMT_NS

inline void dropout_launch(const Context& context, const DropoutArgs& a) {
  using namespace SIMT_NS;
  dispatch_float(a.dtype, "dropout", [&]<class T>() {
    const auto run = [&](auto kernel) {
      simt::launch({"dropout", blocks_for(a.rows * dropout_blocks(a.columns), 1), 256, 0,
                    static_cast<cudaStream_t>(context.stream)},
                   kernel, a, static_cast<accumulator_t<T>>(1 / (1 - a.p)));
    };
    if (a.columns % kDropoutBlock == 0 &&
        packs_aligned<kDropoutBlock>(static_cast<T*>(a.y), static_cast<const T*>(a.x)))
      run(dropout_thread_per_block_kernel<T, true>);
    else
      run(dropout_thread_per_block_kernel<T, false>);
  });
}

}  // namespace retort::kernels
