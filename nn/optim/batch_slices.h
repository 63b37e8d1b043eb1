// What the slices of one batch leave in an arena: gradients and statistics, added in a fixed order.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/optim/arena.h"
#include "nn/optim/slice_sum.h"
#include "nn/slice_statistics.h"

namespace retort::nn {

/// A step of M slices, slice by slice, by number:
///
///   { StatisticsScope scope(slices.begin_pass(i));  forward and backward of part i of slice s }
///   slices.add(s, true);                            its gradients join the sum
///   ... finish() gives the sum of all gradients, update_statistics() moves the running ones
///
/// Every slice leaves statistics of its own (Note [Statistics of a slice]); of several passes of a
/// slice these are the mean. The running statistics take in the mean over the slices that had
/// samples, each as much as the other. What no pass reached stays as it is.
class BatchSlices {
 public:
  /// The arena has f32 values, and its statistics; it must outlive this object and stay in place.
  BatchSlices(ParameterArena& arena, std::int64_t slices);
  BatchSlices(const BatchSlices&) = delete;
  BatchSlices& operator=(const BatchSlices&) = delete;

  std::int64_t count() const { return sum_.slices(); }  // M
  /// Pass `part` of a slice, from 0: where its statistics go.
  StatisticsScope::Send begin_pass(std::int64_t part);
  /// Slice s has run: the arena's gradients are taken over and cleared. Without samples there was
  /// no pass: it counts as zeros.
  void add(std::int64_t s, bool has_samples);
  /// Gradients of all slices: (n), until the next step. Errors    kUsage before all were added.
  Tensor finish();
  /// Behind finish(). skip: see kernels/slice_sum; may be null.
  void update_statistics(const std::int32_t* skip);
  /// Forgets a step that came to no end.
  void clear();

 private:
  StatisticsPlace place_of(const Tensor& running, double momentum, std::int64_t part);
  Tensor statistics_of(const Tensor& flat) const;

  ParameterArena& arena_;
  SliceSum sum_;
  Tensor total_;                  // (n + s), of the last finish()
  std::vector<double> momentum_;  // by statistic; below 0: not reached in this step
  std::int64_t added_ = 0, with_samples_ = 0;
};

}  // namespace retort::nn
