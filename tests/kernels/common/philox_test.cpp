#include "kernels/common/philox.h"

#include <gtest/gtest.h>

namespace retort::test {
namespace {

// The known answers that Random123 ships (kat_vectors, philox4x32 10).
TEST(Philox, known_answers) {
  const auto expect = [](const Philox4& r, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                         std::uint32_t d) {
    EXPECT_EQ(r.v[0], a);
    EXPECT_EQ(r.v[1], b);
    EXPECT_EQ(r.v[2], c);
    EXPECT_EQ(r.v[3], d);
  };
  expect(philox(0, 0, 0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  expect(philox(~std::uint64_t{0}, ~0u, ~0u, ~0u, ~0u), 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd);
  expect(philox(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST(Philox, numbers_stay_in_their_range) {
  EXPECT_EQ(uniform01(0), 0.0f);
  EXPECT_LT(uniform01(~0u), 1.0f);
  EXPECT_EQ(uniform_below(~0u, 10), 9u);
  EXPECT_EQ(uniform_below(0, 10), 0u);
  EXPECT_EQ(uniform_below(~0u, 1), 0u);
}

TEST(Philox, path_hash_is_fnv1a) {
  EXPECT_EQ(path_hash(""), 0x811c9dc5u);
  EXPECT_EQ(path_hash("a"), 0xe40c292cu);
  EXPECT_EQ(path_hash("foobar"), 0xbf9cf968u);
}

}  // namespace
}  // namespace retort::test
