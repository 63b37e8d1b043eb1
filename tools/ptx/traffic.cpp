// What a warp's access costs: sectors of global memory, passes over the banks of shared memory.
//
// Global memory moves in sectors of 32 bytes. Shared memory has 32 banks of 4 bytes; a pass serves
// one word of each. 8-byte accesses go by halves of the warp, 16-byte ones by quarters, and lanes
// that want the same word share it. The least takes the lanes to want different bytes: a broadcast
// costs less, and counts below 1.
#include <algorithm>
#include <iterator>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
u64 sectors(u32 m, u32 bytes, const u64 (&at)[32]) {
  u64 seen[64];
  u32 n = 0;
  each(m, [&](u32 l) {
    for (u64 s = at[l] / 32; s <= (at[l] + bytes - 1) / 32; ++s) seen[n++] = s;
  });
  std::sort(seen, seen + n);
  return static_cast<u64>(std::unique(seen, seen + n) - seen);
}

// Different words of the busiest bank.
u64 passes(u32 m, u32 bytes, const u64 (&at)[32]) {
  u64 words[32];
  u32 n = 0;
  each(m, [&](u32 l) {
    for (u64 word = at[l] / 4; word <= (at[l] + bytes - 1) / 4 && n < 32; ++word) words[n++] = word;
  });
  std::sort(words, words + n);
  n = static_cast<u32>(std::unique(words, words + n) - words);
  u8 count[32] = {};
  u8 most = 0;
  for (u32 k = 0; k < n; ++k) most = std::max(most, ++count[words[k] % 32]);
  return most;
}
}  // namespace

void count_traffic(Warp& w, const Inst& i, Space space, u32 m, u32 bytes, const u64 (&at)[32]) {
  if (space != kGlobal && space != kShared) return;
  Traffic& t = w.machine->f->traffic[static_cast<std::size_t>(&i - w.machine->f->code.data())];
  ++t.requests;
  if (space == kGlobal) {
    t.units += sectors(m, bytes, at);
    t.least += (static_cast<u32>(std::popcount(m)) * bytes + 31) / 32;
    return;
  }
  const u32 group = bytes <= 4 ? 32 : 128 / bytes;
  for (u32 first = 0; first < 32; first += group) {
    const u32 part = m & (group == 32 ? ~0u : ((1u << group) - 1) << first);
    if (part == 0) continue;
    t.units += passes(part, bytes, at);
    ++t.least;
  }
}
}  // namespace retort::ptx
