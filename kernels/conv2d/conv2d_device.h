// Device work that providers of a convolution need beside it. Defined in conv2d_cuda.cu; outside
// the plug-in it is reached through the pointers.
#pragma once
#include "kernels/common/context.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {

/// to[i] = bf16(weight[i]) for the weight_elements() of the shape: for a library that takes one
/// dtype only.
void conv2d_round_weights(const Context& context, const Conv2dShape& shape, bf16* to,
                          const float* weight);

/// The epilogue and the statistics of args on a y that holds the plain convolution: for a library
/// that cannot do them on the way. In bf16 y was then rounded once more before the epilogue.
void conv2d_finish(const Context& context, const Conv2dArgs& args);
extern CudaOp<Conv2dArgs> conv2d_finish_cuda;

/// For every piece of 256 elements of data (n of them, f32 or bf16): to[2 i] = sum of the elements
/// with fixed pseudo-random signs, to[2 i + 1] = sum of their magnitudes. Two arrays with equal
/// values in another order differ in it.
inline std::int64_t conv2d_fingerprint_pieces(std::int64_t n) { return (n + 255) / 256; }
struct Conv2dFingerprintArgs {
  const void* data;
  DType dtype;
  std::int64_t n;
  float* to;
};
void conv2d_fingerprint(const Context& context, const Conv2dFingerprintArgs& args);
extern CudaOp<Conv2dFingerprintArgs> conv2d_fingerprint_cuda;

}  // namespace retort::kernels
