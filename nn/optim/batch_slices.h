// What the slices of one batch leave in an arena: gradients and statistics, added in a fixed order.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "nn/optim/arena.h"
#include "nn/optim/rank_exchange.h"
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
///
/// With several ranks this one runs slices [first(), last()) of the M, finish() gives what it owns
/// of the sum (Note [Owners]), update_statistics() moves the statistics among that, and share()
/// ends the step: all of the arena's values are then the same bytes on all ranks. finish() and
/// share() are collective; so is a step, then, and one that throws on one rank leaves the others
/// waiting for it.
class BatchSlices {
 public:
  /// The arena has f32 values, and its statistics; it must outlive this object and stay in place.
  /// ranks: who shares a batch; null or one rank: nobody.
  /// Errors    kUsage of RankExchange; for values that are not on the CPU, with several ranks.
  BatchSlices(ParameterArena& arena, std::int64_t slices, Communicator* ranks = nullptr);
  BatchSlices(const BatchSlices&) = delete;
  BatchSlices& operator=(const BatchSlices&) = delete;

  std::int64_t count() const { return sum_.slices(); }  // M
  std::int64_t first() const { return mine_.begin; }    // slices that are to be run here
  std::int64_t last() const { return mine_.end; }
  /// Elements of the arena's parameters that are updated here: all of them on one rank.
  RankExchange::Range own() const;
  RankExchange* exchange() const { return exchange_.get(); }  // null on one rank
  /// Pass `part` of a slice, from 0: where its statistics go.
  StatisticsScope::Send begin_pass(std::int64_t part);
  /// Slice s has run: the arena's gradients are taken over and cleared. Without samples there was
  /// no pass: it counts as zeros.
  void add(std::int64_t s, bool has_samples);
  /// Gradients of all slices: those of own(), until the next step.
  /// Errors    kUsage unless all of [first(), last()) were added.
  Tensor finish();
  /// Behind finish(). skip: see kernels/slice_sum; may be null.
  void update_statistics(const std::int32_t* skip);
  /// Behind the update of what this rank owns. Nothing on one rank.
  void share();
  /// Forgets a step that came to no end.
  void clear();

 private:
  StatisticsPlace place_of(const Tensor& running, double momentum, std::int64_t part);
  Tensor statistics_of(const Tensor& flat) const;
  void tell_what_was_reached();

  ParameterArena& arena_;
  RankExchange::Range mine_;
  SliceSum sum_;  // of slices that are mine
  std::unique_ptr<RankExchange> exchange_;
  RankExchange::Range kept_;      // elements of values and statistics that are updated here
  Tensor total_;                  // (kept), of the last finish()
  std::vector<double> momentum_;  // by statistic; below 0: not reached in this step
  std::int64_t added_ = 0, with_samples_ = 0;  // slices
};

}  // namespace retort::nn
