// What a thread has of a device: its streams, handles and scratch. Internal to this folder.
#pragma once
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort {

/// Throws Error "[what] message" unless the status is good.
void check(const Status& status, const char* what);

/// One growing block. A larger request releases the old block; on CUDA the allocator's cache keeps
/// it valid for work already enqueued on this stream.
class GrowingScratch final : public Scratch {
 public:
  explicit GrowingScratch(Device device) : device_(device) {}
  ~GrowingScratch() { release(device_, block_); }
  GrowingScratch(const GrowingScratch&) = delete;
  GrowingScratch& operator=(const GrowingScratch&) = delete;
  void* get(std::size_t bytes) override {
    if (bytes > size_) {
      release(device_, block_);
      block_ = nullptr;
      size_ = 0;
      const MemoryRoleScope role(MemoryRole::kWorkspace);
      block_ = allocate(device_, bytes);
      size_ = bytes;
    }
    return block_;
  }

 private:
  Device device_;
  void* block_ = nullptr;
  std::size_t size_ = 0;
};

struct ThreadContext {
  explicit ThreadContext(Device device);
  // Streams and handles of CUDA live as long as the process: the driver may be gone when thread
  // destructors run, and such threads are few.
  Context context;
  GrowingScratch scratch;
  void* event = nullptr;  // CUDA: for ordering the two streams
};

/// The streams of a thread: ops use the main one, or within an OnSideStream the side one.
enum class Lane : std::uint8_t { kMain, kSide };
ThreadContext& cuda_context(Lane lane);  // made at first use
void set_lane(Lane lane);

}  // namespace retort
