// Devices, their contexts and the CUDA plug-in's loading.
#pragma once
#include <string>

#include "kernels/common/context.h"
#include "kernels/common/cuda_runtime.h"

namespace retort {

/// True if a CUDA plug-in could be loaded and it has at least one device. Loads it on the first
/// call: from RETORT_CUDA_LIBRARY if set, else libretort_cuda.so beside libretort. Never throws.
bool cuda_available();

/// The plain sentence that says why cuda_available() is false ("" when it is true).
std::string cuda_unavailable_reason();
/// What is wrong with a plug-in that is there, or that RETORT_CUDA_LIBRARY names: somebody wanted it.
/// "" where it is whole or there is none.
std::string cuda_plugin_problem();

/// Name, memory, driver of the CUDA device in use. Throws Error(kDevice) if there is none.
DeviceInfo cuda_device_info();

/// "auto" -> kCuda if available else kCpu; "cpu"; "cuda" (throws Error(kDevice) with the reason if
/// there is none).
Device parse_device(const std::string& text);

/// The context that ops on this device use in this thread: its stream, handles and scratch.
/// Throws Error(kDevice) for kCuda without a CUDA backend.
const Context& context_of(Device device);

/// f32 products on CUDA may use TF32 from now on in this thread. Off by default.
void set_allow_tf32(bool allow);

/// Waits for all work of this thread's context on the device. Nothing to do on the CPU.
void synchronize(Device device);

/// Copies bytes between devices and waits until both ends may be used.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device,
                std::size_t bytes);

}  // namespace retort
