// A small block of memory that the host replaces before each step without waiting for the device.
#pragma once
#include <cstddef>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort {

/// One block on the device, at an address that stays, and a few blocks of pinned host memory that
/// are copied to it in turn. A host block is written again only when its copy is over, so the host
/// runs ahead of the device by as many steps as there are blocks and never further.
class UploadRing {
 public:
  UploadRing(Device device, std::size_t bytes, int slots = 8);
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  /// The host block to fill next. Waits if its last copy is still under way.
  void* host();
  /// Enqueues the copy of that block to the device, on this thread's stream.
  void upload();
  const Tensor& device_block() const { return block_; }  // u8 (bytes)

 private:
  struct Slot {
    void* memory = nullptr;
    void* event = nullptr;
    bool in_flight = false;
  };
  Tensor block_;
  std::vector<Slot> slots_;
  std::size_t next_ = 0, bytes_;
};

}  // namespace retort
