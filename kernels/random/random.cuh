// CUDA kernel of the random fills and its launch configuration.
#pragma once
#include "kernels/random/random.h"
#include "kernels/random/random_math.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

struct RandomParams {
  std::int64_t n;
  float a, b;
  std::uint64_t seed;
  std::uint32_t sample, epoch, path;
  const std::int64_t* epoch_pointer;
  bool packs;  // y may be written by four elements at a time
};

// One thread per four elements (one Philox block; of kSigns a 32nd of one), grid-stride.
// Shared: none. Launch: any one-dimensional grid.
template <class T, Random kKind>
__global__ void __launch_bounds__(256) random_thread_per_block_kernel(T* y, RandomParams p) {
  const std::uint32_t epoch =
      p.epoch_pointer ? static_cast<std::uint32_t>(*p.epoch_pointer) : p.epoch;
  const std::int64_t fours = (p.n + 3) / 4, step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < fours; i += step) {
    float values[4];
    if constexpr (kKind == Random::kSigns) {
      const Philox4 r = philox(p.seed, static_cast<std::uint32_t>(i / 32), p.sample, epoch, p.path);
      const int bit = static_cast<int>(i % 32) * 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) values[k] = random_sign(r, bit + k);
    } else {
      random_block<kKind>(philox(p.seed, static_cast<std::uint32_t>(i), p.sample, epoch, p.path),
                          p.a, p.b, values);
    }
    Pack<T, 4> four;
#pragma unroll
    for (int k = 0; k < 4; ++k) four.v[k] = from_float<T>(values[k]);
    if (p.packs && i * 4 + 4 <= p.n) {
      store_pack(y + i * 4, four);
      continue;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (i * 4 + k < p.n) y[i * 4 + k] = four.v[k];
  }
}

}  // namespace SIMT_NS

inline void random_launch(const Context& context, const RandomArgs& args) {
  using namespace SIMT_NS;
  RandomParams p{args.n,
                 static_cast<float>(args.a),
                 static_cast<float>(args.b),
                 args.seed,
                 args.sample,
                 args.epoch,
                 args.path,
                 args.epoch_pointer,
                 false};
  dispatch_float(args.dtype, "random", [&]<class T>() {
    p.packs = packs_aligned<4>(static_cast<const T*>(args.y));
    const auto run = [&](auto kernel) {
      simt::launch(
          {"random", blocks_for(args.n, 4), 256, 0, static_cast<cudaStream_t>(context.stream)},
          kernel, static_cast<T*>(args.y), p);
    };
    switch (args.kind) {
      case Random::kUniform: return run(random_thread_per_block_kernel<T, Random::kUniform>);
      case Random::kNormal: return run(random_thread_per_block_kernel<T, Random::kNormal>);
      case Random::kBernoulli: return run(random_thread_per_block_kernel<T, Random::kBernoulli>);
      case Random::kSigns: return run(random_thread_per_block_kernel<T, Random::kSigns>);
    }
  });
}

}  // namespace retort::kernels
