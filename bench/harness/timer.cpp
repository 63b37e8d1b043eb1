#include "bench/harness/timer.h"

#include <chrono>

#include "engine/runtime/device.h"

namespace retort::bench {
namespace {

void check(const Status& status) {
  if (status.code != ErrorCode::kOk) throw Error(status.code, join("[timer] ", status.message));
}

}  // namespace

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Timer::Timer(Device device) : device_(device) {
  if (device != Device::kCuda) return;
  context_of(device);  // loads the plug-in and creates the stream
  check(cuda_runtime.create_event(&begin_));
  check(cuda_runtime.create_event(&end_));
}

Timer::~Timer() {
  if (begin_) cuda_runtime.destroy_event(begin_);
  if (end_) cuda_runtime.destroy_event(end_);
}

double Timer::time(const std::function<void()>& f) {
  if (device_ == Device::kCpu) {
    const double begin = now_ms();
    f();
    return now_ms() - begin;
  }
  void* const stream = context_of(device_).stream;
  synchronize(device_);
  check(cuda_runtime.record_event(begin_, stream));
  f();
  check(cuda_runtime.record_event(end_, stream));
  float ms = 0;
  check(cuda_runtime.elapsed_ms(&ms, begin_, end_));  // waits for end_
  return static_cast<double>(ms);
}

}  // namespace retort::bench
