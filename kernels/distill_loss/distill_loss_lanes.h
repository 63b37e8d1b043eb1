// Rows of few classes on the CPU, as many at a time as a vector has lanes.
#pragma once
#include "kernels/distill_loss/distill_loss_rows.h"

namespace retort::kernels::distill {

inline constexpr std::int64_t kMostLanes = 16;
/// Up to here rows go by lanes, from here on by blocks of classes.
inline constexpr std::int64_t kMostLaneClasses = 128;

/// Rows first, first + 1, ...: one in each lane, as far as `active` says. All rows have a teacher,
/// or none, and one kind of temperature. What is not a float is a double so that lanes of it can be
/// loaded; every array holds something in all lane_count() lanes, rows of logits too.
struct LaneGroup {
  const DistillLossArgs* args;
  std::int64_t first;
  std::uint32_t active;
  TauKind tau_kind;
  bool teacher, gradient;
  const float* s[kMostLanes];
  const float* t[kMostLanes];
  float* ds[kMostLanes];  // may be s
  alignas(64) double tau[kMostLanes], inv_tau[kMostLanes];
  alignas(64) double ce_weight[kMostLanes], kd_weight[kMostLanes];  // 1/Z included
  alignas(64) double target[kMostLanes];                            // -1: none
  alignas(64) double at_s[kMostLanes], at_t[kMostLanes];            // logits at the target
  double* row_loss;                                                 // of row `first`
  float* space;  // lane_scratch_floats(V), aligned to a cache line
};

/// Logits and exponentials, transposed: class after class, a vector of rows each.
struct LaneArrays {
  float *s, *t, *es, *et, *e1;
  LaneArrays(float* space, std::int64_t classes) {
    const std::int64_t step = classes * kMostLanes;
    s = space, t = s + step, es = t + step, et = es + step, e1 = et + step;
  }
};
constexpr std::int64_t lane_scratch_floats(std::int64_t classes) {
  return 5 * classes * kMostLanes;
}

/// Losses, statistics and gradients of the active rows; returns those left undone, whose logits
/// are not what lanes are made for (Note [Lanes across rows]).
std::uint32_t lane_rows(LaneGroup& group);
std::int64_t lane_count();

}  // namespace retort::kernels::distill
