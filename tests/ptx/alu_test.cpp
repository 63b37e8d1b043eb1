// Arithmetic, logic, comparisons, conversions and moves: values from the ISA document.
#include <cmath>
#include <limits>

#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
constexpr float kInf = std::numeric_limits<float>::infinity(),
                kNan = std::numeric_limits<float>::quiet_NaN();

TEST(PtxIntegers, values) {
  const std::pair<const char*, u32> cases[] = {
      {"add.u32 %r9, 4294967295, 2;", 1},
      {"sub.s32 %r9, 3, 5;", u32(-2)},
      {"mul.lo.s32 %r9, -3, 5;", u32(-15)},
      {"mul.hi.u32 %r9, 0x80000000, 6;", 3},
      {"mul.hi.s32 %r9, 0x80000000, 6;", u32(-3)},
      {"mad.lo.s32 %r9, 7, 6, 5;", 47},
      {"div.s32 %r9, -7, 2;", u32(-3)},
      {"rem.s32 %r9, -7, 2;", u32(-1)},
      {"div.s32 %r9, 0x80000000, -1;", 0x80000000u},
      {"div.u32 %r9, 4294967289, 2;", 2147483644u},
      {"min.s32 %r9, -1, 1;", u32(-1)},
      {"min.u32 %r9, -1, 1;", 1},
      {"max.s32 %r9, -1, 1;", 1},
      {"max.u32 %r9, -1, 1;", u32(-1)},
      {"abs.s32 %r9, -9;", 9},
      {"abs.s32 %r9, 0x80000000;", 0x80000000u},
      {"neg.s32 %r9, 9;", u32(-9)},
      {"and.b32 %r9, 12, 10;", 8},
      {"or.b32 %r9, 12, 10;", 14},
      {"xor.b32 %r9, 12, 10;", 6},
      {"not.b32 %r9, 12;", ~12u},
      {"shl.b32 %r9, 3, 31;", 0x80000000u},
      {"shl.b32 %r9, 3, 32;", 0},
      {"shr.u32 %r9, 0x80000000, 31;", 1},
      {"shr.s32 %r9, 0x80000000, 40;", ~0u},
      {"popc.b32 %r9, 0xf0f0;", 8},
      {"clz.b32 %r9, 1;", 31},
      {"clz.b32 %r9, 0;", 32},
      {"brev.b32 %r9, 1;", 0x80000000u},
      {"bfind.shiftamt.u32 %r9, 2;", 30},
      {"bfi.b32 %r9, 5, 0, 4, 3;", 0x50},
      {"bfi.b32 %r9, 0, 0xffffffff, 28, 8;", 0x0fffffffu},
      {"prmt.b32 %r9, 0x33221100, 0x77665544, 0x7150;", 0x77115500u},
      {"prmt.b32 %r9, 0x80, 0, 0x0008;", 0x808080ffu},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(value32(text), want) << text;
}
TEST(PtxIntegers, wide_values) {
  EXPECT_EQ(value64("mul.wide.s32 %rd9, -2, 3;"), u64(-6));
  EXPECT_EQ(value64("mul.wide.u32 %rd9, 0xffffffff, 2;"), 0x1fffffffeull);
  EXPECT_EQ(value64("mad.wide.s32 %rd9, -2, 3, 10;"), 4u);
  EXPECT_EQ(value64("mul.hi.u64 %rd9, 0x8000000000000000, 4;"), 2u);
  EXPECT_EQ(value64("mov.u64 %rd8, 0x8000000000000000;\nmul.hi.s64 %rd9, %rd8, 4;"), u64(-2));
  EXPECT_EQ(value64("mul.lo.s64 %rd9, 0x100000001, 5;"), 0x500000005ull);
  EXPECT_EQ(value64("shr.s64 %rd9, 0x8000000000000000, 62;"), u64(-2));
  EXPECT_EQ(value64("shl.b64 %rd9, 1, 64;"), 0u);
  EXPECT_EQ(value64("bfi.b64 %rd9, 3, 0, 62, 2;"), 0xc000000000000000ull);
  EXPECT_EQ(value64("div.u64 %rd9, 0xffffffffffffffff, 3;"), 0x5555555555555555ull);
  EXPECT_EQ(value64("rem.u64 %rd9, 100, 7;"), 2u);
  EXPECT_EQ(value64("mov.u32 %r2, 7;\nmov.u32 %r3, 9;\nmov.b64 %rd9, {%r2, %r3};"), 0x900000007ull);
}
TEST(PtxIntegers, sixteen_bits_stay_sixteen) {
  EXPECT_EQ(value32("mov.u16 %rs1, 0xffff;\nadd.s16 %rs2, %rs1, 2;\ncvt.u32.u16 %r9, %rs2;"), 1u);
  EXPECT_EQ(value32("mov.u16 %rs1, 0x8000;\nshr.s16 %rs2, %rs1, 3;\ncvt.u32.u16 %r9, %rs2;"),
            0xf000u);
  EXPECT_EQ(value32("mov.u16 %rs1, 0xfffe;\nmul.wide.s16 %r9, %rs1, 3;"), u32(-6));
  EXPECT_EQ(value32("mov.u16 %rs1, 0xfffe;\nmul.wide.u16 %r9, %rs1, 3;"), 0x2fffau);
  EXPECT_EQ(value32("mov.u16 %rs1, 0x1234;\nmov.u16 %rs2, 0xabcd;\nmov.b32 %r9, {%rs1, %rs2};"),
            0xabcd1234u);
  EXPECT_EQ(value32("mov.b32 {%rs1, %rs2}, 0xabcd1234;\ncvt.u32.u16 %r9, %rs2;"), 0xabcdu);
}

TEST(PtxFloats, values) {
  EXPECT_EQ(value_f32("add.f32 %f9, %f1, %f2;", 1, 0x1p-24f), 1.0f);  // to even
  EXPECT_EQ(value_f32("fma.rn.f32 %f9, %f1, %f2, %f3;", 1 + 0x1p-12f, 1 + 0x1p-12f, -1),
            0x1p-11f + 0x1p-24f);
  EXPECT_EQ(value_f32("fma.rm.f32 %f9, %f1, %f2, %f3;", 1, 1, -0x1p-30f),
            std::nextafter(1.0f, 0.0f));
  EXPECT_EQ(value_f32("fma.rm.f32 %f9, %f1, %f2, %f3;", 1, 1, 0x1p-30f), 1.0f);
  EXPECT_EQ(value_f32("div.rn.f32 %f9, %f1, %f2;", 1, 3), 1.0f / 3);
  EXPECT_EQ(value_f32("sqrt.rn.f32 %f9, %f1;", 2), std::sqrt(2.0f));
  EXPECT_EQ(value_f32("rcp.rn.f32 %f9, %f1;", 3), 1.0f / 3);
  EXPECT_EQ(value_f32("copysign.f32 %f9, %f1, %f2;", -1, 7), -7);
  EXPECT_EQ(value_f32("abs.f32 %f9, %f1;", -1), 1);
  EXPECT_EQ(value_f32("neg.f32 %f9, %f1;", -1), 1);
  EXPECT_EQ(value_f32("ex2.approx.ftz.f32 %f9, %f1;", 10), 1024);
  EXPECT_EQ(value_f32("ex2.approx.ftz.f32 %f9, %f1;", -140), 0);  // a subnormal is flushed
  EXPECT_EQ(value_f32("ex2.approx.f32 %f9, %f1;", -140), 0x1p-140f);
  EXPECT_EQ(value_f32("lg2.approx.f32 %f9, %f1;", 8), 3);
  EXPECT_EQ(value_f32("rsqrt.approx.f32 %f9, %f1;", 4), 0.5f);
  EXPECT_EQ(value_f32("rcp.approx.ftz.f32 %f9, %f1;", 4), 0.25f);
  EXPECT_EQ(value_f32("rcp.approx.ftz.f32 %f9, %f1;", 1e-40f), kInf);
}
TEST(PtxFloats, nans_and_zeros) {
  EXPECT_EQ(float_bits(value_f32("add.f32 %f9, %f1, %f2;", kNan, 1)), 0x7fffffffu);
  EXPECT_EQ(value_f32("max.f32 %f9, %f1, %f2;", kNan, 2), 2);
  EXPECT_EQ(value_f32("min.f32 %f9, %f1, %f2;", 2, kNan), 2);
  EXPECT_EQ(float_bits(value_f32("max.f32 %f9, %f1, %f2;", -0.0f, 0.0f)), 0u);
  EXPECT_EQ(float_bits(value_f32("min.f32 %f9, %f1, %f2;", 0.0f, -0.0f)), 0x80000000u);
}
TEST(PtxFloats, approximations_are_off_by_what_was_asked) {
  const auto off = [](Options& o) { o.ulps = 2; };
  bool differs = false;
  for (int k = 0; k < 50; ++k) {
    const float x = 0.37f + 0.01f * static_cast<float>(k),
                exact = value_f32("ex2.approx.ftz.f32 %f9, %f1;", x),
                got = value_f32("ex2.approx.ftz.f32 %f9, %f1;", x, 0, 0, off);
    EXPECT_LE(std::abs(static_cast<int>(float_bits(got) - float_bits(exact))), 2);
    differs = differs || got != exact;
  }
  EXPECT_TRUE(differs);
  // the ISA's tables hold these exactly
  for (int k = -20; k <= 20; ++k)
    EXPECT_EQ(value_f32("ex2.approx.ftz.f32 %f9, %f1;", static_cast<float>(k), 0, 0, off),
              std::ldexp(1.0f, k));
}
TEST(PtxFloats, doubles) {
  const std::string low = "\nmov.b64 %rd9, %fd9;";
  const auto bits = [](double v) { return std::bit_cast<u64>(v); };
  EXPECT_EQ(value64("mov.f64 %fd1, 0d3FF0000000000000;\nmov.f64 %fd2, 0d4008000000000000;\n"
                    "div.rn.f64 %fd9, %fd1, %fd2;" +
                    low),
            bits(1.0 / 3));
  EXPECT_EQ(value64("mov.f64 %fd1, 0d4000000000000000;\nsqrt.rn.f64 %fd9, %fd1;" + low),
            bits(std::sqrt(2.0)));
  // 20 bits of mantissa
  EXPECT_EQ(value64("mov.f64 %fd1, 0d4008000000000000;\nrcp.approx.ftz.f64 %fd9, %fd1;" + low),
            bits(1.0 / 3) & ~0xffffffffull);
}
TEST(PtxFloats, a_product_and_a_sum_are_fused_on_request_only) {
  const std::string body = "mul.f32 %f4, %f1, %f2;\nadd.f32 %f9, %f4, %f3;";
  const float a = 1 + 0x1p-12f;
  const auto fused = [](Options& o) { o.fuse = true; };
  EXPECT_EQ(value_f32(body, a, a, -1), 0x1p-11f);
  EXPECT_EQ(value_f32(body, a, a, -1, fused), 0x1p-11f + 0x1p-24f);
  EXPECT_EQ(value_f32("mul.f32 %f4, %f1, %f2;\nsub.f32 %f9, %f3, %f4;", a, a, 1, fused),
            -(0x1p-11f + 0x1p-24f));
  EXPECT_EQ(value_f32("mul.f32 %f4, %f1, %f2;\nsub.f32 %f9, %f4, %f3;", a, a, 1, fused),
            0x1p-11f + 0x1p-24f);
  // a rounding that is named stays, and so does a product with two readers
  EXPECT_EQ(value_f32("mul.rn.f32 %f4, %f1, %f2;\nadd.f32 %f9, %f4, %f3;", a, a, -1, fused),
            0x1p-11f);
  EXPECT_EQ(value_f32(body + "\nmov.f32 %f5, %f4;", a, a, -1, fused), 0x1p-11f);
}

TEST(PtxConversions, values) {
  const std::pair<float, u32> to_s32[] = {{1.5f, 1},           {-1.5f, u32(-1)},
                                          {3e9f, 0x7fffffffu}, {-3e9f, 0x80000000u},
                                          {kNan, 0},           {kInf, 0x7fffffffu}};
  for (const auto& [v, want] : to_s32)
    EXPECT_EQ(
        value32("mov.b32 %f1, " + std::to_string(float_bits(v)) + ";\ncvt.rzi.s32.f32 %r9, %f1;"),
        want)
        << v;
  EXPECT_EQ(value32("mov.f32 %f1, 0f40200000;\ncvt.rni.s32.f32 %r9, %f1;"), 2u);  // 2.5 to even
  EXPECT_EQ(value32("mov.f32 %f1, 0fC0200000;\ncvt.rmi.s32.f32 %r9, %f1;"), u32(-3));
  EXPECT_EQ(value32("mov.f32 %f1, 0f40200000;\ncvt.rpi.s32.f32 %r9, %f1;"), 3u);
  EXPECT_EQ(value32("mov.f32 %f1, 0fBF800000;\ncvt.rzi.u32.f32 %r9, %f1;"), 0u);
  EXPECT_EQ(value64("mov.f32 %f1, 0f7FC00000;\ncvt.rzi.s64.f32 %rd9, %f1;"), 0x8000000000000000ull);
  EXPECT_EQ(value32("mov.u64 %rd8, 0x1ffffffff;\ncvt.u32.u64 %r9, %rd8;"), ~0u);
  EXPECT_EQ(value64("mov.u32 %r8, -1;\ncvt.s64.s32 %rd9, %r8;"), ~u64{0});
  EXPECT_EQ(value64("mov.u32 %r8, -1;\ncvt.u64.u32 %rd9, %r8;"), 0xffffffffull);
  EXPECT_EQ(value64("mov.u64 %rd8, 0x180000000;\ncvt.s64.s32 %rd9, %rd8;"),
            0xffffffff80000000ull);  // the low half of a wider register
  EXPECT_EQ(value_f32("cvt.sat.f32.f32 %f9, %f1;", 2), 1);
  EXPECT_EQ(value_f32("cvt.sat.f32.f32 %f9, %f1;", kNan), 0);
}
TEST(PtxConversions, sixteen_bit_floats_round_to_even) {
  const auto bf16 = [](u32 bits) {
    return value32("mov.b32 %f1, " + std::to_string(bits) +
                   ";\ncvt.rn.bf16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;");
  };
  EXPECT_EQ(bf16(0x3f808000u), 0x3f80u);
  EXPECT_EQ(bf16(0x3f818000u), 0x3f82u);
  EXPECT_EQ(bf16(0x3f808001u), 0x3f81u);
  EXPECT_EQ(bf16(0x7f7fffffu), 0x7f80u);
  EXPECT_EQ(bf16(0xffc00001u), 0x7fffu);
  EXPECT_EQ(value32("mov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f40000000;\n"
                    "cvt.rn.bf16x2.f32 %r9, %f1, %f2;"),
            0x3f804000u);  // the first is the upper half
  EXPECT_EQ(value32("mov.f32 %f1, 0f3F800000;\ncvt.rn.f16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;"),
            0x3c00u);
  EXPECT_EQ(value_f32("mov.u16 %rs1, 0x3c00;\ncvt.f32.f16 %f9, %rs1;", 0), 1);
  EXPECT_EQ(value32("max.bf16x2 %r9, 0x3f80bf80, 0x40003f80;"), 0x40003f80u);
}

TEST(PtxComparisons, ordered_ones_are_false_of_a_nan) {
  const auto holds = [](const char* comparison, float a, float b) {
    return value_f32("setp." + std::string(comparison) +
                         ".f32 %p1, %f1, %f2;\nselp.f32 %f9, 0f3F800000, 0f00000000, %p1;",
                     a, b) == 1;
  };
  for (const char* c : {"eq", "ne", "lt", "le", "gt", "ge", "num"})
    EXPECT_FALSE(holds(c, kNan, 1)) << c;
  for (const char* c : {"equ", "neu", "ltu", "leu", "gtu", "geu", "nan"})
    EXPECT_TRUE(holds(c, 1, kNan)) << c;
  for (const char* c : {"ne", "lt", "le", "num", "neu", "ltu", "leu"}) {
    EXPECT_TRUE(holds(c, 1, 2)) << c;
    EXPECT_FALSE(holds(c, 2, 2) && std::string(c) != "le" && std::string(c) != "num" &&
                 std::string(c) != "leu")
        << c;
  }
  for (const char* c : {"eq", "equ", "ge", "le"}) EXPECT_TRUE(holds(c, 2, 2)) << c;
}
TEST(PtxComparisons, predicates) {
  const auto pick = [](const std::string& body) {
    return value32("setp.lt.s32 %p1|%p2, 1, 2;\n" + body + "\nselp.u32 %r9, 1, 0, %p3;");
  };
  EXPECT_EQ(pick("and.pred %p3, %p1, !%p2;"), 1u);  // %p2 holds the opposite
  EXPECT_EQ(pick("or.pred %p3, !%p1, %p2;"), 0u);
  EXPECT_EQ(pick("xor.pred %p3, %p1, %p2;"), 1u);
  EXPECT_EQ(pick("not.pred %p3, %p2;"), 1u);
  EXPECT_EQ(pick("mov.pred %p3, %p2;"), 0u);
  EXPECT_EQ(pick("mov.pred %p3, -1;"), 1u);
  EXPECT_EQ(value32("setp.lt.u32 %p1, -1, 1;\nselp.u32 %r9, 5, 6, !%p1;"), 5u);
}

TEST(PtxRefusals, nothing_unknown_is_ignored) {
  for (const char* text :
       {"frobnicate.u32 %r1, %r1;", "add.sat.s32 %r2, %r1, %r1;", "fma.rz.f32 %f1, %f1, %f1, %f1;",
        "setp.lt.and.s32 %p1, %r1, %r1, %p2;", "cvt.rz.f32.f64 %f1, %fd1;",
        "mul.f16 %rs1, %rs1, %rs1;", "add.u32 %r1, %r1;", "mov.b32 {}, %r1;",
        "shf.l.wrap.b32 %r1, %r1, %r1, %r1;"})
    expect_fault(run(text), "not implemented");
  expect_fault(run("add.u32 %r2, %rd1, 1;"), "another width");
  expect_fault(run("add.u32 %r2, %nothing, 1;"), "not implemented");
  expect_fault(run("add.f32 %f1, %f1, 1;"), "not of type f32");
  expect_fault(run("add.u32 %r2, !%r1, 1;"), "negated");
  expect_fault(run("bra NOWHERE;"), "no label");
  expect_fault(run("@%r1 add.u32 %r2, %r1, 1;"), "no predicate");
  expect_fault(run("trap;"), "trap");
}
}  // namespace
}  // namespace retort::ptx
