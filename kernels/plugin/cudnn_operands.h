// What cuDNN's two interfaces do alike before a convolution: the filter in bf16, the workspace.
#pragma once
#include "kernels/conv2d/conv2d_device.h"
#include "kernels/plugin/conv2d_choice.h"
#include "kernels/plugin/libraries.h"

namespace retort::kernels {

inline constexpr std::size_t kMostCudnnWorkspaceBytes = std::size_t{256} << 20;

struct CudnnOperands {
  const void* in1;  // a filter of another dtype than the images is rounded to theirs
  void* workspace;
};

/// Both in the context's scratch, good until its next use.
inline CudnnOperands cudnn_operands(const Context& context, const Conv2dCall& call,
                                    std::size_t workspace_bytes) {
  const bool round = call.pass != Conv2dPass::kBackwardWeight && call.weight_dtype != call.dtype;
  const std::size_t bytes = static_cast<std::size_t>(call.shape.weight_elements()) * sizeof(bf16),
                    rounded_bytes = round ? (bytes + 255) / 256 * 256 : 0;
  auto* const scratch =
      static_cast<std::byte*>(context.scratch->get(rounded_bytes + workspace_bytes));
  if (!round) return {call.in1, scratch};
  conv2d_round_weights(context, call.shape, reinterpret_cast<bf16*>(scratch),
                       static_cast<const float*>(call.in1));
  return {scratch, scratch + rounded_bytes};
}

}  // namespace retort::kernels
