// What the files that implement instructions share.
#pragma once
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "tools/ptx/machine.h"

namespace retort::ptx {

// -------------------------------------------------------------------------------------- executing

[[noreturn]] void fail(const Warp& w, u32 lane, const std::string& what);

/// Options::ulps of the launch, for handlers that see a value alone.
extern constinit thread_local int t_ulps;

template <class F>
inline void each(u32 m, F f) {
  for (; m; m &= m - 1) f(static_cast<u32>(std::countr_zero(m)));
}
std::string hex(u64 v);

inline u64 wide(const Warp& w, u32 slot, u32 lane) {
  u64 v;
  std::memcpy(&v, w.r + slot + 2 * lane, 8);
  return v;
}
inline void put_wide(Warp& w, u32 slot, u32 lane, u64 v) {
  std::memcpy(w.r + slot + 2 * lane, &v, 8);
}
inline const u32* list_of(const Warp& w, const Inst& i) { return &w.machine->f->lists[i.list]; }

/// The address of a lane's access.
u64 address_of(const Warp& w, const Inst& i, u32 lane);
/// What an access does; the last two are atomic.
enum class Touch : u8 { kRead, kWrite, kUpdate, kExchange };
/// Host address of [address, address + bytes) as a lane sees it; faults unless it lies in one
/// object.
u8* resolve(Warp& w, u32 lane, Space space, u64 address, u32 bytes, Touch touch);
/// The same of a shared address, unchecked but for its bounds.
u8* shared_pointer(Warp& w, u32 lane, u32 address, u32 bytes, Block** owner = nullptr);

/// Adds to the traffic of `inst` what an access of `bytes` (a power of two) at at[lane] by each lane
/// of `mask` costs, and what it would at best.
void count_traffic(Warp& w, const Inst& inst, Space space, u32 mask, u32 bytes,
                   const u64 (&at)[32]);

/// The shadow of global memory: races between the blocks of a launch.
void note_global(Warp& w, u32 lane, u64 address, u32 bytes, bool write);
/// What the block wrote before this may be read by whoever learns of it atomically.
void publish_global(Warp& w);

// Accesses of a block's threads. In Access::thread, several of them:
inline constexpr u16 kSeveralWarps = 0xffff;  // and 0x8000 | w: several of warp w
inline constexpr u16 kRemote = 0x7fff;        // of another block of the cluster
inline u32 warp_of(u16 thread) { return thread & 0x8000 ? thread & 0x7fff : (thread - 1u) / 32; }
/// True if no barrier lies between the access and what w does now.
inline bool same_time(const Warp& w, const Access& a) {
  if (a.thread == 0 || a.thread == kRemote) return false;
  if (a.thread != kSeveralWarps && warp_of(a.thread) == w.index) return a.epoch == w.epoch;
  return a.epoch >> 6 == w.epoch >> 6;
}
/// Adds a read by a lane to the last reads.
inline void note_read(const Warp& w, u32 lane, Access& r) {
  const u16 me = static_cast<u16>(w.thread(lane) + 1);
  if (r.thread == me)
    r.epoch = w.epoch;
  else if (!same_time(w, r))
    r = {w.epoch, me, 0};
  else if (r.thread != kSeveralWarps && warp_of(r.thread) == w.index)
    r = {w.epoch, static_cast<u16>(0x8000 | w.index), 0};
  else
    r = {w.epoch, kSeveralWarps, 0};
}
std::string who(u16 thread);

// The shadow of shared memory; `offset` counts from the start of the block's.
void note_shared(Warp& w, u32 lane, Block& owner, u32 offset, u32 bytes, bool write);
/// An atomic access, which races with plain ones alone; `reads`: it needs what was there before.
void note_atomic(Warp& w, u32 lane, Block& owner, u32 offset, u32 bytes, bool reads);
/// What wgmma reads for a warp, or for all warps of its group: written, by a thread that has fenced
/// its writes since, before a barrier.
void check_async_read(Warp& w, Block& b, u32 offset, u32 bytes, bool by_group);
/// What the copy engine writes over: fenced by whoever wrote it.
void check_async_write(Warp& w, u32 lane, Block& b, u32 offset, u32 bytes);
void forget(Block& b, u32 offset, u32 bytes);  // an asynchronous write is under way
void async_wrote(Block& b, u32 offset, u32 bytes);

void complete_copies(Warp& w, u32 mask, u32 newest, bool all);
void complete_wgmma(Warp& w, u32 newest);
/// The oldest bulk copy under way; false: there is none.
bool complete_bulk(Machine& machine);

// --------------------------------------------------------------------------------------- lowering

/// One statement on its way to an instruction.
struct Lowering {
  Module& module;
  Function& f;
  const Statement& s;

  std::string full() const;                  // the opcode with its modifiers
  std::string type(int from_end = 0) const;  // the last modifier, or one before
  const Operand& arg(std::size_t k) const;
  u32 slot(const Operand& o, bool wide, const std::string& type);  // register or constant
  u32 predicate(const Operand& o) const;
  u32 number(const Operand& o) const;  // an immediate that is no register's value
  void address(Inst& i, const Operand& o);
  u32 width_of(const Operand& o) const;  // 1, 32 or 64
  void list(Inst& i, const std::vector<const Operand*>& operands, const std::string& type);
  [[noreturn]] void refuse(const std::string& why) const;

 private:
  u32 sink(bool wide);
};

// Each fills in `i` and returns true if the statement is one of its own, false if not.
bool lower_alu(Lowering& l, Inst& i);
bool lower_load_store(Lowering& l, Inst& i);
bool lower_async(Lowering& l, Inst& i);
bool lower_collective(Lowering& l, Inst& i);
bool lower_matrix(Lowering& l, Inst& i);
bool lower_wgmma(Lowering& l, Inst& i);
}  // namespace retort::ptx
