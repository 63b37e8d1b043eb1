// What a test of wgmma asks first.
#pragma once
#include <string>

#include "engine/runtime/device.h"

namespace retort::test {

/// Why wgmma cannot run on the CUDA device; "" if it can. It is of compute capability 9.0 alone;
/// the emulator has it always.
inline std::string wgmma_unavailable_reason() {
  if (!cuda_available()) return "no CUDA backend: " + cuda_unavailable_reason();
  const DeviceInfo info = cuda_device_info();
  if (info.emulated || info.capability == 90) return "";
  return "wgmma needs compute capability 9.0, the device has " + std::to_string(info.capability);
}

}  // namespace retort::test
