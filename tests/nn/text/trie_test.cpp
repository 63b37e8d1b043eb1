#include "nn/text/trie.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kernels/common/philox.h"

namespace retort::test {
namespace {

using nn::Trie;

TEST(Trie, finds_what_it_holds_and_nothing_else) {
  const std::string all_bytes = [] {
    std::string s;
    for (int b = 1; b < 256; ++b) s += static_cast<char>(b);
    return s;
  }();
  std::map<std::string, std::int32_t> held{{"a", 0}, {"ab", 1},      {"abcd", 2},
                                           {"b", 3}, {all_bytes, 4}, {std::string(3000, 'x'), 5}};
  // Few letters, so that strings share their beginnings, and every byte.
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const Philox4 r = philox(5, i, 0, 0, 0);
    std::string s(1 + r.v[0] % 9, ' ');
    for (std::size_t k = 0; k < s.size(); ++k) {
      const std::uint32_t bits = philox(5, i, static_cast<std::uint32_t>(k), 1, 0).v[0];
      s[k] = static_cast<char>(i % 4 == 0 ? 1 + bits % 255 : 'a' + bits % 4);
    }
    held.emplace(s, static_cast<std::int32_t>(held.size()));
  }
  std::vector<Trie::Entry> entries(held.begin(), held.end());
  const Trie trie(entries);
  for (const auto& [text, number] : held) {
    EXPECT_EQ(trie.find(text), number);
    for (const char* more : {"a", "\x01", "\xff"}) {
      const auto longer = held.find(text + more);
      EXPECT_EQ(trie.find(text + more), longer == held.end() ? -1 : longer->second);
    }
    const std::string shorter = text.substr(0, text.size() - 1);
    const auto found = held.find(shorter);
    EXPECT_EQ(trie.find(shorter), found == held.end() ? -1 : found->second);
  }
}

TEST(Trie, empty_strings_and_empty_tries_and_zero_bytes) {
  const Trie none;
  EXPECT_EQ(none.find(""), -1);
  EXPECT_EQ(none.find("a"), -1);
  EXPECT_EQ(none.find(std::string(1, '\0')), -1);
  const Trie one({{"a", 7}});
  EXPECT_EQ(one.find("a"), 7);
  EXPECT_EQ(one.find(""), -1);
  EXPECT_EQ(one.find(std::string("a\0", 2)), -1);
}

}  // namespace
}  // namespace retort::test
