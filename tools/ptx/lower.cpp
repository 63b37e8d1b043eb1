// Statements -> instructions: registers become slots, immediates and special registers too, labels
// become indices. An opcode, modifier or operand that is not known is refused when its function is
// first launched.
#include <algorithm>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
bool is_float(const std::string& type) { return type.starts_with("f"); }

u64 immediate(const std::string& text, const std::string& type, const Lowering& l) {
  if (text.size() == 10 && text[0] == '0' && (text[1] == 'f' || text[1] == 'F'))
    return std::stoull(text.substr(2), nullptr, 16);
  if (text.size() == 18 && text[0] == '0' && (text[1] == 'd' || text[1] == 'D'))
    return std::stoull(text.substr(2), nullptr, 16);
  if (is_float(type)) l.refuse("the immediate " + text + " is not of type " + type);
  const bool minus = text[0] == '-';
  u64 v = std::stoull(minus ? text.substr(1) : text, nullptr, 0);
  if (minus) v = ~v + 1;
  if (type.ends_with("16"))
    v &= 0xffff;
  else if (type.ends_with("8"))
    v &= 0xff;
  else if (!type.ends_with("64"))
    v &= 0xffff'ffff;
  return v;
}
}  // namespace

void Lowering::refuse(const std::string& why) const {
  throw Fault("ptx: cannot run " + f.name + ", line " + std::to_string(s.line) + ": " + why +
              "\n  " + (s.line < module.lines.size() ? module.lines[s.line] : ""));
}
std::string Lowering::full() const {
  std::string text = s.op[0];
  for (std::size_t k = 1; k < s.op.size(); ++k) text += "." + s.op[k];
  return text;
}
const Operand& Lowering::arg(std::size_t k) const {
  if (k >= s.args.size()) refuse("too few operands");
  return s.args[k];
}
u32 Lowering::number(const Operand& o) const {
  if (o.kind != Operand::kImmediate) refuse("expected a number");
  return static_cast<u32>(immediate(o.text, "u32", *this));
}
std::string Lowering::type(int from_end) const {
  const std::size_t n = s.op.size(), k = static_cast<std::size_t>(from_end);
  return k + 1 < n ? s.op[n - 1 - k] : "";
}
u32 Lowering::width_of(const Operand& o) const {
  if (o.kind != Operand::kRegister) refuse("expected a register");
  const Width w = f.registers[static_cast<std::size_t>(o.index)].width;
  return w == Width::kPredicate ? 1 : w == Width::k32 ? 32 : 64;
}
u32 Lowering::slot(const Operand& o, bool wide, const std::string& type) {
  const auto constant = [&](u64 v) {
    const auto [it, added] = f.constants.try_emplace({v, wide}, f.slots);
    if (added) f.slots += wide ? 64 : 32;
    return it->second;
  };
  if (o.negated) refuse("a negated operand");
  if (o.kind == Operand::kImmediate) return constant(immediate(o.text, type, *this));
  if (o.kind == Operand::kRegister) {
    const Register& r = f.registers[static_cast<std::size_t>(o.index)];
    if (r.width != (wide ? Width::k64 : Width::k32))
      refuse("the register " + r.name + " has the wrong width");
    return r.slot;
  }
  if (o.kind == Operand::kSymbol) {
    if (o.text[0] == '%') {
      if (wide) refuse("a special register of 64 bits: " + o.text);
      const auto [it, added] = f.specials.try_emplace(o.text, f.slots);
      if (added) f.slots += 32;
      return it->second;
    }
    for (const Variable& v : f.shared)
      if (v.name == o.text) {  // the address differs from block to block of a cluster
        const auto [it, added] = f.shared_names.try_emplace({v.offset, wide}, f.slots);
        if (added) f.slots += wide ? 64 : 32;
        return it->second;
      }
    for (const auto* variables : {&f.local, &f.params})
      for (const Variable& v : *variables)
        if (v.name == o.text) return constant(v.offset);
    if (const auto it = module.globals.find(o.text); it != module.globals.end() && wide)
      return constant(it->second);
    refuse("unknown name " + o.text);
  }
  refuse("an operand of a kind that is not expected here");
}
u32 Lowering::predicate(const Operand& o) const {
  if (o.kind != Operand::kRegister || width_of(o) != 1) refuse("expected a predicate");
  return f.registers[static_cast<std::size_t>(o.index)].slot;
}
u32 Lowering::sink(bool wide) {
  const u32 slot = f.slots;
  f.slots += wide ? 64 : 32;
  return slot;
}
void Lowering::address(Inst& i, const Operand& o) {
  if (o.kind != Operand::kAddress) refuse("expected an address");
  i.offset = o.offset;
  i.base = 0;
  if (o.index >= 0) {
    const Register& r = f.registers[static_cast<std::size_t>(o.index)];
    i.base = r.width == Width::k64 ? 2 : 1;
    i.a = r.slot;
    return;
  }
  if (o.text.empty()) return;
  for (const auto* variables : {&f.shared, &f.local, &f.params})
    for (const Variable& v : *variables)
      if (v.name == o.text) {
        i.offset += v.offset;
        return;
      }
  if (const auto it = module.globals.find(o.text); it != module.globals.end()) {
    i.offset += static_cast<i64>(it->second);
    return;
  }
  refuse("unknown name " + o.text);
}
void Lowering::list(Inst& i, const std::vector<const Operand*>& operands, const std::string& type) {
  i.list = static_cast<u32>(f.lists.size());
  for (const Operand* o : operands) {
    if (o->kind == Operand::kSink) {
      f.lists.push_back(sink(true));
      f.list_wide.push_back(1);
    } else {
      const bool wide = o->kind == Operand::kRegister ? width_of(*o) == 64 : type.ends_with("64");
      f.lists.push_back(slot(*o, wide, type));
      f.list_wide.push_back(wide);
    }
  }
  i.list_size = static_cast<u32>(f.lists.size()) - i.list;
}

namespace {
Inst lowered(Lowering& l) {
  Inst i;
  i.line = l.s.line;
  if (l.s.guard >= 0) {
    const Register& r = l.f.registers[static_cast<std::size_t>(l.s.guard)];
    if (r.width != Width::kPredicate) l.refuse("a guard that is no predicate");
    i.guard = static_cast<int>(r.slot);
    i.guard_not = l.s.guard_not;
  }
  const std::string full = l.full();
  if (l.s.op[0] == "bra") {
    if (full != "bra" && full != "bra.uni") l.refuse("a branch of another kind");
    i.flow = Flow::kBranch;
    const std::string& label = l.arg(0).text;
    for (std::size_t k = l.s.scopes.size(); k-- > 0;)
      if (const auto it = l.f.labels.find({l.s.scopes[k], label}); it != l.f.labels.end()) {
        i.target = it->second;
        return i;
      }
    l.refuse("no label " + label);
  }
  if (full == "ret" || full == "exit") {
    i.flow = Flow::kExit;
  } else if (full == "trap") {
    i.fn = [](Warp& w, const Inst&, u32 m) {
      fail(w, static_cast<u32>(std::countr_zero(m)), "trap");
    };
  } else if (!lower_alu(l, i) && !lower_load_store(l, i) && !lower_async(l, i) &&
             !lower_collective(l, i) && !lower_matrix(l, i) && !lower_wgmma(l, i)) {
    l.refuse("'" + full + "' is not implemented");
  }
  return i;
}
}  // namespace

void lower(Module& module, Function& f, bool fused) {
  if (f.lowered) return;
  if (fused) fuse_products(f);
  place_registers(f);
  for (const Statement& s : f.statements) {
    Lowering l{module, f, s};
    try {
      f.code.push_back(lowered(l));
      f.sources.push_back(s.source);
      f.classes.push_back(class_of(s));
    } catch (const std::logic_error& e) {  // a number in a modifier that is none
      l.refuse("'" + l.full() + "' is not implemented");
    }
  }
  Inst end;
  end.flow = Flow::kExit;
  f.code.push_back(end);
  f.sources.push_back({});
  f.classes.push_back(Class::kBranch);
  f.executed.assign(f.code.size(), 0);
  f.traffic.assign(f.code.size(), {});
  f.statements.clear();
  f.statements.shrink_to_fit();
  f.lowered = true;
}
}  // namespace retort::ptx
