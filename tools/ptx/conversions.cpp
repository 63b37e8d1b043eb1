// Conversions and comparisons.
#include <cmath>
#include <limits>

#include "tools/ptx/alu.h"
#include "tools/ptx/numbers.h"

namespace retort::ptx {
namespace {
// float -> integer: clamped; a NaN is 0, or the most negative pattern where either side has 64 bits
template <class D, class A>
D clamp_to(A rounded) {
  constexpr bool wide = sizeof(A) == 8 || sizeof(D) == 8;
  if (rounded != rounded) return wide ? static_cast<D>(D{1} << (8 * sizeof(D) - 1)) : D{0};
  constexpr D lo = std::numeric_limits<D>::min(), hi = std::numeric_limits<D>::max();
  if (rounded <= static_cast<A>(lo)) return lo;
  if (rounded >= static_cast<A>(hi)) return hi;
  return static_cast<D>(rounded);
}
}  // namespace

void add_conversions(Table& t) {
  add_int_cvt<u16, u32, i32, u64, i64, i16>(t);
  add_int_cvt<i16, u32, i32, u64, i64, u16>(t);
  add_int_cvt<u32, u16, i16, u64, i64, i32>(t);
  add_int_cvt<i32, u16, i16, u64, i64, u32>(t);
  add_int_cvt<u64, u16, i16, u32, i32, i64>(t);
  add_int_cvt<i64, u16, i16, u32, i32, u64>(t);
  const auto to_float = [&]<class A>(A) {
    add_cvt<([](A a) { return static_cast<float>(a); }), float, A>(t, ".rn");
    add_cvt<([](A a) { return static_cast<double>(a); }), double, A>(t, ".rn");
  };
  to_float(u16{}), to_float(i16{}), to_float(u32{}), to_float(i32{}), to_float(u64{}),
      to_float(i64{});
  add_cvt<([](float a) { return static_cast<double>(a); }), double, float>(t);
  add_cvt<([](double a) { return static_cast<float>(a); }), float, double>(t, ".rn");
  const auto to_int = [&]<class A>(A) {
    const auto all = [&]<class D>(D) {
      add_cvt<([](A a) { return clamp_to<D, A>(std::nearbyint(a)); }), D, A>(t, ".rni");
      add_cvt<([](A a) { return clamp_to<D, A>(std::trunc(a)); }), D, A>(t, ".rzi");
      add_cvt<([](A a) { return clamp_to<D, A>(std::floor(a)); }), D, A>(t, ".rmi");
      add_cvt<([](A a) { return clamp_to<D, A>(std::ceil(a)); }), D, A>(t, ".rpi");
    };
    all(u32{}), all(i32{}), all(u64{}), all(i64{}), all(u16{}), all(i16{});
    add_cvt<([](A a) { return std::nearbyint(a); }), A, A>(t, ".rni");
    add_cvt<([](A a) { return std::trunc(a); }), A, A>(t, ".rzi");
    add_cvt<([](A a) { return std::floor(a); }), A, A>(t, ".rmi");
    add_cvt<([](A a) { return std::ceil(a); }), A, A>(t, ".rpi");
  };
  to_int(float{}), to_int(double{});
  add_cvt<([](float a) { return !(a > 0) ? 0.0f
                                : a > 1  ? 1.0f
                                         : a; }), float, float>(
      t, ".sat");  // a NaN is 0
  t["cvt.rn.bf16.f32"] = {un<u16, float, ([](float a) { return to_bf16(a); })>, {"u16", "f32"}};
  t["cvt.rn.f16.f32"] = {un<u16, float, ([](float a) { return to_f16(a); })>, {"u16", "f32"}};
  t["cvt.f32.f16"] = {un<float, u16, ([](u16 a) { return from_f16(a); })>, {"f32", "u16"}};
  t["cvt.f32.bf16"] = {un<float, u16, ([](u16 a) { return from_bf16(a); })>, {"f32", "u16"}};
  t["cvt.s64.s32/64"] = {
      un<i64, u64, ([](u64 a) { return static_cast<i64>(static_cast<i32>(a)); })>, {"u64", "u64"}};
  t["cvt.u64.u32/64"] = {
      un<u64, u64, ([](u64 a) { return static_cast<u64>(static_cast<u32>(a)); })>, {"u64", "u64"}};
  // d, a, b: a becomes the upper half
  t["cvt.rn.bf16x2.f32"] = {
      bin<u32, float, float, ([](float a, float b) { return u32{to_bf16(a)} << 16 | to_bf16(b); })>,
      {"u32", "f32", "f32"}};
}

void add_comparisons(Table& t) {
  // The ordered ones are false of a NaN, those with a trailing u true
  add_set<([](auto a, auto b) { return a == b; }), i16, i32, i64, u16, u32, u64, float, double>(
      t, "eq");
  add_set<([](auto a, auto b) { return a != b; }), i16, i32, i64, u16, u32, u64>(t, "ne");
  add_set<([](auto a, auto b) { return a < b || a > b; }), float, double>(t, "ne");
  add_set<([](auto a, auto b) { return a < b; }), i16, i32, i64, u16, u32, u64, float, double>(
      t, "lt");
  add_set<([](auto a, auto b) { return a <= b; }), i16, i32, i64, u16, u32, u64, float, double>(
      t, "le");
  add_set<([](auto a, auto b) { return a > b; }), i16, i32, i64, u16, u32, u64, float, double>(
      t, "gt");
  add_set<([](auto a, auto b) { return a >= b; }), i16, i32, i64, u16, u32, u64, float, double>(
      t, "ge");
  add_set<([](auto a, auto b) { return !(a < b || a > b); }), float, double>(t, "equ");
  add_set<([](auto a, auto b) { return !(a == b); }), float, double>(t, "neu");
  add_set<([](auto a, auto b) { return !(a >= b); }), float, double>(t, "ltu");
  add_set<([](auto a, auto b) { return !(a > b); }), float, double>(t, "leu");
  add_set<([](auto a, auto b) { return !(a <= b); }), float, double>(t, "gtu");
  add_set<([](auto a, auto b) { return !(a < b); }), float, double>(t, "geu");
  add_set<([](auto a, auto b) { return a == a && b == b; }), float, double>(t, "num");
  add_set<([](auto a, auto b) { return a != a || b != b; }), float, double>(t, "nan");
  for (const char* n : {"16", "32", "64"})
    for (const char* c : {"eq", "ne"})
      t[std::string("setp.") + c + ".b" + n] = t[std::string("setp.") + c + ".u" + n];
  for (const char* s : {".b16", ".u16", ".s16"})
    t[std::string("selp") + s] = {selp<u16>, {"u16", "u16", "u16", "pred"}};
  for (const char* s : {".b32", ".u32", ".s32", ".f32"})
    t[std::string("selp") + s] = {selp<u32>, {"u32", "u32", "u32", "pred"}};
  for (const char* s : {".b64", ".u64", ".s64", ".f64"})
    t[std::string("selp") + s] = {selp<u64>, {"u64", "u64", "u64", "pred"}};
  t["selp.b32"].types = t["selp.u32"].types = t["selp.s32"].types = {"u32", "u32", "u32", "pred"};
  t["selp.f32"].types = {"f32", "f32", "f32", "pred"};
  t["selp.f64"].types = {"f64", "f64", "f64", "pred"};
}
}  // namespace retort::ptx
