#include "engine/runtime/device.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/runtime/plugin_file.h"
#include "engine/runtime/progress.h"
#include "engine/runtime/thread_context.h"

namespace retort {

CudaRuntime cuda_runtime;

namespace {

struct Plugin {
  bool available = false;
  std::string reason;
  bool broken = false;  // it is there, or is named
};

Plugin load_plugin() {
  const char* named = std::getenv("RETORT_CUDA_LIBRARY");
  const std::string path = named && *named ? named : library_folder() + "/libretort_cuda.so";
  if (std::string problem = open_plugin(path, &cuda_runtime); !problem.empty()) {
    std::error_code absent;
    return {false, std::move(problem), (named && *named) || std::filesystem::exists(path, absent)};
  }
  int count = 0;
  if (const Status status = cuda_runtime.device_count(&count); status.code != ErrorCode::kOk)
    return {false, status.message};
  if (count == 0) return {false, "no CUDA device"};
  return {true, ""};
}

const Plugin& plugin() {
  static const Plugin loaded = load_plugin();
  return loaded;
}

thread_local Lane t_lane = Lane::kMain;

Context& mutable_context(Device device) {
  if (device == Device::kCpu) {
    thread_local ThreadContext cpu(Device::kCpu);
    return cpu.context;
  }
  if (!cuda_available())
    fail(ErrorCode::kDevice, "[device] CUDA was asked for, but there is ", plugin().reason);
  return cuda_context(t_lane).context;
}

}  // namespace

void check(const Status& status, const char* what) {
  if (status.code != ErrorCode::kOk)
    throw Error(status.code, join("[", what, "] ", status.message));
}

ThreadContext::ThreadContext(Device device) : scratch(device) {
  context.device = device;
  context.scratch = &scratch;
  if (device == Device::kCuda) {
    check(cuda_runtime.select_device(0), "device");
    check(cuda_runtime.create_stream(&context.stream), "device");
    check(cuda_runtime.create_libraries(&context.libraries, context.stream), "device");
    check(cuda_runtime.create_event(&event), "device");
  }
}

ThreadContext& cuda_context(Lane lane) {
  thread_local ThreadContext* lanes[2] = {};
  ThreadContext*& context = lanes[static_cast<int>(lane)];
  if (context == nullptr) context = new ThreadContext(Device::kCuda);
  return *context;
}
void set_lane(Lane lane) { t_lane = lane; }

bool cuda_available() { return plugin().available; }
std::string cuda_unavailable_reason() { return plugin().reason; }
std::string cuda_plugin_problem() { return plugin().broken ? plugin().reason : ""; }

DeviceInfo cuda_device_info() {
  context_of(Device::kCuda);
  DeviceInfo info;
  check(cuda_runtime.describe(0, &info), "device");
  return info;
}

Device parse_device(const std::string& text) {
  if (text == "cpu") return Device::kCpu;
  if (text == "auto") return cuda_available() ? Device::kCuda : Device::kCpu;
  RETORT_CHECK(text == "cuda", "[device] expected auto, cpu or cuda, got '", text, "'");
  context_of(Device::kCuda);
  return Device::kCuda;
}

// Every op asks, so every op is a piece of progress.
const Context& context_of(Device device) {
  note_progress();
  return mutable_context(device);
}

void set_allow_tf32(bool allow) {
  if (cuda_available()) mutable_context(Device::kCuda).allow_tf32 = allow;
}

void synchronize(Device device) {
  if (device == Device::kCuda)
    check(cuda_runtime.synchronize(context_of(device).stream), "synchronize");
}

void copy_bytes(void* to, Device to_device, const void* from, Device from_device,
                std::size_t bytes) {
  if (bytes == 0) return;
  if (to_device == Device::kCpu && from_device == Device::kCpu) {
    std::memmove(to, from, bytes);
    return;
  }
  const CopyKind kind = to_device == Device::kCpu     ? CopyKind::kDeviceToHost
                        : from_device == Device::kCpu ? CopyKind::kHostToDevice
                                                      : CopyKind::kDeviceToDevice;
  void* const stream = context_of(Device::kCuda).stream;
  check(cuda_runtime.copy(to, from, bytes, kind, stream), "copy");
  if (kind != CopyKind::kDeviceToDevice) check(cuda_runtime.synchronize(stream), "copy");
}

}  // namespace retort
