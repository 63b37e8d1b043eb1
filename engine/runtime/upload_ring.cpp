#include "engine/runtime/upload_ring.h"

#include "engine/runtime/allocator.h"
#include "engine/runtime/thread_context.h"

namespace retort {

UploadRing::UploadRing(Device device, std::size_t bytes, int slots) : bytes_(bytes) {
  const MemoryRoleScope role(MemoryRole::kWorkspace);
  block_ = Tensor::zeros({static_cast<std::int64_t>(bytes)}, DType::kU8, device);
  if (device == Device::kCpu) return;  // the block itself is host memory
  slots_.resize(static_cast<std::size_t>(slots));
  for (Slot& slot : slots_) {
    check(cuda_runtime.allocate_pinned(&slot.memory, bytes), "upload");
    check(cuda_runtime.create_event(&slot.event), "upload");
  }
}

UploadRing::~UploadRing() {
  for (Slot& slot : slots_) {
    if (slot.in_flight) static_cast<void>(cuda_runtime.synchronize_event(slot.event));
    if (slot.event) static_cast<void>(cuda_runtime.destroy_event(slot.event));
    if (slot.memory) static_cast<void>(cuda_runtime.release_pinned(slot.memory));
  }
}

void* UploadRing::host() {
  if (slots_.empty()) return block_.raw();
  Slot& slot = slots_[next_];
  if (slot.in_flight) check(cuda_runtime.synchronize_event(slot.event), "upload");
  slot.in_flight = false;
  return slot.memory;
}

void UploadRing::upload() {
  if (slots_.empty()) return;
  Slot& slot = slots_[next_];
  void* const stream = context_of(block_.device()).stream;
  check(cuda_runtime.copy(block_.raw(), slot.memory, bytes_, CopyKind::kHostToDevice, stream),
        "upload");
  check(cuda_runtime.record_event(slot.event, stream), "upload");
  slot.in_flight = true;
  next_ = (next_ + 1) % slots_.size();
}

}  // namespace retort
