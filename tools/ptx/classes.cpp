// What instructions are for, and where they come from, as reports say it.
#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "tools/ptx/module.h"

namespace retort::ptx {
Class class_of(const Statement& s) {
  const std::string& op = s.op[0];
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), op) != names.end();
  };
  const auto has = [&](std::string_view modifier) {
    return std::find(s.op.begin() + 1, s.op.end(), modifier) != s.op.end();
  };
  const auto shared = [&] { return has("shared") || has("shared::cta") || has("shared::cluster"); };
  if (is({"ld", "ldu"}))
    return has("param") || has("const") ? Class::kParam
           : has("local")               ? Class::kLocal
           : shared()                   ? Class::kSharedLoad
                                        : Class::kGlobalLoad;
  if (is({"st"}))
    return has("local") ? Class::kLocal : shared() ? Class::kSharedStore : Class::kGlobalStore;
  if (is({"atom", "red"})) return Class::kAtomic;
  if (is({"ldmatrix"})) return Class::kSharedLoad;
  if (is({"stmatrix"})) return Class::kSharedStore;
  if (is({"cp"}))
    return has("commit_group") || has("wait_group") || has("wait_all") || has("bulk_commit_group")
               ? Class::kBarrier
               : Class::kCopy;
  if (is({"mma"})) return Class::kMatrix;
  if (is({"wgmma"})) return has("mma_async") ? Class::kMatrix : Class::kBarrier;
  if (is({"bar", "barrier", "fence", "membar", "mbarrier"})) return Class::kBarrier;
  if (is({"shfl", "vote", "match", "redux", "activemask"})) return Class::kExchange;
  if (is({"bra", "brx", "ret", "exit", "trap", "call"})) return Class::kBranch;
  if (is({"setp", "set", "selp", "slct"})) return Class::kChoose;
  if (is({"mov", "cvta", "mapa", "prmt"})) return Class::kMove;
  if (is({"cvt"})) return Class::kConvert;
  if (is({"ex2", "lg2", "sin", "cos", "tanh", "rcp", "rsqrt", "sqrt"})) return Class::kSpecial;
  const std::string& type = s.op.back();
  const bool real = !type.empty() && (type[0] == 'f' || type.starts_with("bf16"));
  if (op == "div") return Class::kSpecial;
  if (!real) return Class::kInteger;
  return type == "f64" ? Class::kF64 : type == "f32" ? Class::kF32 : Class::kHalf;
}

namespace {
// The last three parts of a path: a kernel's file, its folder and the room.
std::string tail(const std::string& path) {
  std::size_t at = path.size();
  for (int k = 0; k < 3 && at != std::string::npos && at > 0; ++k) at = path.rfind('/', at - 1);
  return at == std::string::npos || at == 0 ? path : path.substr(at + 1);
}
std::string text_of(const Module& m, const Place& p) {
  const auto file = m.files.find(p.file);
  if (file == m.files.end() || p.line == 0) return "";
  return tail(file->second) + ":" + std::to_string(p.line);
}
}  // namespace

std::string describe(const Module& m, const Source& s) {
  const std::string at = text_of(m, s.at), from = text_of(m, s.inlined_at);
  return at.empty() || from.empty() ? at : at + ", inlined at " + from;
}
}  // namespace retort::ptx
