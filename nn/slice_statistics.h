// Where a layer leaves the statistics of a training pass.
//
// Note [Statistics of a slice]
//   A layer that keeps running statistics averages those of each training pass into them. Where a
//   batch is trained slice by slice, that would make the result depend on which slices a process
//   sees, and in which order. So for the time of a slice's passes the statistics go elsewhere, one
//   place for each slice; they are added like gradients, and the running ones take in the mean of
//   all slices, once a step. A layer asks statistics_place() in each training pass and writes
//
//     place := (1 - momentum) * place + momentum * statistics of the pass
#pragma once
#include <functional>

#include "engine/tensor/tensor.h"

namespace retort::nn {

struct StatisticsPlace {
  Tensor values;  // of the running statistics' shape
  double momentum = 0;
};

/// The running statistics with their own momentum, or where a StatisticsScope of this thread sends
/// them.
StatisticsPlace statistics_place(const Tensor& running, double momentum);

/// While one lives, this thread's layers ask it where statistics go.
class StatisticsScope {
 public:
  using Send = std::function<StatisticsPlace(const Tensor& running, double momentum)>;
  explicit StatisticsScope(Send send);
  ~StatisticsScope();
  StatisticsScope(const StatisticsScope&) = delete;
  StatisticsScope& operator=(const StatisticsScope&) = delete;

 private:
  Send send_;
  const StatisticsScope* before_;
  friend StatisticsPlace statistics_place(const Tensor& running, double momentum);
};

}  // namespace retort::nn
