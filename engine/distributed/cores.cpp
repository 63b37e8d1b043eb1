#include "engine/distributed/cores.h"

#include <sched.h>

#include <algorithm>
#include <bit>
#include <thread>

namespace retort {

CoreMask own_cores() {
  CoreMask mask{};
  const auto add = [&](int core) {
    mask[static_cast<std::size_t>(core / 64)] |= std::uint64_t{1} << core % 64;
  };
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int core = 0; core < 1024; ++core)
      if (CPU_ISSET(core, &allowed)) add(core);
  } else {  // a machine with more cores than the set has room for
    const int n = static_cast<int>(std::min(1024u, std::thread::hardware_concurrency()));
    for (int core = 0; core < n; ++core) add(core);
  }
  return mask;
}

int count_cores(const CoreMask& mask) {
  int n = 0;
  for (const std::uint64_t bits : mask) n += std::popcount(bits);
  return n;
}

int threads_per_rank(const CoreMask& mine, std::span<const CoreMask> on_node) {
  int sharers = 0;
  for (const CoreMask& other : on_node) {
    bool shared = false;
    for (std::size_t i = 0; i < mine.size(); ++i) shared = shared || (mine[i] & other[i]) != 0;
    sharers += shared ? 1 : 0;
  }
  return std::max(1, count_cores(mine) / std::max(1, sharers));
}

}  // namespace retort
