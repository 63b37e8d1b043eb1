// A set of byte strings with a number each, walked a byte at a time: a double array of 32-bit
// units.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace retort::nn {

/// Immutable once built; reading it from many threads is safe.
///
/// A unit holds its label (the byte that leads to it, bits 0-7), whether a string ends there (bit
/// 8) and an offset (bits 9-31): the child by byte b is unit[offset ^ b], if its label is b; the
/// number of the string that ends there is in unit[offset]. No two units have one offset, so a
/// label is enough to know a child by. Byte 0 leads nowhere.
///
/// Source  Aoe 1989, "An efficient digital search algorithm by using a double-array structure"; the
///         exclusive or and the packing as in S. Yata's Darts-clone.
class Trie {
 public:
  using Node = std::uint32_t;  // a unit; 0 is no node
  using Entry = std::pair<std::string_view, std::int32_t>;

  Trie() : Trie(std::vector<Entry>{}) {}
  /// Strings are not empty, hold no byte 0 and differ; numbers are in [0, 2^23).
  /// Throws Error(kBadInput) if there is no room: about 8 million units.
  explicit Trie(std::vector<Entry> entries);

  Node root() const { return units_[0]; }
  /// The node that `byte` leads to, or 0.
  Node step(Node node, std::uint8_t byte) const {
    const Node next = units_[(node >> 9) ^ byte];
    return (next & 0xffu) == byte ? next : 0;
  }
  static bool ends(Node node) { return (node & 0x100u) != 0; }
  std::int32_t number(Node node) const {  // of a node where a string ends
    return static_cast<std::int32_t>(units_[node >> 9] >> 9);
  }

  /// Where `text` leads from `from`, or 0.
  Node walk(Node from, std::string_view text) const {
    for (std::size_t i = 0; i < text.size() && from != 0; ++i)
      from = text[i] == 0 ? 0 : step(from, static_cast<std::uint8_t>(text[i]));
    return from;
  }
  /// The number of this very string, or -1.
  std::int32_t find(std::string_view text) const {
    const Node node = walk(root(), text);
    return node != 0 && ends(node) ? number(node) : -1;
  }

 private:
  std::vector<Node> units_;  // whole blocks of 256
};

}  // namespace retort::nn
