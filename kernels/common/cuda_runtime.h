// The part of the CUDA runtime that the engine needs, as function pointers: empty until a plug-in
// fills them. Nothing here includes a CUDA header.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/common/dispatch.h"

namespace retort {

enum class CopyKind : std::uint8_t { kHostToDevice, kDeviceToHost, kDeviceToDevice };

struct DeviceInfo {
  char name[128] = {};  // "NVIDIA H200", or "emulated"
  int capability = 0;   // 90 for sm_90; 0 when emulated
  int multiprocessors = 0;
  std::size_t memory_bytes = 0;
  std::size_t free_bytes = 0;
  int driver_version = 0;  // 13000 for 13.0; 0: no driver
  int runtime_version = 0;
  char libraries[192] = {};  // "cuBLASLt 13.1, cuDNN 9.19"
  bool emulated = false;     // kernels run on the CPU emulator
};

/// What a captured graph holds.
struct GraphInfo {
  int kernels = 0, copies = 0, fills = 0, others = 0;
};

/// Every function enqueues on `stream` where it takes one and returns a Status; none throws.
/// Copies from or to pageable host memory return when the host memory may be reused.
struct CudaRuntime {
  Status (*device_count)(int* count) noexcept = nullptr;
  Status (*select_device)(int device) noexcept = nullptr;
  Status (*describe)(int device, DeviceInfo* info) noexcept = nullptr;
  Status (*allocate)(void** pointer, std::size_t bytes) noexcept = nullptr;
  Status (*release)(void* pointer) noexcept = nullptr;
  Status (*allocate_pinned)(void** pointer, std::size_t bytes) noexcept = nullptr;
  Status (*release_pinned)(void* pointer) noexcept = nullptr;
  Status (*copy)(void* to, const void* from, std::size_t bytes, CopyKind kind,
                 void* stream) noexcept = nullptr;
  Status (*fill)(void* to, int byte, std::size_t bytes, void* stream) noexcept = nullptr;
  Status (*create_stream)(void** stream) noexcept = nullptr;
  Status (*destroy_stream)(void* stream) noexcept = nullptr;
  Status (*synchronize)(void* stream) noexcept = nullptr;
  Status (*create_event)(void** event) noexcept = nullptr;
  Status (*destroy_event)(void* event) noexcept = nullptr;
  Status (*record_event)(void* event, void* stream) noexcept = nullptr;
  Status (*elapsed_ms)(float* ms, void* from, void* to) noexcept = nullptr;  // waits for `to`
  Status (*synchronize_event)(void* event) noexcept = nullptr;               // waits for the event
  Status (*wait_event)(void* stream, void* event) noexcept = nullptr;  // later work waits for it
  Status (*create_libraries)(void** libraries, void* stream) noexcept = nullptr;
  Status (*destroy_libraries)(void* libraries) noexcept = nullptr;

  // Graphs. Between begin_capture and end_capture work that this thread enqueues on the stream, and
  // on streams that wait for its events, is recorded and not run. What cannot be replayed is an
  // error that names the launch before it: to wait for the device, memory from or to the driver, a
  // copy from or to pageable host memory. end_capture then fails too, and nothing has run.
  Status (*begin_capture)(void* stream) noexcept = nullptr;
  // A graph ready to launch. graph null: drops what was captured.
  Status (*end_capture)(void* stream, void** graph) noexcept = nullptr;
  Status (*describe_graph)(void* graph, GraphInfo* info) noexcept = nullptr;
  Status (*launch_graph)(void* graph, void* stream) noexcept = nullptr;
  Status (*destroy_graph)(void* graph) noexcept = nullptr;
  /// Launches of hand-written kernels so far (a library's are not counted; replays neither).
  std::uint64_t (*launches)() noexcept = nullptr;
};
extern CudaRuntime cuda_runtime;

/// What the plug-in exports as `extern "C" const PluginInfo* retort_plugin()`.
struct PluginInfo {
  const char* abi_hash;                           // of all headers under kernels/; must equal ours
  Status (*open)(CudaRuntime* runtime) noexcept;  // fills runtime and binds every op
};
using PluginEntry = const PluginInfo* (*)();

}  // namespace retort
