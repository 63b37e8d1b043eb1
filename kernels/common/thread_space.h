// Working memory of CPU kernels.
#pragma once
#include <cstddef>

namespace retort::kernels {

/// `floats` floats of this thread, aligned to 128 bytes, kept for its next call: one kernel's at a
/// time. If it grows, what was in it is lost. Never uninitialised. Throws Error(kMemory).
float* thread_space(std::size_t floats);

}  // namespace retort::kernels
