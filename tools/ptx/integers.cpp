// Integer arithmetic, logic, shifts, bit fields, moves.
#include "tools/ptx/alu.h"
#include "tools/ptx/numbers.h"

namespace retort::ptx {
namespace {
__extension__ using u128 = unsigned __int128;
__extension__ using i128 = __int128;

template <class V>
V negated(V a) {  // the most negative number stays
  return static_cast<V>(std::make_unsigned_t<V>{0} - static_cast<std::make_unsigned_t<V>>(a));
}
template <class V>
V divide(V a, V b) {
  if (b == 0) return static_cast<V>(~V{0});  // unspecified by the ISA
  if constexpr (std::is_signed_v<V>)
    if (b == -1) return negated(a);
  return static_cast<V>(a / b);
}
template <class V>
V remainder(V a, V b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<V>)
    if (b == -1) return 0;
  return static_cast<V>(a % b);
}
u32 permute(u32 a, u32 b, u32 s) {
  const u64 pool = static_cast<u64>(b) << 32 | a;
  u32 d = 0;
  for (u32 k = 0; k < 4; ++k) {
    const u32 n = s >> (4 * k) & 15;
    u32 byte = static_cast<u32>(pool >> (8 * (n & 7))) & 0xff;
    if (n & 8) byte = byte & 0x80 ? 0xff : 0;
    d |= byte << (8 * k);
  }
  return d;
}
template <class V>
void insert_field(Warp& w, const Inst& i, u32 m) {  // bfi
  auto* d = at<V>(w, i.d);
  each(m, [&](u32 l) {
    const V a = at<V>(w, i.a)[l], b = at<V>(w, i.b)[l];
    const u32 pos = w.r[i.c + l] & 0xff, len = w.r[i.e + l] & 0xff;
    constexpr u32 n = 8 * sizeof(V);
    V mask = len >= n ? ~V{0} : (V{1} << len) - 1;
    mask = pos >= n ? 0 : static_cast<V>(mask << pos);
    d[l] = (b & ~mask) | (pos >= n ? 0 : (static_cast<V>(a << pos) & mask));
  });
}

}  // namespace

void add_integers(Table& t) {
  constexpr auto plus = [](auto a, auto b) { return static_cast<decltype(a)>(a + b); };
  constexpr auto minus = [](auto a, auto b) { return static_cast<decltype(a)>(a - b); };
  constexpr auto times = [](auto a, auto b) { return static_cast<decltype(a)>(a * b); };
  // unsigned arithmetic for signed types too: the low bits are the same, and nothing overflows
  t["add.s16"] = t["add.u16"] = {bin<u16, u16, u16, plus>, {"u16", "u16", "u16"}};
  t["add.s32"] = t["add.u32"] = {bin<u32, u32, u32, plus>, {"u32", "u32", "u32"}};
  t["add.s64"] = t["add.u64"] = {bin<u64, u64, u64, plus>, {"u64", "u64", "u64"}};
  t["sub.s16"] = t["sub.u16"] = {bin<u16, u16, u16, minus>, {"u16", "u16", "u16"}};
  t["sub.s32"] = t["sub.u32"] = {bin<u32, u32, u32, minus>, {"u32", "u32", "u32"}};
  t["sub.s64"] = t["sub.u64"] = {bin<u64, u64, u64, minus>, {"u64", "u64", "u64"}};
  t["mul.lo.s32"] = t["mul.lo.u32"] = {bin<u32, u32, u32, times>, {"u32", "u32", "u32"}};
  t["mul.lo.s64"] = t["mul.lo.u64"] = {bin<u64, u64, u64, times>, {"u64", "u64", "u64"}};
  t["mul.lo.s16"] = t["mul.lo.u16"] = {
      bin<u16, u16, u16, ([](u16 a, u16 b) { return static_cast<u16>(u32{a} * b); })>,
      {"u16", "u16", "u16"}};
  t["mul.wide.u16"] = {bin<u32, u16, u16, ([](u16 a, u16 b) { return u32{a} * b; })>,
                       {"u32", "u16", "u16"}};
  t["mul.wide.s16"] = {bin<i32, i16, i16, ([](i16 a, i16 b) { return i32{a} * b; })>,
                       {"u32", "u16", "u16"}};
  t["mul.wide.u32"] = {bin<u64, u32, u32, ([](u32 a, u32 b) { return u64{a} * b; })>,
                       {"u64", "u32", "u32"}};
  t["mul.wide.s32"] = {bin<i64, i32, i32, ([](i32 a, i32 b) { return i64{a} * b; })>,
                       {"u64", "u32", "u32"}};
  t["mul.hi.u32"] = {
      bin<u32, u32, u32, ([](u32 a, u32 b) { return static_cast<u32>(u64{a} * b >> 32); })>,
      {"u32", "u32", "u32"}};
  t["mul.hi.s32"] = {
      bin<i32, i32, i32, ([](i32 a, i32 b) { return static_cast<i32>(i64{a} * b >> 32); })>,
      {"u32", "u32", "u32"}};
  t["mul.hi.u64"] = {bin<u64, u64, u64, ([](u64 a, u64 b) {
                           return static_cast<u64>(static_cast<u128>(a) * b >> 64);
                         })>,
                     {"u64", "u64", "u64"}};
  t["mul.hi.s64"] = {bin<i64, i64, i64, ([](i64 a, i64 b) {
                           return static_cast<i64>(static_cast<i128>(a) * b >> 64);
                         })>,
                     {"u64", "u64", "u64"}};
  constexpr auto multiply_add = [](u32 a, u32 b, u32 c) { return a * b + c; };
  t["mad.lo.s32"] =
      t["mad.lo.u32"] = {tri<u32, u32, u32, u32, multiply_add>, {"u32", "u32", "u32", "u32"}};
  t["mad.lo.s64"] =
      t["mad.lo.u64"] = {tri<u64, u64, u64, u64, ([](u64 a, u64 b, u64 c) { return a * b + c; })>,
                         {"u64", "u64", "u64", "u64"}};
  t["mad.lo.s16"] = t["mad.lo.u16"] = {tri<u16, u16, u16, u16, ([](u16 a, u16 b, u16 c) {
                                             return static_cast<u16>(u32{a} * b + c);
                                           })>,
                                       {"u16", "u16", "u16", "u16"}};
  t["mad.wide.u32"] = {
      tri<u64, u32, u32, u64, ([](u32 a, u32 b, u64 c) { return u64{a} * b + c; })>,
      {"u64", "u32", "u32", "u64"}};
  t["mad.wide.s32"] = {tri<u64, i32, i32, u64,
                           ([](i32 a, i32 b, u64 c) { return static_cast<u64>(i64{a} * b) + c; })>,
                       {"u64", "u32", "u32", "u64"}};

  add_bin<([](auto a, auto b) { return divide(a, b); }), u16, i16, u32, i32, u64, i64>(t, "div");
  add_bin<([](auto a, auto b) { return remainder(a, b); }), u16, i16, u32, i32, u64, i64>(t, "rem");
  add_bin<([](auto a, auto b) { return smaller(a, b); }), u16, i16, u32, i32, u64, i64>(t, "min");
  add_bin<([](auto a, auto b) { return larger(a, b); }), u16, i16, u32, i32, u64, i64>(t, "max");
  add_un<([](auto a) { return a < 0 ? negated(a) : a; }), i32, i64>(t, "abs");
  add_un<([](auto a) { return negated(a); }), i32, i64>(t, "neg");

  constexpr auto conj = [](auto a, auto b) { return static_cast<decltype(a)>(a & b); };
  constexpr auto disj = [](auto a, auto b) { return static_cast<decltype(a)>(a | b); };
  constexpr auto excl = [](auto a, auto b) { return static_cast<decltype(a)>(a ^ b); };
  add_bits_bin<conj, u16, u32, u64>(t, "and");
  add_bits_bin<disj, u16, u32, u64>(t, "or");
  add_bits_bin<excl, u16, u32, u64>(t, "xor");
  add_bits_un<([](auto a) { return static_cast<decltype(a)>(~a); }), u16, u32, u64>(t, "not");
  // shift amounts are u32, and clamped
  t["shl.b16"] = {
      bin<u16, u16, u32, ([](u16 a, u32 n) { return n > 15 ? u16{0} : static_cast<u16>(a << n); })>,
      {"u16", "u16", "u32"}};
  t["shl.b32"] = {bin<u32, u32, u32, ([](u32 a, u32 n) { return n > 31 ? 0u : a << n; })>,
                  {"u32", "u32", "u32"}};
  t["shl.b64"] = {bin<u64, u64, u32, ([](u64 a, u32 n) { return n > 63 ? u64{0} : a << n; })>,
                  {"u64", "u64", "u32"}};
  t["shr.u16"] = t["shr.b16"] = {
      bin<u16, u16, u32, ([](u16 a, u32 n) { return n > 15 ? u16{0} : static_cast<u16>(a >> n); })>,
      {"u16", "u16", "u32"}};
  t["shr.s16"] = {
      bin<i16, i16, u32, ([](i16 a, u32 n) { return static_cast<i16>(a >> (n > 15 ? 15 : n)); })>,
      {"u16", "u16", "u32"}};
  t["shr.u32"] =
      t["shr.b32"] = {bin<u32, u32, u32, ([](u32 a, u32 n) { return n > 31 ? 0u : a >> n; })>,
                      {"u32", "u32", "u32"}};
  t["shr.s32"] = {bin<i32, i32, u32, ([](i32 a, u32 n) { return a >> (n > 31 ? 31 : n); })>,
                  {"u32", "u32", "u32"}};
  t["shr.u64"] =
      t["shr.b64"] = {bin<u64, u64, u32, ([](u64 a, u32 n) { return n > 63 ? u64{0} : a >> n; })>,
                      {"u64", "u64", "u32"}};
  t["shr.s64"] = {bin<i64, i64, u32, ([](i64 a, u32 n) { return a >> (n > 63 ? 63 : n); })>,
                  {"u64", "u64", "u32"}};
  t["popc.b32"] = {un<u32, u32, ([](u32 a) { return static_cast<u32>(std::popcount(a)); })>,
                   {"u32", "u32"}};
  t["clz.b32"] = {un<u32, u32, ([](u32 a) { return static_cast<u32>(std::countl_zero(a)); })>,
                  {"u32", "u32"}};
  t["brev.b32"] = {un<u32, u32, ([](u32 a) {
                        u32 d = 0;
                        for (u32 k = 0; k < 32; ++k) d |= (a >> k & 1) << (31 - k);
                        return d;
                      })>,
                   {"u32", "u32"}};
  t["bfind.shiftamt.u32"] = {
      un<u32, u32, ([](u32 a) { return a == 0 ? ~0u : static_cast<u32>(std::countl_zero(a)); })>,
      {"u32", "u32"}};
  t["prmt.b32"] = {tri<u32, u32, u32, u32, ([](u32 a, u32 b, u32 c) { return permute(a, b, c); })>,
                   {"u32", "u32", "u32", "u32"}};
  t["bfi.b32"] = {insert_field<u32>, {"u32", "u32", "u32", "u32", "u32"}};
  t["bfi.b64"] = {insert_field<u64>, {"u64", "u64", "u64", "u32", "u32"}};

  constexpr auto same = [](auto a) { return a; };
  for (const char* s : {".b16", ".u16", ".s16"})
    t[std::string("mov") + s] = {un<u16, u16, same>, {"u16", "u16"}};
  for (const char* s : {".b32", ".u32", ".s32"})
    t[std::string("mov") + s] = {un<u32, u32, same>, {"u32", "u32"}};
  for (const char* s : {".b64", ".u64", ".s64"})
    t[std::string("mov") + s] = {un<u64, u64, same>, {"u64", "u64"}};
  t["mov.f32"] = {un<u32, u32, same>, {"f32", "f32"}};
  t["mov.f64"] = {un<u64, u64, same>, {"f64", "f64"}};
}
}  // namespace retort::ptx
