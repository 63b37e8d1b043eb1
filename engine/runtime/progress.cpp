#include "engine/runtime/progress.h"

#include <atomic>

#include "kernels/common/parallel.h"

namespace retort {
namespace {

std::atomic<std::int64_t> g_pieces{0};

}  // namespace

void note_progress() noexcept { g_pieces.fetch_add(1, std::memory_order_relaxed); }
std::int64_t progress() noexcept {
  return g_pieces.load(std::memory_order_relaxed) + chunks_begun();
}

}  // namespace retort
