// The emulated plug-in: the CUDA backend with the SIMT emulator in place of the GPU. "Device
// memory" is host memory, streams are synchronous, every hand-written kernel runs from its own
// source and launch configuration. It exists for tests; products load it only when
// RETORT_CUDA_LIBRARY names it.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "kernels/common/plugin.h"
#include "kernels/plugin/emulated_graph.h"
#include "retort_abi_hash.h"

#define RETORT_PLUGIN_FOLDER(folder) extern "C" void retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER

namespace retort {
namespace {

using emulated::Capture;
using emulated::Event;
using emulated::Graph;
using emulated::NodeKind;
using emulated::Stream;
using Clock = std::chrono::steady_clock;

thread_local Capture* t_capture = nullptr;

// Pinned blocks: a captured copy may name no other host memory.
class PinnedBlocks {
 public:
  void add(const void* pointer, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    blocks_[static_cast<const char*>(pointer)] = bytes;
  }
  void remove(const void* pointer) {
    const std::lock_guard lock(mutex_);
    blocks_.erase(static_cast<const char*>(pointer));
  }
  bool holds(const void* pointer, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const char* const p = static_cast<const char*>(pointer);
    auto after = blocks_.upper_bound(p);
    if (after == blocks_.begin()) return false;
    --after;
    return p + bytes <= after->first + after->second;
  }

 private:
  std::mutex mutex_;
  std::map<const char*, std::size_t> blocks_;
};
PinnedBlocks& pinned() {
  static PinnedBlocks* const blocks = new PinnedBlocks();
  return *blocks;
}

void refuse_while_capturing(const char* what) {
  if (t_capture) t_capture->refuse(what);
}

Status device_count(int* count) noexcept {
  *count = 1;
  return {};
}
Status select_device(int device) noexcept {
  return status_of(
      [=] { RETORT_CHECK_AS(kDevice, device == 0, "the emulator has one device, number 0"); });
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
  return status_of([=] {
    refuse_while_capturing("memory from the driver");
    // Exact size, so that AddressSanitizer sees the first byte past the end.
    RETORT_CHECK_AS(kMemory, posix_memalign(pointer, 256, bytes == 0 ? 1 : bytes) == 0,
                    "out of memory (emulated device)");
  });
}
Status release(void* pointer) noexcept {
  return status_of([=] {
    refuse_while_capturing("memory given back to the driver");
    std::free(pointer);
  });
}
Status allocate_pinned(void** pointer, std::size_t bytes) noexcept {
  const Status status = allocate(pointer, bytes);
  if (status.code == ErrorCode::kOk) pinned().add(*pointer, bytes);
  return status;
}
Status release_pinned(void* pointer) noexcept {
  pinned().remove(pointer);
  return release(pointer);
}

Status copy(void* to, const void* from, std::size_t bytes, CopyKind kind, void* stream) noexcept {
  return status_of([=] {
    if (t_capture == nullptr) {
      std::memcpy(to, from, bytes);
      return;
    }
    const void* const host = kind == CopyKind::kHostToDevice   ? from
                             : kind == CopyKind::kDeviceToHost ? to
                                                               : nullptr;
    if (host != nullptr && !pinned().holds(host, bytes))
      t_capture->refuse(join("a copy of ", bytes, " bytes ",
                             kind == CopyKind::kHostToDevice ? "from" : "to",
                             " pageable host memory"));
    t_capture->add(NodeKind::kCopy, stream, [=] { std::memcpy(to, from, bytes); });
  });
}
Status fill(void* to, int byte, std::size_t bytes, void* stream) noexcept {
  return status_of([=] {
    if (t_capture)
      t_capture->add(NodeKind::kFill, stream, [=] { std::memset(to, byte, bytes); });
    else
      std::memset(to, byte, bytes);
  });
}

Status create_stream(void** stream) noexcept {
  return status_of([=] { *stream = new Stream(); });
}
Status destroy_stream(void* stream) noexcept {
  delete static_cast<Stream*>(stream);
  return {};
}
Status synchronize(void*) noexcept {
  return status_of([] { refuse_while_capturing("waiting for the device"); });
}

Status create_event(void** event) noexcept {
  return status_of([=] { *event = new Event(); });
}
Status destroy_event(void* event) noexcept {
  delete static_cast<Event*>(event);
  return {};
}
Status record_event(void* pointer, void* stream) noexcept {
  return status_of([=] {
    Event& event = *static_cast<Event*>(pointer);
    event.time = Clock::now();
    event.capture = nullptr;
    if (t_capture) t_capture->record_event(event, stream);
  });
}
Status elapsed_ms(float* ms, void* from, void* to) noexcept {
  return status_of([=] {
    refuse_while_capturing("waiting for an event");
    *ms = std::chrono::duration<float, std::milli>(static_cast<Event*>(to)->time -
                                                   static_cast<Event*>(from)->time)
              .count();
  });
}
Status synchronize_event(void*) noexcept {
  return status_of([] { refuse_while_capturing("waiting for an event"); });
}
Status wait_event(void* stream, void* event) noexcept {
  return status_of([=] {
    if (t_capture) t_capture->wait_event(stream, *static_cast<Event*>(event));
  });
}

Status create_libraries(void** libraries, void*) noexcept {
  *libraries = nullptr;
  return {};
}
Status destroy_libraries(void*) noexcept { return {}; }

Status begin_capture(void* stream) noexcept {
  return status_of([=] {
    RETORT_CHECK_AS(kDevice, t_capture == nullptr, "this thread captures already");
    t_capture = new Capture();
    t_capture->origin = static_cast<Stream*>(stream);
    t_capture->last[t_capture->origin] = {};
    simt::t_recorder = t_capture;
    simt::t_last_launch = nullptr;
  });
}
Status end_capture(void* stream, void** graph) noexcept {
  return status_of([=] {
    RETORT_CHECK_AS(kDevice, t_capture != nullptr, "this thread captures nothing");
    const std::unique_ptr<Capture> capture(std::exchange(t_capture, nullptr));
    simt::t_recorder = nullptr;
    if (graph == nullptr) return;
    RETORT_CHECK_AS(kDevice, stream == capture->origin, "the capture began on another stream");
    RETORT_CHECK_AS(kDevice, capture->violation.empty(), capture->violation);
    RETORT_CHECK_AS(kDevice, capture->joined(), simt::kForkNotJoined);
    *graph = capture->graph.release();
  });
}
Status describe_graph(void* graph, GraphInfo* info) noexcept {
  *info = static_cast<Graph*>(graph)->info();
  return {};
}
Status launch_graph(void* graph, void*) noexcept {
  return status_of([=] {
    refuse_while_capturing("the launch of a graph");
    static_cast<Graph*>(graph)->replay();
  });
}
Status destroy_graph(void* graph) noexcept {
  delete static_cast<Graph*>(graph);
  return {};
}
std::uint64_t launches() noexcept { return simt::g_launches.load(std::memory_order_relaxed); }

void bind_all() {
#define RETORT_PLUGIN_FOLDER(folder) retort_bind_##folder();
#include "plugin_folders.inc"
#undef RETORT_PLUGIN_FOLDER
}

}  // namespace
}  // namespace retort

#include "kernels/plugin/plugin_open.inc"
