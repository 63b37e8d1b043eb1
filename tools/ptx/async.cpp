// Asynchronous copies and the barriers that they complete.
#include <algorithm>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
void finish_copy(Warp& w, CopyRecord& r, u32 l) {
  Block* owner;
  u8* const to = shared_pointer(w, l, r.to[l], 16, &owner);
  if (r.valid[l])
    std::memcpy(to, resolve(w, l, kGlobal, r.from[l], r.valid[l], Touch::kRead), r.valid[l]);
  std::memset(to + r.valid[l], 0, 16u - r.valid[l]);
  if (w.machine->options.checks)
    note_shared(w, l, *owner, static_cast<u32>(to - owner->shared.data()), 16, true);
}
void cp_async(Warp& w, const Inst& i, u32 m) {
  CopyRecord r{};
  r.mask = m;
  u32 reading = 0;
  each(m, [&](u32 l) {
    r.to[l] = static_cast<u32>(address_of(w, i, l));
    r.from[l] = wide(w, i.b, l) + static_cast<u64>(static_cast<i64>(static_cast<i32>(i.target)));
    const u32 valid = i.flag ? w.r[i.c + l] : 16;
    if (valid > 16) fail(w, l, "cp.async of " + std::to_string(valid) + " of 16 bytes");
    r.valid[l] = static_cast<u8>(valid);
    r.group[l] = w.committed[l];
    if (r.to[l] % 16 || r.from[l] % 16)
      fail(w, l,
           "cp.async between " + hex(r.to[l]) + " and " + hex(r.from[l]) +
               ": not aligned to 16 bytes");
    Block* owner;
    u8* const to = shared_pointer(w, l, r.to[l], 16, &owner);
    if (owner != w.block) fail(w, l, "cp.async to another block");
    if (valid) resolve(w, l, kGlobal, r.from[l], valid, Touch::kRead), reading |= 1u << l;
    if (w.machine->options.late) {
      const u32 offset = static_cast<u32>(to - owner->shared.data());
      if (w.machine->options.checks) {
        note_shared(w, l, *owner, offset, 16, true);
        forget(*owner, offset, 16);
      }
      std::memset(to, 0xff, 16);
    } else {
      finish_copy(w, r, l);
    }
  });
  if (w.machine->options.traffic && reading) count_traffic(w, i, kGlobal, reading, 16, r.from);
  if (w.machine->options.late) w.copies.push_back(r);
}
}  // namespace

void complete_copies(Warp& w, u32 mask, u32 newest, bool all) {
  for (CopyRecord& r : w.copies)
    each(r.mask & mask, [&](u32 l) {
      if (!all && r.group[l] + newest >= w.committed[l]) return;
      finish_copy(w, r, l);
      r.mask &= ~(1u << l);
    });
  std::erase_if(w.copies, [](const CopyRecord& r) { return r.mask == 0; });
}

// ---------------------------------------------------------------------- mbarriers and bulk copies

namespace {
Mbarrier& mbarrier_at(Warp& w, u32 l, u32 address, bool create = false) {
  if (address % 8) fail(w, l, "mbarrier at " + hex(address) + ": not aligned to 8 bytes");
  Block* owner;
  shared_pointer(w, l, address, 8, &owner);
  const u32 place = address & 0xff'ffff;
  const auto it = owner->mbarriers.find(place);
  if (it == owner->mbarriers.end() && !create)
    fail(w, l, "no mbarrier was initialised at " + hex(address));
  return owner->mbarriers[place];
}
void settle(Mbarrier& b) {
  if (b.pending != 0 || b.tx != 0) return;
  b.parity ^= 1;
  b.pending = b.count;
}
void finish_bulk(Warp& w, const BulkRecord& r) {
  Block& to = w.machine->cluster.blocks[r.to_rank];
  const u32 offset = (r.to & 0xff'ffff) - kSharedBase;
  std::memcpy(shared_pointer(w, 0, r.to, r.bytes),
              resolve(w, 0, kGlobal, r.from, r.bytes, Touch::kRead), r.bytes);
  async_wrote(to, offset, r.bytes);
  Mbarrier& b = mbarrier_at(w, 0, r.bar);
  b.tx -= r.bytes;
  settle(b);
}
void bulk_copy(Warp& w, const Inst& i, u32 m) {
  each(m, [&](u32 l) {
    BulkRecord r{};
    r.to = static_cast<u32>(address_of(w, i, l));
    r.from = wide(w, i.b, l);
    r.bytes = w.r[i.c + l];
    r.bar = w.r[i.e + l];
    r.to_rank = r.to >> 24;
    if (r.to % 16 || r.from % 16 || r.bytes % 16)
      fail(w, l,
           "bulk copy of " + std::to_string(r.bytes) + " bytes from " + hex(r.from) + " to " +
               hex(r.to) + ": not all multiples of 16");
    if (r.bytes == 0) fail(w, l, "bulk copy of no bytes");
    Block* owner;
    u8* const to = shared_pointer(w, l, r.to, r.bytes, &owner);
    resolve(w, l, kGlobal, r.from, r.bytes, Touch::kRead);
    Mbarrier& b = mbarrier_at(w, l, r.bar);
    if (!b.known)
      fail(w, l,
           "bulk copy to a barrier that was not made known to the asynchronous proxy (fence)");
    if (r.bar >> 24 != r.to_rank) fail(w, l, "bulk copy to one block, barrier in another");
    const u32 offset = static_cast<u32>(to - owner->shared.data());
    if (w.machine->options.checks) check_async_write(w, l, *owner, offset, r.bytes);
    if (w.machine->options.late) {
      if (w.machine->options.checks) forget(*owner, offset, r.bytes);
      std::memset(to, 0xff, r.bytes);
      w.machine->cluster.bulk.push_back(r);
    } else {
      finish_bulk(w, r);
    }
  });
}
void mbarrier_init(Warp& w, const Inst& i, u32 m) {
  each(m, [&](u32 l) {
    const u32 address = static_cast<u32>(address_of(w, i, l)), count = w.r[i.b + l];
    if (count == 0 || count >= 1u << 20)
      fail(w, l, "mbarrier.init with a count of " + std::to_string(count));
    Mbarrier& b = mbarrier_at(w, l, address, true);
    b = {count, count, 0, 0, false, w.thread(l)};
    resolve(w, l, kShared, address, 8, Touch::kWrite);
  });
}
void mbarrier_expect(Warp& w, const Inst& i, u32 m) {
  each(m, [&](u32 l) {
    const u32 address = static_cast<u32>(address_of(w, i, l));
    Mbarrier& b = mbarrier_at(w, l, address);
    if (w.machine->options.checks) resolve(w, l, kShared, address, 8, Touch::kRead);
    if (b.pending == 0) fail(w, l, "mbarrier.arrive: all arrivals of this phase were there");
    b.tx += w.r[i.b + l];
    --b.pending;
    settle(b);
  });
}
void mbarrier_try_wait(Warp& w, const Inst& i, u32 m) {
  u32 done = 0;
  each(m, [&](u32 l) {
    const u32 address = static_cast<u32>(address_of(w, i, l));
    Mbarrier& b = mbarrier_at(w, l, address);
    if (w.machine->options.checks) resolve(w, l, kShared, address, 8, Touch::kRead);
    if (b.parity != (w.r[i.b + l] & 1)) done |= 1u << l;
  });
  w.p[i.d] = (w.p[i.d] & ~m) | done;
  w.poll_failed = done != m;
}
}  // namespace
bool complete_bulk(Machine& machine) {
  auto& bulk = machine.cluster.bulk;
  if (bulk.empty()) return false;
  const BulkRecord r = bulk.front();
  bulk.erase(bulk.begin());
  finish_bulk(machine.cluster.blocks[0].warps[0], r);
  return true;
}
namespace {
void proxy_fence(Warp& w, const Inst& i, u32 m) {
  each(m, [&](u32 l) {
    if (!i.flag && w.fences[l] < 0xfff0) ++w.fences[l];
    for (auto& [place, b] : w.block->mbarriers)
      if (b.owner == w.thread(l)) b.known = true;
  });
}
void nothing(Warp&, const Inst&, u32) {}
}  // namespace

bool lower_async(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  const std::string full = l.full();
  if (full == "cp.async.cg.shared.global" || full == "cp.async.ca.shared.global") {
    i.space = kShared;
    l.address(i, l.arg(0));
    const Operand& from = l.arg(1);
    if (from.kind != Operand::kAddress || from.index < 0 || l.arg(2).text != "16") return false;
    Operand base = from;
    base.kind = Operand::kRegister;
    i.b = l.slot(base, true, "u64");
    i.target = static_cast<u32>(static_cast<i32>(from.offset));
    if ((i.flag = s.args.size() > 3)) i.c = l.slot(l.arg(3), false, "u32");
    i.fn = cp_async;
    return true;
  }
  if (full == "cp.async.commit_group") {
    i.fn = [](Warp& w, const Inst&, u32 m) { each(m, [&](u32 l) { ++w.committed[l]; }); };
    return true;
  }
  if (full == "cp.async.wait_group" || full == "cp.async.wait_all") {
    i.flag = full == "cp.async.wait_all";
    i.target = i.flag ? 0 : l.number(l.arg(0));
    i.fn = [](Warp& w, const Inst& i, u32 m) { complete_copies(w, m, i.target, i.flag); };
    return true;
  }
  if (full == "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes") {
    i.space = kShared;
    l.address(i, l.arg(0));
    Operand from = l.arg(1), bar = l.arg(3);
    if (from.index < 0 || from.offset || bar.index < 0 || bar.offset) return false;
    from.kind = bar.kind = Operand::kRegister;
    i.b = l.slot(from, true, "u64");
    i.c = l.slot(l.arg(2), false, "u32");
    i.e = l.slot(bar, false, "u32");
    i.fn = bulk_copy;
    return true;
  }
  if (full == "mbarrier.init.shared::cta.b64" ||
      full == "mbarrier.arrive.expect_tx.shared::cta.b64") {
    const bool init = s.op[1] == "init";
    i.space = kShared;
    if (!init && l.arg(0).kind != Operand::kSink) return false;
    l.address(i, s.args.at(init ? 0 : 1));
    i.b = l.slot(s.args.at(init ? 1 : 2), false, "u32");
    i.fn = init ? mbarrier_init : mbarrier_expect;
    return true;
  }
  if (full == "mbarrier.try_wait.parity.shared::cta.b64" ||
      full == "mbarrier.test_wait.parity.shared::cta.b64") {
    i.space = kShared;
    i.d = l.predicate(l.arg(0));
    l.address(i, l.arg(1));
    i.b = l.slot(l.arg(2), false, "u32");
    i.flow = Flow::kPoll;
    i.fn = mbarrier_try_wait;
    return true;
  }
  if (full == "fence.proxy.async.shared::cta" || full == "fence.proxy.async" ||
      full == "fence.mbarrier_init.release.cluster") {
    i.flag = s.op[1] == "mbarrier_init";  // makes barriers known, fences no data
    i.fn = proxy_fence;
    return true;
  }
  if (op == "membar" || full == "fence.acq_rel.gpu" || full == "fence.sc.gpu" ||
      full == "fence.acq_rel.cta" || full == "fence.acq_rel.sys" || full == "fence.sc.cta") {
    i.fn = nothing;
    if (full.find("cta") == std::string::npos)
      i.fn = [](Warp& w, const Inst&, u32) { publish_global(w); };
    return true;
  }
  return false;
}
}  // namespace retort::ptx
