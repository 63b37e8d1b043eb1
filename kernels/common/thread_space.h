// Working memory of CPU kernels.
#pragma once
#include <cstddef>

namespace retort::kernels {

/// `floats` floats of this thread, aligned to a cache line, kept for its next call: one kernel's at
/// a time. If it grows, what was in it is lost. Never uninitialised. Throws Error(kMemory).
float* thread_space(std::size_t floats);

/// Where that memory comes from: the engine puts its allocator here, which counts it as workspace.
/// get throws Error(kMemory); 64-byte aligned.
struct ThreadSpaceSource {
  void* (*get)(std::size_t bytes);
  void (*put)(void* block) noexcept;
};
void set_thread_space_source(const ThreadSpaceSource* source);

}  // namespace retort::kernels
