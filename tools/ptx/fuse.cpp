#include "tools/ptx/module.h"

namespace retort::ptx {

// PTX leaves mul and a later add or sub that name no rounding to ptxas, which fuses them by
// default. Here: where the product has one reader, in the same straight piece of code.
void fuse_products(Function& f) {
  std::vector<u32> readers(f.registers.size()), piece(f.statements.size());
  std::vector<bool> starts(f.statements.size() + 1);
  for (const auto& [name, at] : f.labels) starts[at] = true;
  const auto reads = [](const Statement& s, auto&& visit) {
    const auto one = [&](auto&& self, const Operand& o) -> void {
      if (o.index >= 0) visit(o.index);
      for (const Operand& e : o.list) self(self, e);
    };
    for (std::size_t k =
             s.op[0] == "st" || s.op[0] == "red" || s.op[0] == "wgmma" || s.op[0] == "cp" ? 0 : 1;
         k < s.args.size(); ++k)
      one(one, s.args[k]);
    if (!s.args.empty() && s.args[0].kind == Operand::kAddress) one(one, s.args[0]);
  };
  u32 number = 0;
  for (std::size_t k = 0; k < f.statements.size(); ++k) {
    if (starts[k]) ++number;
    piece[k] = number;
    if (f.statements[k].op[0] == "bra") ++number;
    reads(f.statements[k], [&](int r) { ++readers[static_cast<std::size_t>(r)]; });
  }
  const auto plain = [](const Statement& s, const char* op) {
    return s.op.size() == 2 && s.op[0] == op && (s.op[1] == "f32" || s.op[1] == "f64") &&
           s.guard < 0 && s.args.size() == 3;
  };
  for (std::size_t k = 0; k < f.statements.size(); ++k) {
    const Statement& mul = f.statements[k];
    if (!plain(mul, "mul") || mul.args[0].kind != Operand::kRegister ||
        readers[static_cast<std::size_t>(mul.args[0].index)] != 1)
      continue;
    for (std::size_t n = k + 1; n < f.statements.size() && piece[n] == piece[k]; ++n) {
      Statement& s = f.statements[n];
      const int product = mul.args[0].index;
      const auto names = [&](const Operand& o) {
        return o.kind == Operand::kRegister && o.index == product;
      };
      if ((plain(s, "add") || plain(s, "sub")) && s.op[1] == mul.op[1] &&
          (names(s.args[1]) || names(s.args[2])) && !(names(s.args[1]) && names(s.args[2]))) {
        const bool first = names(s.args[1]), subtract = s.op[0] == "sub";
        const Operand other = s.args[first ? 2 : 1];
        const std::string type = s.op[1];
        s.op = {!subtract ? "fma" : first ? "fused_minus" : "minus_fused", "rn", type};
        s.args = {s.args[0], mul.args[1], mul.args[2], other};
        break;
      }
      bool stop = false;
      if (!s.args.empty() && s.args[0].kind == Operand::kRegister)
        for (int m = 0; m < 3; ++m)
          stop = stop || (mul.args[static_cast<std::size_t>(m)].kind == Operand::kRegister &&
                          mul.args[static_cast<std::size_t>(m)].index == s.args[0].index);
      if (stop) break;
    }
  }
}
}  // namespace retort::ptx
