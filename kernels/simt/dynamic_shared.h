// Dynamic shared memory on a GPU. A kernel may have 48 KiB less its static arrays unless it is
// granted more; here every kernel that asks for any is granted all there is.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/common/check.h"

namespace retort::simt {

/// Throws Error(kDevice) that names the kernel. The error is taken from CUDA, which would report it
/// again after the next launch.
[[noreturn]] inline void launch_failed(const char* name, cudaError_t error) {
  (void)cudaGetLastError();
  fail(ErrorCode::kDevice, "launch of ", name, " failed: ", cudaGetErrorName(error), ": ",
       cudaGetErrorString(error));
}

/// Once per kernel and device: raises the limit to what the kernel's static arrays leave of a
/// block's shared memory. It is never lowered again, so neither a launch on another thread nor the
/// node of a graph finds less than it was checked with. Throws Error(kDevice) if `bytes` do not
/// fit.
inline void grant_dynamic_shared(const char* name, const void* kernel, std::size_t bytes) {
  static std::mutex mutex;
  // Bytes granted. Never destroyed: launches may come from destructors at exit.
  static auto* const granted = new std::map<std::pair<const void*, int>, int>();
  const auto check = [name](cudaError_t error) {
    if (error != cudaSuccess) launch_failed(name, error);
  };
  int device = 0;
  check(cudaGetDevice(&device));
  const std::lock_guard lock(mutex);
  auto found = granted->find({kernel, device});
  if (found == granted->end()) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, kernel));
    int most = 0;
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    most -= static_cast<int>(attributes.sharedSizeBytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    found = granted->emplace(std::pair(kernel, device), most).first;
  }
  if (bytes > static_cast<std::size_t>(found->second))
    fail(ErrorCode::kDevice, "launch of ", name, " failed: it asks for ", bytes,
         " bytes of dynamic shared memory, the device has ", found->second, " for it");
}

}  // namespace retort::simt
