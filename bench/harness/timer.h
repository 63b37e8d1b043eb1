// Times work on a device: CUDA events where the device is CUDA, the steady clock on the CPU.
#pragma once
#include <cstdint>
#include <functional>

#include "kernels/common/context.h"

namespace retort::bench {

double now_ms();

class Timer {
 public:
  explicit Timer(Device device);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Milliseconds that the work enqueued by f took. The device is idle before and after.
  double time(const std::function<void()>& f);

 private:
  Device device_;
  void* begin_ = nullptr;  // CUDA events; null on the CPU
  void* end_ = nullptr;
};

}  // namespace retort::bench
