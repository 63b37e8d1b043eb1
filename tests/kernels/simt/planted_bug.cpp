// Runs one kernel with a bug that only a sanitizer sees: the build's sanitizer must report it,
// which ctest expects in the output. "clean" runs correct kernels and must end in silence.
#include <cstdio>
#include <string>
#include <vector>

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
  } else if (bug == "clean") {
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
