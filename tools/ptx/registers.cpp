// Places a kernel's registers. nvcc numbers them without end (thousands where loops are unrolled),
// and a lane's value of each is 32 words apart from the next: a file of its own for each would not
// fit a cache. Registers that are never wanted at the same time share a place.
//
// A register is wanted from its first mention in the text to its last. What is wanted in a loop (the
// text between a label and a branch back to it) and beyond it, or what a pass of a loop may find as
// the last one left it, is wanted throughout the loop. Lanes follow paths of their own, but each
// lane's values are its own too, so this holds for every lane whatever the others do.
#include <algorithm>
#include <queue>

#include "tools/ptx/module.h"

namespace retort::ptx {
namespace {
struct Life {
  u32 first = ~0u, last = 0;
  bool defined = false;  // by its first mention, whatever the guards say
};
struct Loop {
  u32 begin, end;
};

template <class F>
void each_register(const Operand& o, F f) {
  if (o.index >= 0) f(o.index);
  if (o.second >= 0) f(o.second);
  for (const Operand& part : o.list) each_register(part, f);
}

std::vector<Life> lives_of(const Function& f) {
  std::vector<Life> lives(f.registers.size());
  for (u32 k = 0; k < f.statements.size(); ++k) {
    const Statement& s = f.statements[k];
    const bool writes = s.guard < 0 && s.op[0] != "st" && s.op[0] != "red" && s.op[0] != "bra" &&
                        s.op[0] != "cp" && s.op[0] != "mbarrier" && s.op[0] != "bar" &&
                        s.op[0] != "barrier";
    const auto mention = [&](int r, bool defined) {
      Life& life = lives[static_cast<std::size_t>(r)];
      if (life.first == ~0u) life.first = k, life.defined = defined;
      life.last = std::max(life.last, k);
      // Products under way are written when they are waited for, which names no register.
      if (s.op[0] == "wgmma") life.first = 0, life.last = ~0u, life.defined = false;
    };
    for (std::size_t a = 1; a < s.args.size(); ++a)  // what an instruction reads comes first
      each_register(s.args[a], [&](int r) { mention(r, false); });
    if (s.guard >= 0) mention(s.guard, false);
    if (!s.args.empty())
      each_register(s.args[0],
                    [&](int r) { mention(r, writes && s.args[0].kind != Operand::kAddress); });
  }
  return lives;
}

std::vector<Loop> loops_of(const Function& f) {
  std::vector<Loop> loops;
  for (u32 k = 0; k < f.statements.size(); ++k) {
    const Statement& s = f.statements[k];
    if (s.op[0] != "bra" || s.args.empty()) continue;
    for (std::size_t scope = s.scopes.size(); scope-- > 0;) {
      const auto label = f.labels.find({s.scopes[scope], s.args[0].text});
      if (label == f.labels.end()) continue;
      if (label->second <= k) loops.push_back({label->second, k});
      break;
    }
  }
  return loops;
}

void stretch(std::vector<Life>& lives, const std::vector<Loop>& loops) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const Loop& loop : loops)
      for (Life& life : lives) {
        if (life.first > loop.end || life.last < loop.begin) continue;
        if (life.defined && life.first >= loop.begin && life.last <= loop.end) continue;
        if (life.first <= loop.begin && life.last >= loop.end) continue;
        life.first = std::min(life.first, loop.begin), life.last = std::max(life.last, loop.end);
        changed = true;
      }
  }
}
}  // namespace

void place_registers(Function& f) {
  std::vector<Life> lives = lives_of(f);
  stretch(lives, loops_of(f));
  f.slots = f.predicates = 0;
  std::vector<u32> order;
  for (u32 r = 0; r < f.registers.size(); ++r) {
    f.registers[r].slot = 0;
    if (f.registers[r].width == Width::kPredicate)
      f.registers[r].slot = f.predicates++;
    else if (lives[r].first != ~0u)
      order.push_back(r);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](u32 a, u32 b) { return lives[a].first < lives[b].first; });
  using End = std::pair<u32, u32>;  // last mention, place
  for (const Width width : {Width::k32, Width::k64}) {
    std::priority_queue<End, std::vector<End>, std::greater<>> busy;
    std::vector<u32> free;
    for (const u32 r : order) {
      if (f.registers[r].width != width) continue;
      while (!busy.empty() && busy.top().first < lives[r].first) {
        free.push_back(busy.top().second);
        busy.pop();
      }
      u32 place = f.slots;
      if (free.empty())
        f.slots += width == Width::k64 ? 64 : 32;
      else
        place = free.back(), free.pop_back();
      f.registers[r].slot = place;
      busy.push({lives[r].last, place});
    }
  }
  f.register_slots = f.slots;
}
}  // namespace retort::ptx
