// What ranks that share a batch tell each other in a step: the nodes of their slices, and what came
// of them.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "nn/optim/slice_sum.h"

namespace retort {
class Communicator;
}

namespace retort::nn {

/// The part of an array of f32 that each of R ranks owns, and the messages that go with it.
///
/// Note [Owners]
///   A batch of M slices is shared by R ranks: rank r has slices [r M / R, (r + 1) M / R), which
///   are one node of the tree of Note [Sum of slices] if M / R is a power of two. An array is cut
///   into blocks of 16,384 elements, and the blocks into R even parts. Rank r owns part r: it is
///   given that part of all nodes, adds them along the tree, updates what it owns, and sends that to
///   all. Messages move bytes, our own kernel adds; so the bytes depend on M and on neither R nor
///   the library that moves them.
///
/// Calls are collective, like those of Communicator. Arrays are on the CPU.
class RankExchange {
 public:
  struct Range {
    std::int64_t begin = 0, end = 0;
    std::int64_t size() const { return end - begin; }
    /// Of it, what lies in [first, last).
    Range within(std::int64_t first, std::int64_t last) const;
  };

  /// Memory: what R - 1 others send, about one array, and what the tree keeps of a part.
  /// Errors    kUsage with the numbers of ranks that go with so many slices if this one does not.
  RankExchange(Communicator& ranks, std::int64_t slices, std::int64_t numel);

  /// 1, and every R with a power of two for slices / R: ascending.
  static std::vector<std::int64_t> fitting_ranks(std::int64_t slices);
  /// Errors    kUsage: "slices = 8 goes with 1, 2, 4 or 8 ranks, got 3".
  static void check_ranks(std::int64_t slices, std::int64_t ranks);
  /// The slices of one of `ranks` ranks.
  static Range slices_of(std::int64_t slices, std::int64_t ranks, std::int64_t rank) {
    return {rank * slices / ranks, (rank + 1) * slices / ranks};
  }

  int ranks() const;
  int rank() const;
  Range slices() const;        // of this rank
  Range part(int rank) const;  // elements that a rank owns; may be none
  Range own() const { return part(rank()); }

  /// node: (numel), the sum of this rank's slices. What this rank owns of the sum of all slices:
  /// (own().size()), until the next call.
  Tensor sum(const Tensor& node);
  /// Of each block of the first n elements the sum of squares, in order, on all ranks. own: what
  /// sum() gave, or as much of it as lies there.
  std::vector<double> squares(const Tensor& own, std::int64_t n);
  /// values: an array whose element 0 is element 0 of the blocks, at most numel long. Every rank
  /// sends the part that it owns; then all hold the same bytes.
  void share(const Tensor& values);
  /// Numbers of all ranks, equally many of each, one rank after the other.
  std::vector<double> gather(std::span<const double> mine);

 private:
  Communicator& ranks_;
  std::int64_t numel_;
  std::optional<SliceSum> sum_;  // of what this rank owns; its slices are M
  Tensor inbox_;                 // (R - 1, own): the others' nodes, by rank
};

}  // namespace retort::nn
