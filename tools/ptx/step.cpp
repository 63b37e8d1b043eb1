// How a warp executes.
//
// A warp is a set of groups of lanes with one program counter each. The group with the smallest
// program counter runs, so lanes that parted meet again where their paths join. An instruction that
// needs other lanes (".sync") keeps its group waiting until they are there; when no group can go
// on, that is the fault of the kernel.
#include <algorithm>

#include "tools/ptx/instructions.h"

namespace retort::ptx {

// Lanes that reached the place of another group join it; else the group that is furthest behind
// goes on.
void Machine::reconverge(Warp& w) {
  for (std::size_t k = 0; k < w.others.size();) {
    if (w.others[k].pc != w.pc) {
      ++k;
      continue;
    }
    w.mask |= w.others[k].mask;
    w.others[k] = w.others.back();
    w.others.pop_back();
  }
  std::size_t best = w.others.size();
  for (std::size_t k = 0; k < w.others.size(); ++k)
    if (!w.others[k].waiting &&
        w.others[k].pc < (best < w.others.size() ? w.others[best].pc : w.pc))
      best = k;
  if (best < w.others.size()) {
    std::swap(w.pc, w.others[best].pc);
    std::swap(w.mask, w.others[best].mask);
  }
  w.next = ~0u;
  for (const Group& g : w.others) w.next = std::min(w.next, g.pc);
}
// Another group to run, after the current one has none or waits. False: there is none.
bool Machine::pick(Warp& w) {
  std::size_t best = w.others.size();
  for (std::size_t k = 0; k < w.others.size(); ++k)
    if (!w.others[k].waiting && (best == w.others.size() || w.others[k].pc < w.others[best].pc))
      best = k;
  if (best == w.others.size()) return false;
  w.pc = w.others[best].pc;
  w.mask = w.others[best].mask;
  w.others[best] = w.others.back();
  w.others.pop_back();
  reconverge(w);
  return true;
}

// Before a ".sync" instruction: true if it may execute now, by the lanes m.
bool Machine::gather(Warp& w, const Inst& i, u32& m) {
  if (m != w.mask) {  // lanes that are guarded off go on
    w.others.push_back({w.pc + 1, w.mask & ~m, false});
    w.mask = m;
    w.next = std::min(w.next, w.pc + 1);
  }
  u32 ready = 0;
  if (i.aligned) {
    if (m == w.live) return true;
  } else {
    each(m, [&](u32 l) {
      const u32 members = w.r[i.e + l];
      if (!(members >> l & 1))
        fail(w, l, "the thread is not in its own member mask " + hex(members));
      if ((members & w.live & ~m) == 0) ready |= 1u << l;
    });
    if (ready == m) return true;
    if (ready) {  // some have all their partners: these go first
      w.others.push_back({w.pc, m & ~ready, true});
      w.mask = m = ready;
      w.next = std::min(w.next, w.pc);
      return true;
    }
  }
  // wait for the others
  const Group here{w.pc, w.mask, true};
  if (!pick(w)) {
    w.mask = here.mask, w.pc = here.pc;
    std::string where;
    for (const Group& g : w.others)
      where += " lanes " + hex(g.mask) + " at line " + std::to_string(f->code[g.pc].line) + ";";
    fail(w, static_cast<u32>(std::countr_zero(here.mask)),
         "lanes " + hex(here.mask) + " wait for the others of the warp;" + where + " exited " +
             hex(~w.live));
  }
  w.others.push_back(here);
  w.next = std::min(w.next, here.pc);
  if (w.pc == here.pc) reconverge(w);
  return false;
}

void Machine::arrive(Warp& w) {
  Block& b = *w.block;
  const u32 id = w.barrier_id;
  b.arrived[id] += static_cast<u32>(std::popcount(w.live));
  if (w.now->flag)
    b.voted[id] +=
        static_cast<u32>(std::popcount((w.now->flag2 ? ~w.p[w.now->a] : w.p[w.now->a]) & w.live));
  const u32 wanted = w.barrier_count ? w.barrier_count : b.threads;
  if (b.arrived[id] < wanted) return;
  const u32 votes = b.voted[id];
  b.arrived[id] = b.voted[id] = 0;
  for (Warp& o : b.warps)
    if (o.state == State::kBarrier && o.barrier_id == id) {
      o.state = State::kReady;
      o.epoch = ((o.epoch >> 6) + 1) << 6;
      const Inst& i = *o.now;
      if (!i.flag) continue;  // bar.red
      if (i.count == 0)
        each(o.live, [&](u32 l) { o.r[i.d + l] = votes; });
      else
        o.p[i.d] =
            (o.p[i.d] & ~o.live) | ((i.count == 1 ? votes == wanted : votes != 0) ? o.live : 0);
    }
}

// Some lanes leave. True: it was the warp's last turn.
bool Machine::leave(Warp& w, u32 m) {
  if (options.checks)
    for (const CopyRecord& r : w.copies)
      if (r.mask & m)
        fail(w, static_cast<u32>(std::countr_zero(r.mask & m)),
             "the thread exits with cp.async under way");
  w.live &= ~m;
  if (m != w.mask) {
    w.mask &= ~m;
    ++w.pc;
    return false;
  }
  if (w.live == 0) {
    if (const WarpGroup& g = w.block->groups[w.index / 4]; g.arrived != 0)
      fail(w, 0,
           "the warp exits, and others of its warp group wait for it at line " +
               std::to_string(g.at->line));
    if (!w.wgmmas.empty()) fail(w, 0, "the warp exits with wgmma under way");
    w.state = State::kDone;
    if (--w.block->live_warps == 0) w.block->exited = true;
    return true;
  }
  w.mask = 0;
  for (Group& g : w.others) g.waiting = false;  // those they waited for may be gone: ask again
  pick(w);
  return false;
}

// wgmma and its fences: the four warps of a group execute the same instruction. The last one to come
// executes it for all. False: the warp waits.
bool Machine::together(Warp& w, const Inst& i) {
  Block& b = *w.block;
  const u32 first = w.index / 4 * 4;
  if (b.threads < (first + 4) * 32) fail(w, 0, "wgmma by an incomplete warp group");
  if (w.live != ~0u) fail(w, 0, "wgmma by a part of the warp");
  WarpGroup& g = b.groups[w.index / 4];
  for (u32 k = first; k < first + 4; ++k)
    if (b.warps[k].state == State::kDone)
      fail(w, 0, "warp " + std::to_string(k) + " of the warp group has exited");
  if (g.arrived == 0) g.at = &i;
  if (g.at != &i)
    fail(w, 0,
         "another warp of the warp group waits at line " + std::to_string(g.at->line) +
             " for all four");
  g.arrived |= 1u << w.index % 4;
  w.state = State::kWarpGroup;
  if (g.arrived != 0xf) return false;
  g.arrived = g.used = 0;
  for (u32 k = first; k < first + 4; ++k) {
    Warp& o = b.warps[k];
    i.fn(o, i, ~0u);
    ++o.pc;
    o.state = State::kReady;
  }
  return true;
}

void Machine::cluster_arrive(Warp& w) {
  if (w.cluster_arrived) fail(w, 0, "barrier.cluster.arrive twice without a wait");
  w.cluster_arrived = true;
  w.cluster_phase = cluster.phase;
  cluster.arrived += static_cast<u32>(std::popcount(w.live));
  if (cluster.arrived == cluster.threads) {
    cluster.arrived = 0;
    ++cluster.phase;
    for (Block& b : cluster.blocks)
      for (Warp& o : b.warps)
        if (o.state == State::kClusterWait) o.state = State::kReady;
  }
  ++w.pc;
}
// False: not all have arrived.
bool Machine::cluster_wait(Warp& w) {
  if (!w.cluster_arrived) fail(w, 0, "barrier.cluster.wait without an arrive");
  if (w.cluster_phase == cluster.phase) {
    --f->executed[w.pc];
    w.state = State::kClusterWait;
    return false;
  }
  w.cluster_arrived = false;
  w.epoch = ((w.epoch >> 6) + 1) << 6;
  ++w.pc;
  return true;
}
// After a poll that failed: another warp's turn, and then that of lanes behind the poll, which may
// be those that end it.
void Machine::poll(Warp& w) {
  w.poll_failed = false;
  w.state = State::kPolling;
  if (w.pc >= w.next) reconverge(w);
  if (w.others.empty()) return;
  const Group here{w.pc, w.mask, false};
  if (pick(w)) w.others.push_back(here), w.next = std::min(w.next, here.pc);
}

// Executes what is no plain instruction and no branch. True: the warp's turn is over.
bool Machine::stopped(Warp& w, const Inst& i, u32 m) {
  if (m == 0) {
    ++w.pc;
    return false;
  }
  switch (i.flow) {
    case Flow::kExit: return leave(w, m);
    case Flow::kPoll:
      i.fn(w, i, m);
      ++w.pc;
      if (!w.poll_failed) return false;
      poll(w);
      return true;
    default: break;
  }
  if (!gather(w, i, m)) return false;
  switch (i.flow) {
    case Flow::kBarrier:
      w.state = State::kBarrier;
      w.barrier_id = i.b;
      w.barrier_count = i.c;
      ++w.pc;
      arrive(w);
      return w.state == State::kBarrier;
    case Flow::kWarpGroup: return !together(w, i);
    case Flow::kClusterArrive: cluster_arrive(w); return false;
    case Flow::kClusterWait: return !cluster_wait(w);
    default:  // a collective
      i.fn(w, i, m);
      ++w.pc;
      return false;
  }
}

// One turn.
void Machine::step(Warp& w) {
  const Inst* const code = f->code.data();
  for (u64 left = options.quantum; left > 0; --left) {
    const Inst& i = code[w.pc];
    w.now = &i;
    u32 m = w.mask;
    if (i.guard >= 0) m &= i.guard_not ? ~w.p[i.guard] : w.p[i.guard];
    ++f->executed[w.pc];
    ++stats.warp_instructions;
    stats.lane_instructions += static_cast<u64>(std::popcount(m));
    if (i.flow == Flow::kPlain) {
      if (m) i.fn(w, i, m);
      ++w.pc;
    } else if (i.flow != Flow::kBranch) {
      if (stopped(w, i, m)) return;
    } else if (m == w.mask) {
      w.pc = i.target;
    } else {
      ++w.pc;
      if (m != 0) {
        w.others.push_back({i.target, m, false});
        w.mask &= ~m;
        reconverge(w);
      }
    }
    if (w.pc >= w.next) reconverge(w);
  }
}
}  // namespace retort::ptx
