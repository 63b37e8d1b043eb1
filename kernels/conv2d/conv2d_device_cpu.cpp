#include "kernels/conv2d/conv2d_device.h"

namespace retort::kernels {

CudaOp<Conv2dArgs> conv2d_finish_cuda = nullptr;
CudaOp<Conv2dFingerprintArgs> conv2d_fingerprint_cuda = nullptr;

}  // namespace retort::kernels
