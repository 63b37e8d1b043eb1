// What Context::libraries points to in the CUDA plug-in: one set of handles per context, so that no
// lock is needed. Only files of this folder include it.
//
// Note [Providers]
//   A file <op>_<library>.cpp in this folder offers a library's version of an op: it defines
//       RETORT_CUDA_PROVIDER(gemm_cublaslt) { next = gemm_cuda; gemm_cuda = ...; }
//   which runs after every op is bound. So it may keep the hand-written kernel as its fallback. The
//   build finds these files by name and leaves out those whose library was not found.
#pragma once
#include <cuda_runtime.h>

#include <memory>

#include "kernels/common/check.h"
#include "kernels/common/context.h"
#include "kernels/common/dispatch.h"

#if defined(RETORT_HAVE_CUBLASLT)
#include <cublasLt.h>
#endif
#if defined(RETORT_HAVE_CUDNN)
#include <cudnn.h>
#endif

#define RETORT_CUDA_PROVIDER(name) extern "C" void retort_provide_##name()

namespace retort::kernels {

/// A provider's own cache of plans in a context's CudaLibraries.
struct PlanCache {
  virtual ~PlanCache() = default;
};

struct CudaLibraries {
  cudaStream_t stream = nullptr;
#if defined(RETORT_HAVE_CUBLASLT)
  cublasLtHandle_t cublaslt = nullptr;
  std::unique_ptr<PlanCache> gemm_plans;
#endif
#if defined(RETORT_HAVE_CUDNN)
  cudnnHandle_t cudnn = nullptr;  // use cudnn_of(): made on first use, which takes a while
  std::unique_ptr<PlanCache> convolution_plans;
#endif
};

inline CudaLibraries& libraries_of(const Context& context) {
  return *static_cast<CudaLibraries*>(context.libraries);
}

/// Throws Error(kMemory or kDevice) naming the CUDA error unless it is success.
void check_cuda(cudaError_t error, const char* what);

#if defined(RETORT_HAVE_CUBLASLT)
/// Throws Error naming the cuBLASLt status unless it is success.
void check_cublaslt(cublasStatus_t status, const char* what);
#endif
#if defined(RETORT_HAVE_CUDNN)
/// The context's cuDNN handle, on its stream.
cudnnHandle_t cudnn_of(const Context& context);
/// Throws Error naming the cuDNN status unless it is success.
void check_cudnn(cudnnStatus_t status, const char* what);
#endif

}  // namespace retort::kernels
