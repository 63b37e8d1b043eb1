// What a user's .cu file says. Built here by the host compiler, for the emulator.
#include "kernels/distill_loss/divergence.cuh"
#include "tests/kernels/own_divergences.h"

using namespace retort;

extern "C" __attribute__((visibility("default"))) void own_divergences(
    CudaOp<kernels::DistillLossArgs>* alpha, CudaOp<kernels::DistillLossArgs>* distance) {
  *alpha = kernels::divergence_cuda<test::AlphaDivergence>();
  *distance = kernels::divergence_cuda<test::Distance>();
}
