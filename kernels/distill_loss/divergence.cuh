// The CUDA kernels of the distillation loss for a divergence from outside: a .cu file of the user's
// own, compiled by nvcc (or, for the emulator, by the host compiler), says
//
//   #include "kernels/distill_loss/divergence.cuh"
//   retort::CudaOp<retort::kernels::DistillLossArgs> my_divergence_cuda() {
//     return retort::kernels::divergence_cuda<MyDivergence>();
//   }
//
// and the host file that makes the row gives that to divergence_ops().
#pragma once
#include "kernels/common/plugin.h"
#include "kernels/distill_loss/distill_loss.cuh"

namespace retort::kernels {

/// What DivergenceOps::cuda wants.
template <DivergenceFunctor D>
CudaOp<DistillLossArgs> divergence_cuda() {
  return [](const Context& context, const DistillLossArgs& args) noexcept {
    return status_of(
        [&] { SIMT_NS::launch_loss<SIMT_NS::FunctorElements<D>>(context, args, plan_rows(args)); });
  };
}

}  // namespace retort::kernels
