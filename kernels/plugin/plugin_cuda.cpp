// The CUDA plug-in: fills the engine's CudaRuntime and binds every op. Compiled by the host
// compiler; the kernels beside it come from nvcc.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/cuda_runtime.h"
#include "kernels/common/plugin.h"
#include "kernels/plugin/libraries.h"
#include "kernels/simt/launch_hook.h"
#include "retort_abi_hash.h"

#define RETORT_PLUGIN_FOLDER(folder) extern "C" void retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER
#define RETORT_PLUGIN_PROVIDER(name) extern "C" void retort_provide_##name();
#include "plugin_providers.inc"
#undef RETORT_PLUGIN_PROVIDER

namespace retort {
namespace kernels {

void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // so that the next launch does not report this one
  fail(error == cudaErrorMemoryAllocation ? ErrorCode::kMemory : ErrorCode::kDevice, what,
       " failed: ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

#if defined(RETORT_HAVE_CUBLASLT)
void check_cublaslt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(status == CUBLAS_STATUS_ALLOC_FAILED ? ErrorCode::kMemory : ErrorCode::kDevice, what,
         " failed: ", cublasLtGetStatusName(status));
}
#endif

#if defined(RETORT_HAVE_CUDNN)
void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail(ErrorCode::kDevice, what, " failed: ", cudnnGetErrorString(status));
}
cudnnHandle_t cudnn_of(const Context& context) {
  CudaLibraries& libraries = libraries_of(context);
  if (libraries.cudnn == nullptr) {
    check_cudnn(cudnnCreate(&libraries.cudnn), "cudnnCreate");
    check_cudnn(cudnnSetStream(libraries.cudnn, libraries.stream), "cudnnSetStream");
  }
  return libraries.cudnn;
}
#endif

}  // namespace kernels

namespace {

using kernels::check_cuda;
using kernels::CudaLibraries;

constexpr int kLeastCapability = 80;

// A capture stops at what CUDA itself refuses; here it is refused first, with the op's name, and so
// are copies of pageable memory, which CUDA would record.
thread_local bool t_capturing = false;
thread_local std::string t_violation;  // the first; the capture is void then
void refuse_while_capturing(const std::string& what) {
  if (!t_capturing) return;
  const std::string text = simt::not_capturable(what);
  if (t_violation.empty()) t_violation = text;
  fail(ErrorCode::kDevice, text);
}
bool is_pinned(const void* host) {
  cudaPointerAttributes attributes{};
  check_cuda(cudaPointerGetAttributes(&attributes, host), "cudaPointerGetAttributes");
  return attributes.type == cudaMemoryTypeHost;
}

std::string version_text(int version) { return join(version / 1000, ".", version % 1000 / 10); }

// "CUDA was asked for, but there is " + this sentence.
Status device_count(int* count) noexcept {
  return status_of([=] {
    *count = 0;
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error == cudaErrorNoDevice) {
      (void)cudaGetLastError();
      *count = 0;
      return;
    }
    if (error == cudaErrorInsufficientDriver) {
      (void)cudaGetLastError();
      int driver = 0;  // stays 0 without any driver
      (void)cudaDriverGetVersion(&driver);
      if (driver == 0) fail(ErrorCode::kDevice, "no NVIDIA driver on this machine");
      fail(ErrorCode::kDevice, "no NVIDIA driver that is new enough: it supports CUDA ",
           version_text(driver), ", this build needs ", version_text(CUDART_VERSION));
    }
    check_cuda(error, "cudaGetDeviceCount");
  });
}

Status select_device(int device) noexcept {
  return status_of([=] {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    const int capability = 10 * properties.major + properties.minor;
    if (capability < kLeastCapability)
      fail(ErrorCode::kDevice, "the GPU ", properties.name, " has compute capability ",
           properties.major, ".", properties.minor, "; 8.0 or newer is needed");
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
  });
}

Status describe(int device, DeviceInfo* info) noexcept {
  return status_of([=] {
    *info = DeviceInfo{};
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    std::snprintf(info->name, sizeof info->name, "%.127s", properties.name);
    info->capability = 10 * properties.major + properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    check_cuda(cudaMemGetInfo(&info->free_bytes, &info->memory_bytes), "cudaMemGetInfo");
    check_cuda(cudaDriverGetVersion(&info->driver_version), "cudaDriverGetVersion");
    check_cuda(cudaRuntimeGetVersion(&info->runtime_version), "cudaRuntimeGetVersion");
    std::string libraries;
#if defined(RETORT_HAVE_CUBLASLT)
    const std::size_t lt = cublasLtGetVersion();
    libraries += join("cuBLASLt ", lt / 10000, ".", lt / 100 % 100);
#endif
#if defined(RETORT_HAVE_CUDNN)
    const std::size_t dnn = cudnnGetVersion();
    libraries += join(libraries.empty() ? "" : ", ", "cuDNN ", dnn / 10000, ".", dnn / 100 % 100);
#endif
    std::snprintf(info->libraries, sizeof info->libraries, "%s",
                  libraries.empty() ? "none" : libraries.c_str());
  });
}

Status allocate(void** pointer, std::size_t bytes) noexcept {
  return status_of([=] {
    refuse_while_capturing("memory from the driver");
    check_cuda(cudaMalloc(pointer, bytes == 0 ? 1 : bytes), "cudaMalloc");
  });
}
Status release(void* pointer) noexcept {
  return status_of([=] {
    refuse_while_capturing("memory given back to the driver");
    check_cuda(cudaFree(pointer), "cudaFree");
  });
}
Status allocate_pinned(void** pointer, std::size_t bytes) noexcept {
  return status_of([=] {
    refuse_while_capturing("memory from the driver");
    check_cuda(cudaMallocHost(pointer, bytes == 0 ? 1 : bytes), "cudaMallocHost");
  });
}
Status release_pinned(void* pointer) noexcept {
  return status_of([=] { check_cuda(cudaFreeHost(pointer), "cudaFreeHost"); });
}

Status copy(void* to, const void* from, std::size_t bytes, CopyKind kind, void* stream) noexcept {
  return status_of([=] {
    const cudaMemcpyKind direction = kind == CopyKind::kHostToDevice   ? cudaMemcpyHostToDevice
                                     : kind == CopyKind::kDeviceToHost ? cudaMemcpyDeviceToHost
                                                                       : cudaMemcpyDeviceToDevice;
    if (t_capturing && kind != CopyKind::kDeviceToDevice) {
      const bool upload = kind == CopyKind::kHostToDevice;
      if (!is_pinned(upload ? from : to))
        refuse_while_capturing(
            join("a copy of ", bytes, " bytes ", upload ? "from" : "to", " pageable host memory"));
    }
    check_cuda(cudaMemcpyAsync(to, from, bytes, direction, static_cast<cudaStream_t>(stream)),
               "cudaMemcpyAsync");
  });
}
Status fill(void* to, int byte, std::size_t bytes, void* stream) noexcept {
  return status_of([=] {
    check_cuda(cudaMemsetAsync(to, byte, bytes, static_cast<cudaStream_t>(stream)),
               "cudaMemsetAsync");
  });
}

// Non-blocking: does not wait for the legacy default stream, which some library may use.
Status create_stream(void** stream) noexcept {
  return status_of([=] {
    check_cuda(
        cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), cudaStreamNonBlocking),
        "cudaStreamCreate");
  });
}
Status destroy_stream(void* stream) noexcept {
  return status_of([=] {
    check_cuda(cudaStreamDestroy(static_cast<cudaStream_t>(stream)), "cudaStreamDestroy");
  });
}
// Also where errors of kernels that ran earlier are seen.
Status synchronize(void* stream) noexcept {
  return status_of([=] {
    refuse_while_capturing("waiting for the device");
    check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
  });
}

Status create_event(void** event) noexcept {
  return status_of([=] {
    check_cuda(cudaEventCreate(reinterpret_cast<cudaEvent_t*>(event)), "cudaEventCreate");
  });
}
Status destroy_event(void* event) noexcept {
  return status_of(
      [=] { check_cuda(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy"); });
}
Status record_event(void* event, void* stream) noexcept {
  return status_of([=] {
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)),
               "cudaEventRecord");
  });
}
Status elapsed_ms(float* ms, void* from, void* to) noexcept {
  return status_of([=] {
    refuse_while_capturing("waiting for an event");
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(to)), "cudaEventSynchronize");
    check_cuda(
        cudaEventElapsedTime(ms, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)),
        "cudaEventElapsedTime");
  });
}

Status synchronize_event(void* event) noexcept {
  return status_of([=] {
    refuse_while_capturing("waiting for an event");
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize");
  });
}
Status wait_event(void* stream, void* event) noexcept {
  return status_of([=] {
    check_cuda(
        cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0),
        "cudaStreamWaitEvent");
  });
}

struct Graph {
  cudaGraphExec_t executable = nullptr;
  GraphInfo info;
};

GraphInfo info_of(cudaGraph_t graph) {
  std::size_t count = 0;
  check_cuda(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(count);
  if (count > 0) check_cuda(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes");
  GraphInfo info;
  for (cudaGraphNode_t const node : nodes) {
    cudaGraphNodeType type{};
    check_cuda(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
    ++(type == cudaGraphNodeTypeKernel   ? info.kernels
       : type == cudaGraphNodeTypeMemcpy ? info.copies
       : type == cudaGraphNodeTypeMemset ? info.fills
                                         : info.others);
  }
  return info;
}

// Thread-local mode: another thread that trains on this GPU may allocate meanwhile.
Status begin_capture(void* stream) noexcept {
  return status_of([=] {
    RETORT_CHECK_AS(kDevice, !t_capturing, "this thread captures already");
    check_cuda(
        cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
    t_capturing = true;
    t_violation.clear();
    simt::t_last_launch = nullptr;
  });
}
Status end_capture(void* stream, void** result) noexcept {
  return status_of([=] {
    RETORT_CHECK_AS(kDevice, t_capturing, "this thread captures nothing");
    t_capturing = false;
    cudaGraph_t captured = nullptr;
    const cudaError_t error = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &captured);
    const std::unique_ptr<CUgraph_st, cudaError_t (*)(cudaGraph_t)> owner(captured,
                                                                          cudaGraphDestroy);
    if (result == nullptr || !t_violation.empty()) (void)cudaGetLastError();
    if (result == nullptr) return;
    RETORT_CHECK_AS(kDevice, t_violation.empty(), t_violation);
    if (error == cudaErrorStreamCaptureUnjoined) {
      (void)cudaGetLastError();
      fail(ErrorCode::kDevice, simt::kForkNotJoined);
    }
    check_cuda(error, "cudaStreamEndCapture");
    auto graph = std::make_unique<Graph>();
    graph->info = info_of(captured);
    check_cuda(cudaGraphInstantiate(&graph->executable, captured, 0), "cudaGraphInstantiate");
    check_cuda(cudaGraphUpload(graph->executable, static_cast<cudaStream_t>(stream)),
               "cudaGraphUpload");
    *result = graph.release();
  });
}
Status describe_graph(void* graph, GraphInfo* info) noexcept {
  *info = static_cast<Graph*>(graph)->info;
  return {};
}
Status launch_graph(void* graph, void* stream) noexcept {
  return status_of([=] {
    check_cuda(
        cudaGraphLaunch(static_cast<Graph*>(graph)->executable, static_cast<cudaStream_t>(stream)),
        "cudaGraphLaunch");
  });
}
Status destroy_graph(void* pointer) noexcept {
  return status_of([=] {
    const std::unique_ptr<Graph> graph(static_cast<Graph*>(pointer));
    if (graph) check_cuda(cudaGraphExecDestroy(graph->executable), "cudaGraphExecDestroy");
  });
}
std::uint64_t launches() noexcept { return simt::g_launches.load(std::memory_order_relaxed); }

Status destroy_libraries(void* pointer) noexcept {
  return status_of([=] {
    const std::unique_ptr<CudaLibraries> libraries(static_cast<CudaLibraries*>(pointer));
    if (libraries == nullptr) return;
#if defined(RETORT_HAVE_CUBLASLT)
    libraries->gemm_plans.reset();
    if (libraries->cublaslt)
      kernels::check_cublaslt(cublasLtDestroy(libraries->cublaslt), "cublasLtDestroy");
#endif
#if defined(RETORT_HAVE_CUDNN)
    libraries->convolution_plans.reset();
    if (libraries->cudnn) kernels::check_cudnn(cudnnDestroy(libraries->cudnn), "cudnnDestroy");
#endif
  });
}
Status create_libraries(void** pointer, void* stream) noexcept {
  return status_of([=] {
    auto libraries = std::make_unique<CudaLibraries>();
    libraries->stream = static_cast<cudaStream_t>(stream);
#if defined(RETORT_HAVE_CUBLASLT)
    kernels::check_cublaslt(cublasLtCreate(&libraries->cublaslt), "cublasLtCreate");
#endif
    *pointer = libraries.release();
  });
}

void bind_all() {
#define RETORT_PLUGIN_FOLDER(folder) retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER
#define RETORT_PLUGIN_PROVIDER(name) retort_provide_##name();
#include "plugin_providers.inc"
#undef RETORT_PLUGIN_PROVIDER
}

}  // namespace
}  // namespace retort

#include "kernels/plugin/plugin_open.inc"
