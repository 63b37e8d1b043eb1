#include "nn/text/trie.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>

#include "kernels/common/check.h"

namespace retort::nn {
namespace {

constexpr std::uint32_t kMaxUnits = std::uint32_t{1} << 23;  // what 23 bits of offset reach
constexpr std::size_t kOpenBlocks = 16;  // blocks in which room is sought: keeps building linear

class Builder {
 public:
  explicit Builder(std::vector<Trie::Entry> entries) : entries_(std::move(entries)) {
    std::sort(entries_.begin(), entries_.end());
    add_block();
    take(0);
    offset_taken_[0] = true;  // so that the root is not 0
    // Breadth first: what most words begin with lies together.
    waiting_.push_back({0, 0, entries_.size(), 0});
    while (!waiting_.empty()) {
      const Range range = waiting_.front();
      waiting_.pop_front();
      place_children(range);
    }
  }
  std::vector<Trie::Node> units;

 private:
  struct Range {  // the entries that share the first `depth` bytes, which lead to `unit`
    std::uint32_t unit;
    std::size_t first, last, depth;
  };
  struct Child {
    std::uint8_t label;  // 0: the string that ends here
    std::size_t first, last;
  };

  void place_children(const Range& range) {
    children_.clear();
    for (std::size_t i = range.first; i < range.last;) {
      const std::string_view text = entries_[i].first;
      if (text.size() == range.depth) {
        children_.push_back({0, i, i + 1});
        ++i;
        continue;
      }
      const auto label = static_cast<std::uint8_t>(text[range.depth]);
      const std::size_t first = i;
      while (i < range.last && static_cast<std::uint8_t>(entries_[i].first[range.depth]) == label)
        ++i;
      children_.push_back({label, first, i});
    }
    if (children_.empty()) return;  // no entries at all
    const std::uint32_t offset = find_offset();
    offset_taken_[offset] = true;
    units[range.unit] |= offset << 9;
    for (const Child& child : children_) {
      const std::uint32_t at = offset ^ child.label;
      take(at);
      if (child.label == 0) {
        units[range.unit] |= 0x100u;
        units[at] = static_cast<std::uint32_t>(entries_[child.first].second) << 9;
      } else {
        units[at] = child.label;
        waiting_.push_back({at, child.first, child.last, range.depth + 1});
      }
    }
  }

  // An offset that no unit has, with a free unit for each child. Children lie in the block of 256
  // of their offset, as a label changes its last eight bits alone.
  std::uint32_t find_offset() {
    for (std::size_t k = open_.size(); k-- > 0;) {
      const std::uint32_t block = open_[k];
      for (std::uint32_t word = 0; word < 4; ++word)
        for (std::uint64_t bits = free_[block][word]; bits != 0; bits &= bits - 1) {
          const auto slot = static_cast<std::uint32_t>(std::countr_zero(bits)) + 64 * word;
          const std::uint32_t offset = (block * 256 + slot) ^ children_[0].label;
          if (!offset_taken_[offset] && fits(offset)) return offset;
        }
    }
    add_block();
    return static_cast<std::uint32_t>(units.size()) - 256;
  }
  bool fits(std::uint32_t offset) const {
    return std::all_of(children_.begin(), children_.end(), [&](const Child& child) {
      const std::uint32_t at = offset ^ child.label;
      return (free_[at / 256][at % 256 / 64] >> (at % 64) & 1) != 0;
    });
  }
  void take(std::uint32_t at) { free_[at / 256][at % 256 / 64] &= ~(std::uint64_t{1} << at % 64); }
  void add_block() {
    RETORT_CHECK_AS(kBadInput, units.size() + 256 <= kMaxUnits,
                    "[trie] the strings need more than ", kMaxUnits, " units");
    open_.push_back(static_cast<std::uint32_t>(units.size() / 256));
    if (open_.size() > kOpenBlocks) open_.erase(open_.begin());
    units.resize(units.size() + 256, 0);
    offset_taken_.resize(units.size(), false);
    free_.push_back({~std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0}});
  }

  std::vector<Trie::Entry> entries_;
  std::vector<std::array<std::uint64_t, 4>> free_;  // of each block, a bit for each unit
  std::vector<bool> offset_taken_;
  std::vector<std::uint32_t> open_;
  std::vector<Child> children_;
  std::deque<Range> waiting_;
};

}  // namespace

Trie::Trie(std::vector<Entry> entries) : units_(std::move(Builder(std::move(entries)).units)) {}

}  // namespace retort::nn
