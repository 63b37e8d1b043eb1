#include "kernels/common/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/elementwise/elementwise_math.h"

namespace retort::test {
namespace {

// All 65536 values of both 16-bit types survive the way through float, but for NaN payloads.
TEST(DTypes, sixteen_bit_types_round_trip) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const bf16 b{static_cast<std::uint16_t>(bits)};
    const f16 h{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(b)))
      EXPECT_EQ(to_bf16(to_float(b)).bits, 0x7fff);
    else
      ASSERT_EQ(to_bf16(to_float(b)).bits, bits);
    if (std::isnan(to_float(h)))
      EXPECT_EQ(to_f16(to_float(h)).bits, 0x7fff);
    else
      ASSERT_EQ(to_f16(to_float(h)).bits, bits);
  }
}

TEST(DTypes, known_half_values) {
  EXPECT_EQ(to_float(f16{0x3c00}), 1.0f);
  EXPECT_EQ(to_float(f16{0xc000}), -2.0f);
  EXPECT_EQ(to_float(f16{0x7bff}), 65504.0f);
  EXPECT_EQ(to_float(f16{0x0001}), std::ldexp(1.0f, -24));
  EXPECT_EQ(to_float(f16{0x0400}), std::ldexp(1.0f, -14));
  EXPECT_EQ(to_float(f16{0x7c00}), std::numeric_limits<float>::infinity());
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);  // below half way to 2^16
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);  // half way: to even, which is infinity
}

// Between two neighbours: nearest, ties to the even one.
TEST(DTypes, rounding_is_to_nearest_even) {
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = to_float(f16{static_cast<std::uint16_t>(bits)}),
                high = to_float(f16{static_cast<std::uint16_t>(bits + 1)}),
                middle = 0.5f * (low + high);  // exact: f16 has few bits
    ASSERT_EQ(to_f16(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(to_f16(std::nextafterf(middle, 0.0f)).bits, bits);
    ASSERT_EQ(to_f16(std::nextafterf(middle, 1e9f)).bits, bits + 1);
  }
  for (std::uint32_t bits = 0x0080; bits < 0x7f7f; ++bits) {
    const float middle = float_from_bits(bits << 16 | 0x8000u);
    ASSERT_EQ(to_bf16(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(to_bf16(std::nextafterf(middle, 0.0f)).bits, bits);
    ASSERT_EQ(to_bf16(std::nextafterf(middle, HUGE_VALF)).bits, bits + 1);
  }
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7f80);  // rounds up to infinity
}

TEST(DTypes, conversion_to_integers_truncates_and_saturates) {
  using kernels::convert;
  EXPECT_EQ((convert<std::int32_t, float>(-2.9f)), -2);
  EXPECT_EQ((convert<std::int32_t, float>(3e9f)), 2147483647);
  EXPECT_EQ((convert<std::int32_t, double>(-3e9)), -2147483647 - 1);
  EXPECT_EQ((convert<std::uint8_t, float>(-1.0f)), 0);
  EXPECT_EQ((convert<std::uint8_t, float>(300.0f)), 255);
  EXPECT_EQ((convert<std::int64_t, double>(1e300)), 9223372036854774784);
  EXPECT_EQ((convert<std::int32_t, float>(std::nanf(""))), 0);
  EXPECT_EQ((convert<std::uint8_t, std::int32_t>(257)), 1);  // the low bits
  EXPECT_EQ((convert<double, std::int64_t>(1LL << 53)), 9007199254740992.0);
}

TEST(DTypes, names_and_sizes) {
  EXPECT_STREQ(name_of(DType::kBF16), "bf16");
  EXPECT_EQ(size_of(DType::kI64), 8u);
  EXPECT_EQ(size_of(DType::kU8), 1u);
  EXPECT_TRUE(is_floating(DType::kF16));
  EXPECT_FALSE(is_floating(DType::kI32));
  EXPECT_EQ(dtype_of<std::int32_t>, DType::kI32);
  EXPECT_THROW(dispatch_float(DType::kI32, "test", []<class T>() {}), Error);
}

}  // namespace
}  // namespace retort::test
