// The CUDA runtime's memory. What is not written reads as NaN.
#include <cstdlib>
#include <cstring>

#include "tools/ptx/instructions.h"
#include "tools/ptx/runtime.h"

using namespace retort::ptx;

namespace {
constexpr std::size_t kMargin = 256;

// Where the host finds [p, p + bytes).
void* host_of(const void* pointer, std::size_t bytes) {
  const u64 p = reinterpret_cast<u64>(pointer);
  if ((p & kWindows) == 0 && (p & kDeviceBias) == 0) return const_cast<void*>(pointer);
  const Allocation* const a = memory().find(p);
  if (!a || p + bytes > a->end)
    throw Fault("copy or fill of " + std::to_string(bytes) + " bytes at device address " + hex(p) +
                ", which is not in an allocation of that size");
  return a->host + (p - a->begin);
}

}  // namespace

RETORT_CUDART cudaError_t cudaMalloc(void** p, size_t bytes) {
  const std::lock_guard lock(runtime().mutex);
  if (bytes > (size_t{8} << 30)) return keep(cudaErrorMemoryAllocation);
  void* host = nullptr;
  if (posix_memalign(&host, 512, bytes + kMargin)) return keep(cudaErrorMemoryAllocation);
  std::memset(host, 0xff, bytes + kMargin);  // NaNs
  const u64 device = reinterpret_cast<u64>(host) + kDeviceBias;
  memory().add(device, bytes, host);
  *p = reinterpret_cast<void*>(device);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaFree(void* p) {
  const std::lock_guard lock(runtime().mutex);
  if (!p) return cudaSuccess;
  if (!memory().remove(reinterpret_cast<u64>(p))) return keep(cudaErrorInvalidValue);
  std::free(reinterpret_cast<void*>(reinterpret_cast<u64>(p) - kDeviceBias));
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaMallocHost(void** p, size_t bytes) {
  const std::lock_guard lock(runtime().mutex);
  if (posix_memalign(p, 512, bytes)) return keep(cudaErrorMemoryAllocation);
  memory().add(reinterpret_cast<u64>(*p), bytes, *p);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaFreeHost(void* p) {
  const std::lock_guard lock(runtime().mutex);
  if (p && !memory().remove(reinterpret_cast<u64>(p))) return keep(cudaErrorInvalidValue);
  std::free(p);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  const std::lock_guard lock(runtime().mutex);
  std::memset(a, 0, sizeof *a);
  const bool known = memory().find(reinterpret_cast<u64>(p)) != nullptr;
  a->type = !known                                     ? cudaMemoryTypeUnregistered
            : (reinterpret_cast<u64>(p) & kDeviceBias) ? cudaMemoryTypeDevice
                                                       : cudaMemoryTypeHost;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                          cudaStream_t stream) {
  return enqueue(stream, cudaGraphNodeTypeMemcpy, [=] {
    if (bytes) std::memmove(host_of(to, bytes), host_of(from, bytes), bytes);
  });
}
RETORT_CUDART cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes,
                                     cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
RETORT_CUDART cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, cudaGraphNodeTypeMemset, [=] {
    if (bytes) std::memset(host_of(to, bytes), byte, bytes);
  });
}
RETORT_CUDART cudaError_t cudaMemset(void* to, int byte, size_t bytes) {
  return cudaMemsetAsync(to, byte, bytes, nullptr);
}
