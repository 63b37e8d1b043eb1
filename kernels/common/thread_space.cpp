#include "kernels/common/thread_space.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "kernels/common/check.h"

namespace retort::kernels {
namespace {

constexpr ThreadSpaceSource kSystem{
    [](std::size_t bytes) {
      void* const block = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
      RETORT_CHECK_AS(kMemory, block != nullptr, "[thread_space] no memory for ", bytes, " bytes");
      return block;
    },
    [](void* block) noexcept { std::free(block); }};

std::atomic<const ThreadSpaceSource*> g_source = &kSystem;

struct Space {
  const ThreadSpaceSource* source = nullptr;
  void* block = nullptr;
  std::size_t floats = 0;

  Space() = default;
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;
  ~Space() { clear(); }
  void clear() noexcept {
    if (block != nullptr) source->put(block);
    block = nullptr;
    floats = 0;
  }
};

}  // namespace

void set_thread_space_source(const ThreadSpaceSource* source) { g_source = source; }

float* thread_space(std::size_t floats) {
  thread_local Space space;
  if (space.floats < floats) {
    space.clear();
    space.source = g_source;
    space.block = space.source->get(floats * sizeof(float));
    std::fill_n(static_cast<float*>(space.block), floats, 0.0f);
    space.floats = floats;
  }
  return static_cast<float*>(space.block);
}

}  // namespace retort::kernels
