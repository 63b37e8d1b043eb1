#include "nn/optim/slice_sum.h"

#include <algorithm>
#include <bit>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/slice_sum/slice_sum.h"

namespace retort::nn {
namespace {

bool is_power_of_two(std::int64_t n) { return std::has_single_bit(static_cast<std::uint64_t>(n)); }

// Nodes of one size that wait at once: as many as a binary counter has ones.
int most_waiting(std::int64_t nodes) {
  int most = 0;
  for (std::int64_t n = 1; n <= nodes; ++n)
    most = std::max(most, std::popcount(static_cast<std::uint64_t>(n)));
  return most;
}

}  // namespace

SliceSum::SliceSum(std::int64_t slices, std::int64_t nodes, std::int64_t numel, Device device)
    : slices_(slices), numel_(numel), device_(device) {
  RETORT_CHECK(slices >= 1 && slices <= kMostSlices && nodes >= 1 && nodes <= slices && numel >= 0,
               "[slice_sum] expected 1 to ", kMostSlices, " slices and as many nodes at most, got ",
               slices, " and ", nodes);
  const MemoryRoleScope role(MemoryRole::kGradients);
  for (int i = most_waiting(nodes); i > 0; --i)
    memory_.push_back(Tensor::empty({numel}, DType::kF32, device));
}

// Two neighbours that a node of the tree is made of.
bool SliceSum::complete(const Node& left, const Node& right) const {
  return left.count == right.count && left.begin % (2 * left.count) == 0;
}

void SliceSum::add(std::int64_t begin, std::int64_t count, const Tensor& values) {
  const bool is_node = count >= 1 && is_power_of_two(count) && begin >= 0 && begin % count == 0 &&
                       begin + count <= slices_;
  RETORT_CHECK(is_node, "[slice_sum] slices ", begin, " to ", begin + count, " of ", slices_,
               " are no node of the tree");
  RETORT_CHECK(waiting_.empty() || waiting_.back().end() == begin, "[slice_sum] expected slice ",
               waiting_.empty() ? 0 : waiting_.back().end(), ", got ", begin);
  RETORT_CHECK(values.defined() && values.shape() == Shape{numel_} &&
                   values.dtype() == DType::kF32 && values.device() == device_,
               "[slice_sum] expected ", numel_, " f32 values on ", name_of(device_));
  kernels::SliceSumArgs args;
  Node node{begin, count};
  std::size_t place = waiting_.size();
  while (place > 0 && complete(waiting_[place - 1], node)) {
    node = {waiting_[place - 1].begin, 2 * node.count};
    --place;
  }
  for (std::size_t i = place; i < waiting_.size(); ++i) args.push(memory_[i].data<float>());
  args.push(values.data<float>());
  RETORT_CHECK(place < memory_.size(), "[slice_sum] expected fewer nodes");
  args.out = memory_[place].data<float>();
  args.n = numel_;
  kernels::slice_sum(context_of(device_), args);
  waiting_.resize(place);
  waiting_.push_back(node);
}

const Tensor& SliceSum::finish() {
  RETORT_CHECK(!waiting_.empty(), "[slice_sum] expected at least one slice");
  const std::int64_t begin = waiting_.front().begin, end = waiting_.back().end();
  RETORT_CHECK(waiting_.size() == 1 || (begin == 0 && end == slices_), "[slice_sum] slices ", begin,
               " to ", end, " of ", slices_, " are no node of the tree");
  if (waiting_.size() > 1) {
    kernels::SliceSumArgs args;
    for (std::size_t i = 0; i < waiting_.size(); ++i) args.push(memory_[i].data<float>());
    args.out = memory_[0].data<float>();
    args.n = numel_;
    kernels::slice_sum(context_of(device_), args);
  }
  waiting_.clear();
  return memory_[0];
}

}  // namespace retort::nn
