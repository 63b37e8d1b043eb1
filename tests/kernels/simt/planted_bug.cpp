// Runs one kernel with a bug that only a sanitizer sees: the build's sanitizer must report it,
// which ctest expects in the output. "clean" runs correct kernels and must end in silence.
#include <cstdio>
#include <string>
#include <vector>

#include "tests/kernels/simt/cluster_bugs.cuh"
#include "tests/kernels/simt/fence_bugs.cuh"
#include "tests/kernels/simt/planted_bugs.cuh"

int main(int argc, char** argv) {
  using namespace retort::planted::SIMT_NS;
  namespace simt = retort::simt;
  const std::string bug = argc > 1 ? argv[1] : "";
  std::vector<float> buffer(1024, 0.f);
  float* const o = buffer.data();
  const auto go = [&](void (*kernel)(float*), unsigned grid, unsigned block) {
    simt::launch({bug.c_str(), grid, block}, kernel, o);
  };
  const auto pair = [&](void (*kernel)(float*)) {  // a cluster of two
    simt::launch({bug.c_str(), 2, 64, 0, nullptr, 2}, kernel, o);
  };
  alignas(16) static const float in[256] = {};
  const auto load = [&](void (*kernel)(const float*, float*)) {
    simt::launch({bug.c_str(), 1, 64}, kernel, in, o);
  };
  const auto last_block_of_16 = [&](Publish wrong) {
    unsigned ticket = 0;
    float result = 0;
    simt::launch({bug.c_str(), 16, 32}, last_block_wrong, o, &ticket, &result, wrong);
  };
  // Threads in order, so that the bug shows in the same way each time.
  simt::emu::config().schedule = simt::emu::Schedule::forward;
  if (bug == "shared_overflow") {
    go(shared_overflow, 1, 32);
  } else if (bug == "misaligned_vector") {
    go(misaligned_vector, 1, 1);
  } else if (bug == "global_overflow") {
    go(global_overflow, 1, 1);
  } else if (bug == "missing_barrier") {
    go(missing_barrier, 1, 64);
  } else if (bug == "missing_syncwarp") {
    go(missing_syncwarp, 1, 32);
  } else if (bug == "cross_block_race") {
    go(cross_block_race, 8, 32);
  } else if (bug == "missing_threadfence") {
    last_block_of_16(Publish::no_fence);
  } else if (bug == "threadfence_of_the_block") {
    last_block_of_16(Publish::block_fence);
  } else if (bug == "missing_threadfence_after") {
    last_block_of_16(Publish::no_fence_after);
  } else if (bug == "remote_overflow") {
    pair(remote_overflow);
  } else if (bug == "reads_after_exit") {
    pair(reads_after_exit);
  } else if (bug == "remote_read_without_a_barrier") {
    pair(remote_read_without_a_barrier);
  } else if (bug == "block_barrier_instead_of_the_cluster_s") {
    pair(block_barrier_instead_of_the_cluster_s);
  } else if (bug == "tile_read_before_the_wait") {
    load(tile_read_before_the_wait);
  } else if (bug == "tile_overwrites_what_is_read") {
    load(tile_overwrites_what_is_read);
  } else if (bug == "tile_past_the_source") {
    std::vector<float> small(128);
    simt::launch({bug.c_str(), 1, 64}, tile_load_of, small.data(), o, 1024u);
  } else if (bug == "clean") {
    simt::emu::config().schedule = simt::emu::Schedule::random;  // groups between each other
    for (unsigned seed = 1; seed <= 20; ++seed) {
      simt::emu::config().seed = seed;
      go(groups_meet_apart, 1, 8);
      for (unsigned i = 0; i < 8; ++i)
        if (o[i] != static_cast<float>((i & ~3u) + (i + 1) % 4)) return 1;
    }
    simt::launch({"cluster_sum", 16, 64, 0, nullptr, 8}, cluster_sum, o);
    if (o[1023] != 512.f * 511.f / 2) return 1;
    simt::launch({"tile_load_of", 1, 64}, tile_load_of, in, o, 1024u);
    o[0] = 0;
    go(cross_block_atomic, 8, 32);
    unsigned ticket = 0;
    float result = 0;
    simt::launch({"last_block", 16, 32}, last_block, o, &ticket, &result);
    if (result != 136.f) return 1;
  } else {
    std::fprintf(stderr, "usage: planted_bug NAME\n");
    return 2;
  }
  std::puts("finished");
  return 0;
}
