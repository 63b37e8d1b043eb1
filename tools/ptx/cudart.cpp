// The CUDA runtime's launches, device and errors.
#include <fatbinary_section.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tools/ptx/runtime.h"

namespace retort::ptx {
namespace {
std::string g_fault = "unspecified launch failure";
thread_local cudaError_t t_error = cudaSuccess;
thread_local struct {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
} t_configuration;
}  // namespace

Runtime& runtime() {
  static Runtime* const r = [] {  // never destroyed: it is used at exit
    auto* const made = new Runtime();
    made->machine.options = Options::from_environment();
    return made;
  }();
  return *r;
}
cudaError_t keep(cudaError_t e) {
  if (e != cudaSuccess) t_error = e;
  return e;
}
cudaError_t fault_untaken() { return t_error == cudaErrorLaunchFailure ? t_error : cudaSuccess; }
cudaError_t keep_fault(const std::exception& what) {
  g_fault = what.what();
  std::fprintf(stderr, "%s\n", what.what());
  return keep(cudaErrorLaunchFailure);
}

namespace {
u32 static_shared(const Function& f) {
  u32 end = kSharedBase;
  for (const Variable& v : f.shared)
    if (v.size) end = std::max(end, v.offset + v.size);
  return end - kSharedBase;
}

cudaError_t launch(Kernel& k, dim3 grid, dim3 block, void** args, std::size_t shared,
                   cudaStream_t stream, unsigned cluster) {
  try {
    Function& f = function_of(k);
    auto l = std::make_shared<Launch>();
    l->grid = {grid.x, grid.y, grid.z};
    l->block = {block.x, block.y, block.z};
    l->dynamic_shared = static_cast<u32>(shared);
    l->cluster = cluster;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || u64{block.x} * block.y * block.z == 0 ||
        u64{block.x} * block.y * block.z > f.max_threads || block.z > 64 || grid.x % cluster ||
        cluster > 8)
      return keep(cudaErrorInvalidConfiguration);
    if (static_cast<int>(shared) >
        k.granted - (k.granted == 48 * 1024 ? static_cast<int>(static_shared(f)) : 0))
      return keep(cudaErrorInvalidValue);
    l->params.resize(f.param_size);
    for (std::size_t p = 0; p < f.params.size(); ++p)
      std::memcpy(l->params.data() + f.params[p].offset, args[p], f.params[p].size);
    Module& module = *k.image->module;
    return enqueue(stream, cudaGraphNodeTypeKernel,
                   [&f, l, &module] { runtime().machine.run(module, f, *l); });
  } catch (const std::exception& e) {
    return keep_fault(e);
  }
}
}  // namespace
}  // namespace retort::ptx

using namespace retort::ptx;  // the runtime's functions have C names
// -------------------------------------------------------------------- what nvcc's host code calls

RETORT_CUDART void** __cudaRegisterFatBinary(void* wrapper) {
  Runtime& r = runtime();
  if (r.images.empty()) std::atexit(write_reports);
  r.images.push_back(std::make_unique<Image>());
  read_fatbin(
      reinterpret_cast<const unsigned char*>(static_cast<__fatBinC_Wrapper_t*>(wrapper)->data),
      *r.images.back());
  return reinterpret_cast<void**>(r.images.back().get());
}
RETORT_CUDART void __cudaRegisterFatBinaryEnd(void**) {}
RETORT_CUDART void __cudaUnregisterFatBinary(void**) {}
RETORT_CUDART char __cudaInitModule(void**) { return 0; }
RETORT_CUDART void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name,
                                          int, uint3*, uint3*, dim3*, dim3*, int*) {
  runtime().kernels[host] = {reinterpret_cast<Image*>(handle), name};
}
RETORT_CUDART unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                                   CUstream_st* stream) {
  t_configuration = {grid, block, shared, stream};
  return 0;
}
RETORT_CUDART cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared,
                                                     void* stream) {
  *grid = t_configuration.grid, *block = t_configuration.block, *shared = t_configuration.shared;
  *static_cast<cudaStream_t*>(stream) = t_configuration.stream;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  const auto it = runtime().kernels.find(host);
  if (it == runtime().kernels.end()) return keep(cudaErrorInvalidDeviceFunction);
  *kernel = reinterpret_cast<cudaKernel_t>(&it->second);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block,
                                             void** args, size_t shared, cudaStream_t stream) {
  return launch(*reinterpret_cast<Kernel*>(kernel), grid, block, args, shared, stream, 1);
}
RETORT_CUDART cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host,
                                              void** args) {
  unsigned cluster = 1;
  for (unsigned k = 0; k < c->numAttrs; ++k)
    if (c->attrs[k].id == cudaLaunchAttributeClusterDimension)
      cluster = c->attrs[k].val.clusterDim.x;
  const auto it = runtime().kernels.find(host);
  if (it == runtime().kernels.end()) return keep(cudaErrorInvalidDeviceFunction);
  if (cluster > 1 && architecture() < 90) return keep(cudaErrorInvalidConfiguration);
  return launch(it->second, c->gridDim, c->blockDim, args, c->dynamicSmemBytes, c->stream, cluster);
}

// ------------------------------------------------------------------------------ device and errors

RETORT_CUDART cudaError_t cudaGetDevice(int* d) {
  *d = 0;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaSetDevice(int d) {
  return d == 0 ? cudaSuccess : keep(cudaErrorInvalidDevice);
}
RETORT_CUDART cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaDriverGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  *f = *t = size_t{8} << 30;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(p, 0, sizeof *p);
  std::snprintf(p->name, sizeof p->name, "interpreted (PTX of sm_%d)", architecture());
  p->major = architecture() / 10, p->minor = architecture() % 10;
  p->multiProcessorCount = 4;
  p->totalGlobalMem = size_t{8} << 30;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  switch (a) {
    case cudaDevAttrComputeCapabilityMajor: *v = architecture() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = architecture() % 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = architecture() == 80 ? 163 * 1024 : 227 * 1024;
      break;
    case cudaDevAttrMultiProcessorCount: *v = 4; break;
    default:
      std::fprintf(stderr, "ptx: device attribute %d is not known\n", static_cast<int>(a));
      return keep(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  const auto it = runtime().kernels.find(host);
  if (it == runtime().kernels.end()) return keep(cudaErrorInvalidDeviceFunction);
  std::memset(a, 0, sizeof *a);
  a->sharedSizeBytes = static_shared(function_of(it->second));
  a->maxThreadsPerBlock = static_cast<int>(function_of(it->second).max_threads);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute a, int v) {
  const auto it = runtime().kernels.find(host);
  if (it == runtime().kernels.end() || a != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return keep(cudaErrorInvalidValue);
  it->second.granted = v;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGetLastError() { return std::exchange(t_error, cudaSuccess); }
RETORT_CUDART cudaError_t cudaPeekAtLastError() { return t_error; }
RETORT_CUDART const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaSuccess                     ? "cudaSuccess"
         : e == cudaErrorLaunchFailure        ? "cudaErrorLaunchFailure"
         : e == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
         : e == cudaErrorMemoryAllocation     ? "cudaErrorMemoryAllocation"
         : e == cudaErrorInvalidValue         ? "cudaErrorInvalidValue"
                                              : "cudaError";
}
RETORT_CUDART const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaErrorLaunchFailure          ? g_fault.c_str()
         : e == cudaErrorInvalidConfiguration ? "invalid configuration argument"
         : e == cudaErrorMemoryAllocation     ? "out of memory"
         : e == cudaErrorInvalidValue         ? "invalid argument"
         : e == cudaSuccess                   ? "no error"
                                              : "error";
}
