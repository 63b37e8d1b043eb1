// Races in global memory: between the threads of a block as in shared memory, and between the blocks
// of a launch. Blocks may run in any order and at the same
// time: what one writes, another may touch only if the writer's block fenced (membar.gl) after the
// write and the other block has made an atomic access before, as in "the last block to count adds up
// what the others wrote". Which atomic it was is not asked, and blocks of one cluster, which have a
// barrier, are taken for one.
#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
constexpr u32 kSeveral = ~0u;  // readers
}

void publish_global(Warp& w) {
  if (w.machine->options.global) ++w.machine->global_fences[w.block->number];
}

void note_global(Warp& w, u32 lane, u64 address, u32 bytes, bool write) {
  Machine& machine = *w.machine;
  const u32 block = w.block->number, cluster = machine.launch->cluster;
  const auto other = [&](u32 touched) {
    return touched != 0 && touched != block + 1 && (touched - 1) / cluster != block / cluster;
  };
  const u16 me = static_cast<u16>(w.thread(lane) + 1);
  const auto refuse_inside = [&](const char* what, const Access& a) {
    machine.hazard(w, lane,
                   std::string("race: this ") + (write ? "write" : "read") +
                       " of global memory and a " + what + " by " + who(a.thread) +
                       " of the same block without a barrier between them");
  };
  const auto refuse = [&](const char* what, u32 touched) {
    machine.hazard(w, lane,
                   std::string("race between blocks: this ") + (write ? "write" : "read") +
                       " of global memory and a " + what + " by " +
                       (touched == kSeveral ? std::string("several blocks")
                                            : "block " + std::to_string(touched - 1)) +
                       " of the grid");
  };
  GlobalPage* page = nullptr;
  u64 at = ~u64{0};
  for (u64 k = address; k < address + bytes; ++k) {
    if (k / 4096 != at) {
      at = k / 4096;
      auto& place = machine.global_pages[at];
      if (!place) place = std::make_unique<GlobalPage>();
      page = place.get();
    }
    GlobalAccess& x = (*page)[k % 4096];
    if (x.launch != machine.launch_number) x = {0, 0, machine.launch_number, 0, {}, {}};
    const bool wrote = x.writer == block + 1, read = x.reader == block + 1;
    if (wrote && x.write.thread != me && same_time(w, x.write)) refuse_inside("write", x.write);
    if (write && read && x.read.thread != me && same_time(w, x.read)) refuse_inside("read", x.read);
    if (other(x.writer) && !(w.block->counted && machine.global_fences[x.writer - 1] != x.fences))
      refuse("write", x.writer);
    if (write) {
      if (other(x.reader) && !w.block->counted) refuse("read", x.reader);
      x.writer = block + 1;
      x.fences = machine.global_fences[block];
      x.write = {w.epoch, me, 0};
    } else {
      if (!read) x.read = {};
      note_read(w, lane, x.read);
      x.reader = x.reader == 0 || !other(x.reader) ? block + 1 : kSeveral;
    }
  }
}
}  // namespace retort::ptx
