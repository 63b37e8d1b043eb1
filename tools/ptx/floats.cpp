// Arithmetic of f32 and f64, and approximations.
#include <cmath>
#include <limits>

#include "tools/ptx/alu.h"
#include "tools/ptx/numbers.h"

namespace retort::ptx {
constinit thread_local int t_ulps = 0;

namespace {
float ftz(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}
// Off by up to Options::ulps, by an amount that depends on the argument alone, as a table in
// hardware would be.
float approximate(float x, float argument) {
  if (t_ulps == 0 || !std::isnormal(x)) return x;  // a subnormal would step across 0
  u32 h = std::bit_cast<u32>(argument) * 0x9e37'79b1u;
  h = (h ^ h >> 15) * 0x85eb'ca6bu;
  h ^= h >> 13;
  const i32 most = t_ulps < 0 ? -t_ulps : t_ulps;
  return std::bit_cast<float>(std::bit_cast<i32>(x) +
                              static_cast<i32>(h % static_cast<u32>(2 * most + 1)) - most);
}
// 2^x by a polynomial in double: correct to far below an ulp of float
float exp2_of(float v) {
  const float c = v < -200.0f ? -200.0f : v > 200.0f ? 200.0f : v;
  const double x = c, n = std::nearbyint(x), f = (x - n) * 0.6931471805599453;
  double p = 1.0 / 39916800;
  p = p * f + 1.0 / 3628800;
  p = p * f + 1.0 / 362880;
  p = p * f + 1.0 / 40320;
  p = p * f + 1.0 / 5040;
  p = p * f + 1.0 / 720;
  p = p * f + 1.0 / 120;
  p = p * f + 1.0 / 24;
  p = p * f + 1.0 / 6;
  p = p * f + 0.5;
  p = p * f + 1.0;
  p = p * f + 1.0;
  const double scale =
      std::bit_cast<double>(static_cast<u64>(static_cast<i64>(1023 + static_cast<int>(n))) << 52);
  const float r = static_cast<float>(p * scale);
  return v != v ? v : r;
}
// Powers of two are exact whatever Options::ulps says: libdevice's double erf and tanh scale by them.
float exp2_approximate(float x) {
  const float r = exp2_of(x);
  return std::nearbyint(x) == x ? r : approximate(r, x);
}
// a * b + c rounded down: the product is exact in double, the sum's error is found exactly
float fma_down(float a, float b, float c) {
  const float r = std::fmaf(a, b, c);
  if (!std::isfinite(r)) return r;
  const double p = static_cast<double>(a) * b, s = p + c, z = s - p,
               error = (p - (s - z)) + (c - z);
  const double d = r;
  if (d > s || (d == s && error < 0))
    return std::nextafterf(r, -std::numeric_limits<float>::infinity());
  return r;
}
double rcp_gross(double x) {  // 20 bits of mantissa, the low word is zero; subnormals are zeros
  if (std::fabs(x) < std::numeric_limits<double>::min()) x = std::copysign(0.0, x);
  const double r = 1.0 / std::bit_cast<double>(std::bit_cast<u64>(x) & ~0xffff'ffffull);
  if (std::fabs(r) < std::numeric_limits<double>::min()) return std::copysign(0.0, r);
  return std::bit_cast<double>(std::bit_cast<u64>(r) & ~0xffff'ffffull);
}
}  // namespace

void add_floats(Table& t) {
  constexpr auto plus = [](auto a, auto b) { return static_cast<decltype(a)>(a + b); };
  constexpr auto minus = [](auto a, auto b) { return static_cast<decltype(a)>(a - b); };
  constexpr auto times = [](auto a, auto b) { return static_cast<decltype(a)>(a * b); };
  constexpr auto fused = [](auto a, auto b, auto c) { return std::fma(a, b, c); };
  add_bin<([](auto a, auto b) { return smaller(a, b); }), float, double>(t, "min");
  add_bin<([](auto a, auto b) { return larger(a, b); }), float, double>(t, "max");
  add_un<([](auto a) { return std::fabs(a); }), float, double>(t, "abs");
  add_un<([](auto a) { return -a; }), float, double>(t, "neg");
  for (const char* r : {"", ".rn"}) {  // without a rounding ptxas may fuse; unfused here
    add_bin<plus, float, double>(t, std::string("add") + r);
    add_bin<minus, float, double>(t, std::string("sub") + r);
    add_bin<times, float, double>(t, std::string("mul") + r);
  }
  add_tri<fused, float, double>(t, "fma.rn");
  add_tri<([](auto a, auto b, auto c) { return std::fma(a, b, -c); }), float, double>(
      t, "fused_minus.rn");
  add_tri<([](auto a, auto b, auto c) { return std::fma(-a, b, c); }), float, double>(
      t, "minus_fused.rn");
  add_tri<([](float a, float b, float c) { return fma_down(a, b, c); }), float>(t, "fma.rm");
  add_bin<([](auto a, auto b) { return a / b; }), float, double>(t, "div.rn");
  add_un<([](auto a) { return std::sqrt(a); }), float, double>(t, "sqrt.rn");
  add_un<([](auto a) { return 1 / a; }), float, double>(t, "rcp.rn");
  t["ex2.approx.ftz.f32"] = {
      un<float, float, ([](float a) { return ftz(exp2_approximate(ftz(a))); })>, {"f32", "f32"}};
  t["ex2.approx.f32"] = {un<float, float, ([](float a) { return exp2_approximate(a); })>,
                         {"f32", "f32"}};
  t["lg2.approx.ftz.f32"] = {
      un<float, float, ([](float a) {
           return approximate(static_cast<float>(std::log2(static_cast<double>(ftz(a)))), a);
         })>,
      {"f32", "f32"}};
  t["lg2.approx.f32"] = {un<float, float, ([](float a) {
                              return approximate(
                                  static_cast<float>(std::log2(static_cast<double>(a))), a);
                            })>,
                         {"f32", "f32"}};
  t["rcp.approx.ftz.f32"] = {
      un<float, float, ([](float a) { return approximate(ftz(1.0f / ftz(a)), a); })>,
      {"f32", "f32"}};
  t["rsqrt.approx.f32"] = {un<float, float, ([](float a) {
                                return approximate(
                                    static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))), a);
                              })>,
                           {"f32", "f32"}};
  t["rcp.approx.ftz.f64"] = {un<double, double, ([](double a) { return rcp_gross(a); })>,
                             {"f64", "f64"}};
  // copysign d, a, b: the sign of a, the magnitude of b
  add_bin<([](auto a, auto b) { return std::copysign(b, a); }), float, double>(t, "copysign");

  t["max.bf16x2"] = {bin<u32, u32, u32, ([](u32 a, u32 b) {
                           u32 d = 0;
                           for (int s = 0; s < 32; s += 16)
                             d |= u32{to_bf16(larger(from_bf16(static_cast<u16>(a >> s)),
                                                     from_bf16(static_cast<u16>(b >> s))))}
                                  << s;
                           return d;
                         })>,
                     {"u32", "u32", "u32"}};
}
}  // namespace retort::ptx
