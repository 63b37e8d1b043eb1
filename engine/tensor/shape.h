// Sizes of a tensor, outermost first.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "kernels/common/check.h"

namespace retort {

/// At most kMaxRank sizes, each >= 0. A rank-0 shape has one element (a scalar).
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes)
      : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes) {
    RETORT_CHECK(sizes.size() <= kMaxRank, "[shape] expected at most ", kMaxRank,
                 " dimensions, got ", sizes.size());
    for (const std::int64_t size : sizes) push_back(size);
  }

  int rank() const { return rank_; }
  /// Size of dimension i; negative i counts from the end.
  std::int64_t operator[](int i) const {
    const int k = i < 0 ? i + rank_ : i;
    RETORT_CHECK(k >= 0 && k < rank_, "[shape] expected a dimension of ", str(), ", got ", i);
    return sizes_[static_cast<std::size_t>(k)];
  }
  void push_back(std::int64_t size) {
    RETORT_CHECK(size >= 0, "[shape] expected sizes >= 0, got ", size);
    RETORT_CHECK(rank_ < kMaxRank, "[shape] expected at most ", kMaxRank, " dimensions");
    sizes_[static_cast<std::size_t>(rank_++)] = size;
  }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i)
      RETORT_CHECK(!__builtin_mul_overflow(n, sizes_[static_cast<std::size_t>(i)], &n), "[shape] ",
                   str(), " has too many elements");
    return n;
  }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(rank_); ++i)
      if (sizes_[i] != other.sizes_[i]) return false;
    return true;
  }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }
  /// "(2, 3, 4)"
  std::string str() const {
    std::string text = "(";
    for (int i = 0; i < rank_; ++i)
      text += (i ? ", " : "") + std::to_string(sizes_[static_cast<std::size_t>(i)]);
    return text + ")";
  }

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << shape.str();
}

}  // namespace retort
