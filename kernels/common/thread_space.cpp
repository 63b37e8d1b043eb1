#include "kernels/common/thread_space.h"

#include <algorithm>

#include "hwy/aligned_allocator.h"
#include "kernels/common/check.h"

namespace retort::kernels {

float* thread_space(std::size_t floats) {
  thread_local hwy::AlignedFreeUniquePtr<float[]> space;
  thread_local std::size_t size = 0;
  if (size < floats) {
    space = nullptr;
    size = 0;
    space = hwy::AllocateAligned<float>(floats);
    RETORT_CHECK_AS(kMemory, space != nullptr, "[thread_space] no memory for ", floats, " floats");
    std::fill_n(space.get(), floats, 0.0f);
    size = floats;
  }
  return space.get();
}

}  // namespace retort::kernels
