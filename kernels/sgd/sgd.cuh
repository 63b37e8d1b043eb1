// CUDA kernel of SGD and its launch configuration.
#pragma once
#include "kernels/sgd/sgd.h"
#include "kernels/sgd/sgd_math.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kSgdThreads = 256;

template <class A, class G>
struct SgdPointers {
  A* parameter;
  const G* gradient;
  A* momentum_buffer;
  bf16* parameter_copy;
  const float* learning_rate;
  const std::int64_t* step;
  const float* clip;
  const std::int32_t* skip;
};

// One thread per pack of kWidth elements, grid-stride, tail by single elements; what changes from
// step to step is read from device memory.
// Shared: none. Launch: any one-dimensional grid; kWidth > 1 wants aligned pointers.
template <class A, class G, int kWidth, bool kMomentum, bool kNesterov>
__global__ void __launch_bounds__(kSgdThreads)
    sgd_thread_per_pack_kernel(SgdPointers<A, G> p, SgdFactors<A> f, std::int64_t decayed,
                               std::int64_t n) {
  if (p.skip && *p.skip != 0) return;
  f.learning_rate = static_cast<A>(*p.learning_rate);
  if (p.clip) f.clip = static_cast<A>(*p.clip);
  if constexpr (kMomentum) f.first = *p.step == 1;
  const A decay = f.weight_decay;
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    auto r_p = load_pack<kW>(p.parameter + i);
    const auto r_g = load_pack<kW>(p.gradient + i);
    Pack<A, kW> r_b = r_p;
    if constexpr (kMomentum) r_b = load_pack<kW>(p.momentum_buffer + i);
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      f.weight_decay = i + k < decayed ? decay : A(0);
      r_p.v[k] = sgd_element<A, kMomentum, kNesterov>(r_p.v[k], static_cast<A>(to_float(r_g.v[k])),
                                                      r_b.v[k], f);
    }
    store_pack(p.parameter + i, r_p);
    if constexpr (kMomentum) store_pack(p.momentum_buffer + i, r_b);
    if (p.parameter_copy) {
      Pack<bf16, kW> r_copy;
#pragma unroll
      for (int k = 0; k < kW; ++k) r_copy.v[k] = to_bf16(static_cast<float>(r_p.v[k]));
      store_pack(p.parameter_copy + i, r_copy);
    }
  });
}

template <class A, class G, bool kMomentum, bool kNesterov>
void sgd_launch_variant(const Context& context, const SgdArgs& args) {
  const SgdPointers<A, G> p{static_cast<A*>(args.parameter),
                            static_cast<const G*>(args.gradient),
                            static_cast<A*>(args.momentum_buffer),
                            args.parameter_copy,
                            args.learning_rate,
                            args.step,
                            args.clip,
                            args.skip};
  const SgdFactors<A> f{A(0),
                        A(1),
                        static_cast<A>(args.momentum),
                        static_cast<A>(1 - args.dampening),
                        static_cast<A>(args.weight_decay),
                        false};
  constexpr int kPack = 16 / sizeof(A);
  const auto run = [&](auto width) {
    constexpr int kW = decltype(width)::value;
    simt::launch(
        {"sgd", blocks_for(args.n, kW), kSgdThreads, 0, static_cast<cudaStream_t>(context.stream)},
        sgd_thread_per_pack_kernel<A, G, kW, kMomentum, kNesterov>, p, f,
        args.decayed < 0 ? args.n : args.decayed, args.n);
  };
  if (packs_aligned<kPack>(p.parameter, p.gradient, p.parameter_copy) &&
      (!kMomentum || packs_aligned<kPack>(p.momentum_buffer)))
    run(std::integral_constant<int, kPack>{});
  else
    run(std::integral_constant<int, 1>{});
}

template <class A, class G>
void sgd_launch_types(const Context& context, const SgdArgs& args) {
  if (args.momentum == 0)
    sgd_launch_variant<A, G, false, false>(context, args);
  else if (args.nesterov)
    sgd_launch_variant<A, G, true, true>(context, args);
  else
    sgd_launch_variant<A, G, true, false>(context, args);
}

}  // namespace SIMT_NS

inline void sgd_launch(const Context& context, const SgdArgs& args) {
  using namespace SIMT_NS;
  if (args.dtype == DType::kF64)
    sgd_launch_types<double, double>(context, args);
  else if (args.gradient_dtype == DType::kBF16)
    sgd_launch_types<float, bf16>(context, args);
  else
    sgd_launch_types<float, float>(context, args);
}

}  // namespace retort::kernels
