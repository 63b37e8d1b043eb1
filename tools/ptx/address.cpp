// Address spaces and what is checked about an access.
//
// Addresses: global memory has device pointers (kDeviceBias); shared memory is rank << 24 | place,
// as on sm_90, and its generic form has kSharedWindow added; local memory is a place in the
// thread's frame.
#include <iterator>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
Memory& memory() {
  static Memory* const m = new Memory();  // never destroyed: frees may come at exit
  return *m;
}
void Memory::add(u64 begin, std::size_t bytes, void* host) {
  map_[begin] = {begin, begin + bytes, static_cast<u8*>(host)};
}
bool Memory::remove(u64 begin) { return map_.erase(begin) != 0; }
const Allocation* Memory::find(u64 address) const {
  auto it = map_.upper_bound(address);
  if (it == map_.begin()) return nullptr;
  --it;
  return address < it->second.end ? &it->second : nullptr;
}
const Allocation* Memory::before(u64 address) const {
  const auto it = map_.upper_bound(address);
  return it == map_.begin() ? nullptr : &std::prev(it)->second;
}

namespace {
constexpr u16 kAsyncProxy = 0xffff;
}  // namespace

std::string who(u16 thread) {
  if (thread == kSeveralWarps) return "several warps";
  if (thread & 0x8000) return "warp " + std::to_string(thread & 0x7fff);
  return "thread " + std::to_string(thread - 1);
}

u8* shared_pointer(Warp& w, u32 lane, u32 address, u32 bytes, Block** owner) {
  const u32 rank = address >> 24, place = address & 0xff'ffff;
  Cluster& cluster = w.machine->cluster;
  if (rank >= cluster.blocks.size())
    fail(w, lane,
         "shared address " + hex(address) + ": no block " + std::to_string(rank) +
             " in the cluster");
  Block& block = cluster.blocks[rank];
  if (place < kSharedBase || place - kSharedBase + bytes > block.shared.size())
    fail(w, lane,
         "shared address " + hex(address) + " (" + std::to_string(bytes) +
             " bytes): the block has " + hex(kSharedBase) + " .. " +
             hex(kSharedBase + block.shared.size()));
  if (block.exited)
    fail(w, lane,
         "shared memory of block " + std::to_string(rank) + " of the cluster, which has exited");
  if (owner) *owner = &block;
  return block.shared.data() + (place - kSharedBase);
}

namespace {
// What note_shared does not see at a glance: accesses since the same barrier of the block.
[[gnu::noinline]] void note_close(Warp& w, u32 lane, Block& owner, u32 g, u32 bytes, bool write) {
  const bool remote = &owner != w.block;
  const u16 me = static_cast<u16>(w.thread(lane) + 1);
  const Access& a = owner.writes[g];
  Access& r = owner.reads[g];
  const bool races = !remote && bytes > 1;
  if (races && a.thread != me && same_time(w, a))
    w.machine->hazard(w, lane,
                      std::string("race: this ") + (write ? "write" : "read") +
                          " of shared memory at " + hex(kSharedBase + 2 * g) + " and a write by " +
                          who(a.thread) + " without a barrier between them");
  if (write) {
    if (races && r.thread != me && same_time(w, r))
      w.machine->hazard(w, lane,
                        "race: this write of shared memory at " + hex(kSharedBase + 2 * g) +
                            " and a read by " + who(r.thread) + " without a barrier between them");
    return;
  }
  if (a.thread == 0)
    w.machine->hazard(
        w, lane, "shared memory at " + hex(kSharedBase + 2 * g) + " is read before it was written",
        w.machine->options.strict);
  if (!remote) note_read(w, lane, r);
}

// An access that is not atomic, of words that others count in.
[[gnu::noinline]] void note_beside_atomics(Warp& w, u32 lane, const Block& owner, u32 first,
                                           u32 last, bool write) {
  for (u32 g = first; g <= last; ++g) {
    const Access& a = owner.atomics[g];
    if (a.thread == w.thread(lane) + 1 || !same_time(w, a)) continue;
    w.machine->hazard(w, lane,
                      std::string("race: this ") + (write ? "write" : "read") +
                          " of shared memory at " + hex(kSharedBase + 2 * g) +
                          " and an atomic access by " + who(a.thread) +
                          " without a barrier between them");
    return;
  }
}
}  // namespace

// Most accesses find the last write before the block's last barrier: nothing to ask, but who comes
// next will.
void note_shared(Warp& w, u32 lane, Block& owner, u32 offset, u32 bytes, bool write) {
  const bool remote = &owner != w.block;
  const u16 me = static_cast<u16>(w.thread(lane) + 1);
  const u32 first = offset / 2, last = (offset + bytes - 1) / 2, now = w.epoch >> 6;
  Access *const writes = owner.writes.data(), *const reads = owner.reads.data();
  if (!owner.atomics.empty() && !remote) note_beside_atomics(w, lane, owner, first, last, write);
  if (write) {
    const Access mine{w.epoch, remote ? kRemote : me, remote ? kAsyncProxy : w.fences[lane]};
    for (u32 g = first; g <= last; ++g) {
      if (writes[g].epoch >> 6 == now || reads[g].epoch >> 6 == now)
        note_close(w, lane, owner, g, bytes, true);
      writes[g] = mine;
    }
    return;
  }
  for (u32 g = first; g <= last; ++g) {
    if (remote || writes[g].thread == 0 || writes[g].epoch >> 6 == now)
      note_close(w, lane, owner, g, bytes, false);
    else if (reads[g].epoch >> 6 != now)
      reads[g] = {w.epoch, me, 0};
    else
      note_read(w, lane, reads[g]);
  }
}
void note_atomic(Warp& w, u32 lane, Block& owner, u32 offset, u32 bytes, bool reads) {
  const u16 me = static_cast<u16>(w.thread(lane) + 1);
  const u32 first = offset / 2, last = (offset + bytes - 1) / 2;
  if (owner.atomics.empty()) owner.atomics.resize(owner.writes.size());
  const auto refuse = [&](const char* what, const Access& a) {
    if (a.thread == me || !same_time(w, a)) return false;
    w.machine->hazard(w, lane,
                      "race: this atomic access to shared memory at " +
                          hex(kSharedBase + 2 * first) + " and a " + what + " by " + who(a.thread) +
                          " without a barrier between them");
    return true;
  };
  bool told = &owner != w.block, unwritten = false;
  for (u32 g = first; g <= last; ++g) {
    told = told || refuse("write", owner.writes[g]) || refuse("read", owner.reads[g]);
    if (owner.writes[g].thread == 0) {  // from now on written, by nobody who races
      unwritten = true;
      owner.writes[g] = {0, kRemote, kAsyncProxy};
    }
    if (&owner == w.block) note_read(w, lane, owner.atomics[g]);
  }
  if (unwritten && reads)
    w.machine->hazard(w, lane,
                      "an atomic access reads shared memory at " + hex(kSharedBase + 2 * first) +
                          " before it was written",
                      w.machine->options.strict);
}
void check_async_read(Warp& w, Block& b, u32 offset, u32 bytes, bool by_group) {
  for (u32 g = offset / 2; g <= (offset + bytes - 1) / 2; ++g) {
    const Access& a = b.writes[g];
    if (a.thread == 0) {
      w.machine->hazard(
          w, 0,
          "wgmma reads shared memory at " + hex(kSharedBase + 2 * g) + ", which was not written",
          w.machine->options.strict);
      continue;
    }
    if (a.fences == kAsyncProxy) continue;
    const u32 thread = a.thread - 1u;
    if (b.warps[thread / 32].fences[thread % 32] == a.fences)
      w.machine->hazard(w, 0,
                        "wgmma reads shared memory at " + hex(kSharedBase + 2 * g) +
                            ", written by thread " + std::to_string(thread) +
                            " without fence.proxy.async after it");
    if ((by_group || thread / 32 != w.index) && a.epoch >> 6 == w.epoch >> 6)
      w.machine->hazard(w, 0,
                        "race: wgmma reads shared memory at " + hex(kSharedBase + 2 * g) +
                            ", written by thread " + std::to_string(thread) +
                            " without a barrier between them");
  }
}
void check_async_write(Warp& w, u32 lane, Block& b, u32 offset, u32 bytes) {
  if (&b != w.block) return;
  for (u32 g = offset / 2; g <= (offset + bytes - 1) / 2; ++g) {
    const Access& a = b.writes[g];
    if (a.thread == 0 || a.fences == kAsyncProxy) continue;
    const u32 thread = a.thread - 1u;
    if (b.warps[thread / 32].fences[thread % 32] == a.fences)
      w.machine->hazard(w, lane,
                        "bulk copy over shared memory at " + hex(kSharedBase + 2 * g) +
                            ", written by thread " + std::to_string(thread) +
                            " without fence.proxy.async after it");
  }
}
void forget(Block& b, u32 offset, u32 bytes) {  // an asynchronous write is under way
  if (b.writes.empty()) return;
  for (u32 g = offset / 2; g <= (offset + bytes - 1) / 2; ++g) b.writes[g].thread = 0;
}
void async_wrote(Block& b, u32 offset, u32 bytes) {
  if (b.writes.empty()) return;
  for (u32 g = offset / 2; g <= (offset + bytes - 1) / 2; ++g)
    b.writes[g] = {0, kRemote, kAsyncProxy};
}

u8* resolve(Warp& w, u32 lane, Space space, u64 address, u32 bytes, Touch touch) {
  const bool write = touch != Touch::kRead,
             atomic = touch == Touch::kUpdate || touch == Touch::kExchange;
  Machine& machine = *w.machine;
  if (space == kGeneric) {
    const u64 window = address & kWindows;
    if (window == kSharedWindow)
      return resolve(w, lane, kShared, address & ~kWindows, bytes, touch);
    if (window == kLocalWindow) return resolve(w, lane, kLocal, address & ~kWindows, bytes, touch);
    space = kGlobal;
  }
  switch (space) {
    case kGlobal: {
      const Allocation* a = memory().find(address);
      if (a == nullptr || address + bytes > a->end) {
        std::string near = a ? " runs past an allocation of " + std::to_string(a->end - a->begin) +
                                   " bytes, at byte " + std::to_string(address - a->begin)
                             : " is in no allocation";
        if (!a)
          if (const Allocation* before = memory().before(address);
              before && address - before->end < 65536)
            near += " (" + std::to_string(address - before->end) + " bytes behind one of " +
                    std::to_string(before->end - before->begin) + ")";
        fail(w, lane,
             std::string(write ? "write to" : "read of") + " global address " + hex(address) +
                 " (" + std::to_string(bytes) + " bytes)" + near);
      }
      if (machine.options.global && !atomic) note_global(w, lane, address, bytes, write);
      return a->host + (address - a->begin);
    }
    case kShared: {
      Block* owner;
      u8* const p = shared_pointer(w, lane, static_cast<u32>(address), bytes, &owner);
      const u32 offset = static_cast<u32>(p - owner->shared.data());
      if (machine.options.checks && atomic)
        note_atomic(w, lane, *owner, offset, bytes, touch == Touch::kUpdate);
      else if (machine.options.checks)
        note_shared(w, lane, *owner, offset, bytes, write);
      return p;
    }
    case kLocal:
      if (address + bytes > machine.f->local_size) fail(w, lane, "local address " + hex(address));
      return w.local.data() + static_cast<std::size_t>(lane) * machine.f->local_size + address;
    default:
      if (address + bytes > machine.launch->params.size())
        fail(w, lane, "parameter address " + hex(address));
      return const_cast<u8*>(machine.launch->params.data()) + address;
  }
}

u64 address_of(const Warp& w, const Inst& i, u32 l) {
  const u64 base = i.base == 0   ? (i.space == kShared ? u64{w.block->rank} << 24 : 0)
                   : i.base == 1 ? w.r[i.a + l]
                                 : wide(w, i.a, l);
  return base + static_cast<u64>(i.offset);
}
}  // namespace retort::ptx
