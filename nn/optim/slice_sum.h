// Arrays that slices of a batch leave behind, added along a tree that their number alone decides.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort::nn {

/// The most slices of a batch.
inline constexpr std::int64_t kMostSlices = 1024;

/// Samples [first, second) of slice s of a batch of `samples`: [s b / M, (s + 1) b / M). Nothing of
/// a batch is left out; with fewer samples than slices some are empty.
inline std::pair<std::int64_t, std::int64_t> slice_of(std::int64_t samples, std::int64_t slices,
                                                      std::int64_t s) {
  return {s * samples / slices, (s + 1) * samples / slices};
}

/// A sum over M slices as Note [Sum of slices] (kernels/slice_sum) orders it. It knows numbers of
/// slices only: who made a slice, and how many were added elsewhere before, is all the same to it,
/// and so are the bytes that come out.
///
/// A node holds the sum of slices [begin, begin + count). Whoever has slices one by one adds nodes
/// of one; whoever is given the sums of others' blocks adds those.
class SliceSum {
 public:
  /// Arrays of f32 (numel) on the device. nodes: the most that one sum is put together from; memory
  /// for what waits is made here, about log2(nodes) arrays.
  SliceSum(std::int64_t slices, std::int64_t nodes, std::int64_t numel, Device device);

  std::int64_t slices() const { return slices_; }  // M
  /// Adds the node of slices [begin, begin + count); `values` may be overwritten afterwards.
  /// Errors    kUsage unless it follows on the node before and is a node of the tree, or `values`
  ///           are others than said above.
  void add(std::int64_t begin, std::int64_t count, const Tensor& values);
  /// What was added, as one node, and forgets it: valid until the next add().
  /// Errors    kUsage if nothing was added, or its slices are neither all M nor a node of the tree.
  const Tensor& finish();
  /// Forgets what was added.
  void clear() { waiting_.clear(); }

 private:
  struct Node {
    std::int64_t begin, count;
    std::int64_t end() const { return begin + count; }
  };
  bool complete(const Node& left, const Node& right) const;

  std::int64_t slices_, numel_;
  Device device_;
  std::vector<Tensor> memory_;  // of waiting_, by its index
  std::vector<Node> waiting_;   // neighbours, from the left
};

}  // namespace retort::nn
