// The emulated plug-in: the CUDA backend with the SIMT emulator in place of the GPU. "Device
// memory" is host memory, streams are synchronous, every hand-written kernel runs from its own
// source and launch configuration. It exists for tests; products load it only when
// RETORT_CUDA_LIBRARY names it.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/common/cuda_runtime.h"
#include "retort_abi_hash.h"

#define RETORT_PLUGIN_FOLDER(folder) extern "C" void retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER

namespace retort {
namespace {

using Clock = std::chrono::steady_clock;

Status refuse(ErrorCode code, const char* text) {
  Status status;
  status.code = code;
  std::snprintf(status.message, sizeof status.message, "%s", text);
  return status;
}

Status device_count(int* count) noexcept {
  *count = 1;
  return {};
}
Status select_device(int device) noexcept {
  return device == 0 ? Status{}
                     : refuse(ErrorCode::kDevice, "the emulator has one device, number 0");
}
Status describe(int, DeviceInfo* info) noexcept {
  *info = DeviceInfo{};
  std::snprintf(info->name, sizeof info->name, "emulated (CPU)");
  std::snprintf(info->libraries, sizeof info->libraries, "none");
  info->emulated = true;
  info->multiprocessors = 1;
  return {};
}
Status allocate(void** pointer, std::size_t bytes) noexcept {
  // Exact size, so that AddressSanitizer sees the first byte past the end.
  return posix_memalign(pointer, 256, bytes == 0 ? 1 : bytes) == 0
             ? Status{}
             : refuse(ErrorCode::kMemory, "out of memory (emulated device)");
}
Status release(void* pointer) noexcept {
  std::free(pointer);
  return {};
}
Status copy(void* to, const void* from, std::size_t bytes, CopyKind, void*) noexcept {
  std::memcpy(to, from, bytes);
  return {};
}
Status fill(void* to, int byte, std::size_t bytes, void*) noexcept {
  std::memset(to, byte, bytes);
  return {};
}
Status create_stream(void** stream) noexcept {
  *stream = nullptr;
  return {};
}
Status nothing(void*) noexcept { return {}; }
Status create_event(void** event) noexcept {
  *event = new (std::nothrow) Clock::time_point();
  return *event ? Status{} : refuse(ErrorCode::kMemory, "out of memory");
}
Status destroy_event(void* event) noexcept {
  delete static_cast<Clock::time_point*>(event);
  return {};
}
Status record_event(void* event, void*) noexcept {
  *static_cast<Clock::time_point*>(event) = Clock::now();
  return {};
}
Status elapsed_ms(float* ms, void* from, void* to) noexcept {
  *ms = std::chrono::duration<float, std::milli>(*static_cast<Clock::time_point*>(to) -
                                                 *static_cast<Clock::time_point*>(from))
            .count();
  return {};
}
Status create_libraries(void** libraries, void*) noexcept {
  *libraries = nullptr;
  return {};
}

Status open(CudaRuntime* r) noexcept {
  *r = CudaRuntime{device_count, select_device,    describe,     allocate,      release,
                   allocate,     release,          copy,         fill,          create_stream,
                   nothing,      nothing,          create_event, destroy_event, record_event,
                   elapsed_ms,   create_libraries, nothing};
#define RETORT_PLUGIN_FOLDER(folder) retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER
  return {};
}

const PluginInfo kInfo{RETORT_ABI_HASH, open};

}  // namespace
}  // namespace retort

extern "C" __attribute__((visibility("default"))) const retort::PluginInfo* retort_plugin() {
  return &retort::kInfo;
}
