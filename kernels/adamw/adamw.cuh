// CUDA kernel of AdamW and its launch configuration.
#pragma once
#include "kernels/adamw/adamw.h"
#include "kernels/adamw/adamw_math.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kAdamWThreads = 256;

template <class A, class G>
struct AdamWPointers {
  A* parameter;
  const G* gradient;
  A* m;
  A* v;
  bf16* parameter_copy;
  const float* learning_rate;
  const std::int64_t* step;
  const float* clip;
  const std::int32_t* skip;
};

// One thread per pack of kWidth elements, grid-stride, tail by single elements. What changes from
// step to step is read from device memory; thread 0 works out the bias corrections in double.
// Shared: the factors (9 elements). Launch: any one-dimensional grid; kWidth > 1 wants aligned
// pointers.
//
// In f32 it takes 54 registers (46 while nvcc unrolled the loop: Note [Loops of one turn]), which is 4
// blocks a multiprocessor and not 5. Their loads in flight are 4 x 256 x 64 bytes, 64 KiB; to hide a
// latency of 700 ns at 4.3 TB/s, 132 multiprocessors want 23 KB each. Held to 5 blocks
// (__launch_bounds__(256, 5), 48 registers) ptxas spills. Not timed: no GPU has run it yet.
template <class A, class G, int kWidth>
__global__ void __launch_bounds__(kAdamWThreads)
    adamw_thread_per_pack_kernel(AdamWPointers<A, G> p, double beta1, double beta2, double epsilon,
                                 double weight_decay, std::int64_t decayed, std::int64_t n) {
  SIMT_SHARED(AdamWFactors<A>, shared_factors, [1]);
  if (p.skip && *p.skip != 0) return;
  if (threadIdx.x == 0)
    shared_factors[0] = adamw_factors<A>(*p.learning_rate, *p.step, p.clip ? *p.clip : 1.0f, beta1,
                                         beta2, epsilon, weight_decay);
  __syncthreads();
  AdamWFactors<A> f = shared_factors[0];
  const A decay = f.decay;
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    auto r_p = load_pack<kW>(p.parameter + i), r_m = load_pack<kW>(p.m + i),
         r_v = load_pack<kW>(p.v + i);
    const auto r_g = load_pack<kW>(p.gradient + i);
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      f.decay = i + k < decayed ? decay : A(1);
      r_p.v[k] = adamw_element(r_p.v[k], static_cast<A>(to_float(r_g.v[k])), r_m.v[k], r_v.v[k], f);
    }
    store_pack(p.parameter + i, r_p);
    store_pack(p.m + i, r_m);
    store_pack(p.v + i, r_v);
    if (p.parameter_copy) {
      Pack<bf16, kW> r_copy;
#pragma unroll
      for (int k = 0; k < kW; ++k) r_copy.v[k] = to_bf16(static_cast<float>(r_p.v[k]));
      store_pack(p.parameter_copy + i, r_copy);
    }
  });
}

template <class A, class G>
void adamw_launch_types(const Context& context, const AdamWArgs& args) {
  const AdamWPointers<A, G> p{static_cast<A*>(args.parameter),
                              static_cast<const G*>(args.gradient),
                              static_cast<A*>(args.first_moment),
                              static_cast<A*>(args.second_moment),
                              args.parameter_copy,
                              args.learning_rate,
                              args.step,
                              args.clip,
                              args.skip};
  constexpr int kPack = 16 / sizeof(A);
  const auto run = [&](auto width) {
    constexpr int kW = decltype(width)::value;
    // At most 8 blocks for each of 132 multiprocessors: the bias corrections are per block.
    const unsigned blocks = blocks_for(args.n, kW);
    simt::launch({"adamw", blocks < 2112 ? blocks : 2112, kAdamWThreads, 0,
                  static_cast<cudaStream_t>(context.stream)},
                 adamw_thread_per_pack_kernel<A, G, kW>, p, args.beta1, args.beta2, args.epsilon,
                 args.weight_decay, args.decayed < 0 ? args.n : args.decayed, args.n);
  };
  if (packs_aligned<kPack>(p.parameter, p.gradient, p.m, p.v, p.parameter_copy))
    run(std::integral_constant<int, kPack>{});
  else
    run(std::integral_constant<int, 1>{});
}

}  // namespace SIMT_NS

inline void adamw_launch(const Context& context, const AdamWArgs& args) {
  using namespace SIMT_NS;
  if (args.dtype == DType::kF64)
    adamw_launch_types<double, double>(context, args);
  else if (args.gradient_dtype == DType::kBF16)
    adamw_launch_types<float, bf16>(context, args);
  else
    adamw_launch_types<float, float>(context, args);
}

}  // namespace retort::kernels
