// Lowering of what the tables hold, of predicates, and of moves between registers and vectors.
#include <array>

#include "tools/ptx/alu.h"

namespace retort::ptx {
namespace {
const Table& table() {
  static const Table all = [] {
    Table t;
    add_integers(t), add_floats(t), add_conversions(t), add_comparisons(t);
    return t;
  }();
  return all;
}

// mov.b32 / mov.b64 between a register and a vector of narrower ones
void pack(Warp& w, const Inst& i, u32 m) {
  const u32* parts = &w.machine->f->lists[i.list];
  const u32 n = i.list_size, bits = i.size * 8 / n;
  each(m, [&](u32 l) {
    u64 v = 0;
    for (u32 k = 0; k < n; ++k)
      v |= static_cast<u64>(bits == 16 ? w.r[parts[k] + l] & 0xffff : w.r[parts[k] + l])
           << (bits * k);
    if (i.size == 8)
      at<u64>(w, i.d)[l] = v;
    else
      w.r[i.d + l] = static_cast<u32>(v);
  });
}
void unpack(Warp& w, const Inst& i, u32 m) {
  const u32* parts = &w.machine->f->lists[i.list];
  const u32 n = i.list_size, bits = i.size * 8 / n;
  each(m, [&](u32 l) {
    const u64 v = i.size == 8 ? at<u64>(w, i.a)[l] : w.r[i.a + l];
    for (u32 k = 0; k < n; ++k) {
      const u32 part = static_cast<u32>(v >> (bits * k));
      w.r[parts[k] + l] = bits == 16 ? part & 0xffff : part;
    }
  });
}
}  // namespace

namespace {
u32 source(const Warp& w, u32 predicate, bool negated) {
  return negated ? ~w.p[predicate] : w.p[predicate];
}
void assign(Warp& w, u32 predicate, u32 value, u32 m) {
  w.p[predicate] = (w.p[predicate] & ~m) | (value & m);
}
bool lower_predicates(Lowering& l, Inst& i) {
  const std::string& op = l.s.op[0];
  i.d = l.predicate(l.arg(0));
  if (op == "mov" && l.arg(1).kind == Operand::kImmediate) {
    const std::string& text = l.arg(1).text;
    if (text != "0" && text != "1" && text != "-1") l.refuse("a predicate constant");
    i.b = text == "0" ? 0 : ~0u;
    i.fn = [](Warp& w, const Inst& i, u32 m) { assign(w, i.d, i.b, m); };
    return true;
  }
  i.a = l.predicate(l.arg(1));
  i.flag = l.arg(1).negated != (op == "not");
  if (op == "mov" || op == "not") {
    i.fn = [](Warp& w, const Inst& i, u32 m) { assign(w, i.d, source(w, i.a, i.flag), m); };
    return true;
  }
  i.b = l.predicate(l.arg(2));
  i.flag2 = l.arg(2).negated;
  if (op == "and")
    i.fn = [](Warp& w, const Inst& i, u32 m) {
      assign(w, i.d, source(w, i.a, i.flag) & source(w, i.b, i.flag2), m);
    };
  else if (op == "or")
    i.fn = [](Warp& w, const Inst& i, u32 m) {
      assign(w, i.d, source(w, i.a, i.flag) | source(w, i.b, i.flag2), m);
    };
  else if (op == "xor")
    i.fn = [](Warp& w, const Inst& i, u32 m) {
      assign(w, i.d, source(w, i.a, i.flag) ^ source(w, i.b, i.flag2), m);
    };
  else
    return false;
  return true;
}
}  // namespace

bool lower_alu(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  std::string full = l.full();
  if (s.op.size() == 2 && s.op[1] == "pred") return lower_predicates(l, i);
  if (op == "mov" && s.args.size() == 2 &&
      (l.arg(0).kind == Operand::kVector || l.arg(1).kind == Operand::kVector)) {
    if (full != "mov.b32" && full != "mov.b64") return false;
    i.size = full == "mov.b64" ? 8 : 4;
    const bool out = l.arg(0).kind == Operand::kVector;
    std::vector<const Operand*> parts;
    for (const Operand& o : s.args[out ? 0 : 1].list) parts.push_back(&o);
    if (parts.empty() || i.size * 8 / parts.size() < 16) return false;
    l.list(i, parts, i.size * 8 / parts.size() == 16 ? "u16" : "u32");
    if (out)
      i.a = l.slot(l.arg(1), i.size == 8, s.op[1]);
    else
      i.d = l.slot(l.arg(0), i.size == 8, s.op[1]);
    i.fn = out ? unpack : pack;
    return true;
  }
  // the source register of a cvt may be wider than the type that is read
  if (op == "cvt" && s.args.size() == 2 && l.arg(1).kind == Operand::kRegister &&
      l.width_of(l.arg(1)) == 64 && !l.type().ends_with("64"))
    full += "/64";
  const auto found = table().find(full);
  if (found == table().end()) return false;
  const Entry& entry = found->second;
  if (s.args.size() != entry.types.size()) return false;
  i.fn = entry.fn;
  for (std::size_t k = 0; k < s.args.size(); ++k) {
    u32& where = *std::array<u32*, 5>{&i.d, &i.a, &i.b, &i.c, &i.e}[k];
    const Operand& o = s.args[k];
    const std::string& type = entry.types[k];
    if (type == "pred") {
      where = l.predicate(o);
      if (k == 0 && o.second >= 0) {
        i.flag = true;
        Operand second = o;
        second.index = o.second;
        i.e = l.predicate(second);
      }
      if (k > 0) i.flag = o.negated;
      continue;
    }
    // cvt reads and writes registers of other widths than its types
    const bool wide = type.ends_with("64");
    if (o.kind == Operand::kRegister && l.width_of(o) != (wide ? 64u : 32u))
      l.refuse("a register of another width");
    where = l.slot(o, wide, type);
  }
  return true;
}
}  // namespace retort::ptx
