// What the threads of a warp do together: barriers, shuffles, votes, reductions. The machine has
// seen to it that the threads are there; the mask holds those that execute.
#include <algorithm>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
enum Shuffle : u8 { up, down, bfly, idx };
void shfl(Warp& w, const Inst& i, u32 m) {
  u32 a[32], out[32], ok = 0;
  std::copy_n(w.r + i.a, 32, a);
  each(m, [&](u32 lane) {
    const u32 b = w.r[i.b + lane] & 31, c = w.r[i.c + lane], clamp = c & 31, mask = c >> 8 & 31;
    const u32 member = w.r[i.e + lane];
    const i32 most = static_cast<i32>((lane & mask) | (clamp & ~mask & 31)),
              least = static_cast<i32>(lane & mask);
    i32 j = 0;
    bool in = false;
    switch (i.count) {
      case up: j = static_cast<i32>(lane) - static_cast<i32>(b), in = j >= most; break;
      case down: j = static_cast<i32>(lane + b), in = j <= most; break;
      case bfly: j = static_cast<i32>(lane ^ b), in = j <= most; break;
      default: j = least | static_cast<i32>(b & ~mask & 31), in = j <= most;
    }
    if (!in) j = static_cast<i32>(lane);
    if (!(m >> j & 1) || !(member >> j & 1))
      fail(w, lane, "shfl.sync reads lane " + std::to_string(j) + ", which takes no part");
    out[lane] = a[j];
    ok |= static_cast<u32>(in) << lane;
  });
  each(m, [&](u32 lane) { w.r[i.d + lane] = out[lane]; });
  if (i.flag) w.p[i.target] = (w.p[i.target] & ~m) | ok;
}

enum class Redux : u8 { add, min, max, conj, disj, excl };
void redux(Warp& w, const Inst& i, u32 m) {
  u32 out[32];
  each(m, [&](u32 lane) {
    const u32 members = w.r[i.e + lane] & m;
    bool first = true;
    u32 v = 0;
    each(members, [&](u32 k) {
      const u32 x = w.r[i.a + k];
      if (first)
        v = x, first = false;
      else
        switch (static_cast<Redux>(i.count)) {
          case Redux::add: v += x; break;
          case Redux::min:
            v = i.flag ? static_cast<u32>(std::min(static_cast<i32>(v), static_cast<i32>(x)))
                       : std::min(v, x);
            break;
          case Redux::max:
            v = i.flag ? static_cast<u32>(std::max(static_cast<i32>(v), static_cast<i32>(x)))
                       : std::max(v, x);
            break;
          case Redux::conj: v &= x; break;
          case Redux::disj: v |= x; break;
          default: v ^= x;
        }
    });
    out[lane] = v;
  });
  each(m, [&](u32 lane) { w.r[i.d + lane] = out[lane]; });
}

}  // namespace

bool lower_collective(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  const std::string full = l.full();
  if (op == "bar" || full == "barrier.sync.aligned" || full == "barrier.sync") {
    if (full == "bar.warp.sync") {
      i.flow = Flow::kCollective;
      i.e = l.slot(l.arg(0), false, "u32");
      i.fn = [](Warp& w, const Inst&, u32) {
        if ((w.epoch & 63) < 63) ++w.epoch;
      };
      return true;
    }
    const bool reduces =
        full == "bar.red.popc.u32" || full == "bar.red.and.pred" || full == "bar.red.or.pred";
    if (reduces) {  // d, barrier, predicate
      if (s.args.size() != 3 || l.arg(1).kind != Operand::kImmediate) return false;
      i.flow = Flow::kBarrier;
      i.aligned = i.flag = true;
      i.count = s.op[2] == "popc" ? 0 : s.op[2] == "and" ? 1 : 2;
      i.d = i.count == 0 ? l.slot(l.arg(0), false, "u32") : l.predicate(l.arg(0));
      i.b = l.number(l.arg(1));
      i.a = l.predicate(l.arg(2));
      i.flag2 = l.arg(2).negated;
      return i.b < 16;
    }
    if (full != "bar.sync" && op == "bar") return false;
    if (l.arg(0).kind != Operand::kImmediate ||
        (s.args.size() > 1 && l.arg(1).kind != Operand::kImmediate))
      return false;
    i.flow = Flow::kBarrier;
    i.aligned = true;
    i.b = l.number(l.arg(0));
    i.c = s.args.size() > 1 ? l.number(l.arg(1)) : 0;
    return i.b < 16;
  }
  if (full == "barrier.cluster.arrive.release.aligned" ||
      full == "barrier.cluster.wait.acquire.aligned") {
    i.flow = s.op[2] == "arrive" ? Flow::kClusterArrive : Flow::kClusterWait;
    i.aligned = true;
    return true;
  }
  if (op == "shfl" && s.op.size() == 4 && s.op[1] == "sync" && s.op[3] == "b32") {
    i.flow = Flow::kCollective;
    i.count = s.op[2] == "up" ? up : s.op[2] == "down" ? down : s.op[2] == "bfly" ? bfly : idx;
    i.d = l.slot(l.arg(0), false, "b32");
    if ((i.flag = l.arg(0).second >= 0)) {
      Operand second = l.arg(0);
      second.index = second.second;
      i.target = l.predicate(second);
    }
    i.a = l.slot(l.arg(1), false, "b32");
    i.b = l.slot(l.arg(2), false, "b32");
    i.c = l.slot(l.arg(3), false, "b32");
    i.e = l.slot(l.arg(4), false, "b32");
    i.fn = shfl;
    return true;
  }
  if (op == "redux" && s.op.size() == 4) {
    static const std::map<std::string, Redux> kinds = {{"add", Redux::add}, {"min", Redux::min},
                                                       {"max", Redux::max}, {"and", Redux::conj},
                                                       {"or", Redux::disj}, {"xor", Redux::excl}};
    const auto it = kinds.find(s.op[2]);
    if (it == kinds.end()) return false;
    i.flow = Flow::kCollective;
    i.count = static_cast<u8>(it->second);
    i.flag = s.op[3] == "s32";
    i.d = l.slot(l.arg(0), false, "u32");
    i.a = l.slot(l.arg(1), false, "u32");
    i.e = l.slot(l.arg(2), false, "u32");
    i.fn = redux;
    return true;
  }
  if (op == "vote" && s.op.size() == 4 && s.op[1] == "sync") {
    i.flow = Flow::kCollective;
    i.a = l.predicate(l.arg(1));
    i.flag = l.arg(1).negated;
    i.e = l.slot(l.arg(2), false, "u32");
    if (s.op[2] == "ballot") {
      i.d = l.slot(l.arg(0), false, "u32");
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        const u32 p = (i.flag ? ~w.p[i.a] : w.p[i.a]) & m;
        each(m, [&](u32 l) { w.r[i.d + l] = p & w.r[i.e + l]; });
      };
      return true;
    }
    i.d = l.predicate(l.arg(0));
    i.flag2 = s.op[2] == "all";
    if (s.op[2] != "all" && s.op[2] != "any") return false;
    i.fn = [](Warp& w, const Inst& i, u32 m) {
      const u32 p = (i.flag ? ~w.p[i.a] : w.p[i.a]) & m;
      u32 out = 0;
      each(m, [&](u32 l) {
        const u32 members = w.r[i.e + l] & m, yes = p & members;
        out |= static_cast<u32>(i.flag2 ? yes == members : yes != 0) << l;
      });
      w.p[i.d] = (w.p[i.d] & ~m) | out;
    };
    return true;
  }
  if (full == "match.any.sync.b32" || full == "match.any.sync.b64") {
    i.flow = Flow::kCollective;
    i.flag = full.ends_with("64");
    i.d = l.slot(l.arg(0), false, "u32");
    i.a = l.slot(l.arg(1), i.flag, i.flag ? "b64" : "b32");
    i.e = l.slot(l.arg(2), false, "u32");
    i.fn = [](Warp& w, const Inst& i, u32 m) {
      u32 out[32];
      const auto value = [&](u32 l) {
        u64 v = 0;
        if (i.flag)
          std::memcpy(&v, w.r + i.a + 2 * l, 8);
        else
          v = w.r[i.a + l];
        return v;
      };
      each(m, [&](u32 l) {
        out[l] = 0;
        each(w.r[i.e + l] & m,
             [&](u32 k) { out[l] |= static_cast<u32>(value(k) == value(l)) << k; });
      });
      each(m, [&](u32 l) { w.r[i.d + l] = out[l]; });
    };
    return true;
  }
  if (full == "activemask.b32") {
    i.d = l.slot(l.arg(0), false, "u32");
    i.fn = [](Warp& w, const Inst& i, u32 m) { each(m, [&](u32 l) { w.r[i.d + l] = m; }); };
    return true;
  }
  return false;
}
}  // namespace retort::ptx
