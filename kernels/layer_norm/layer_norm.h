// Layer normalisation over the last dimension, fused with a residual add and dropout.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dropout_args.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// s[r, c] = drop(x)[r, c] + residual[r, c], rounded to dtype
/// y[r, c] = (s[r, c] - mean[r]) * rstd[r] * weight[c] + bias[c],  rstd = 1 / sqrt(var + epsilon)
///
/// mean and var (biased) are those of s[r, :].
///
/// Shapes    x, residual (R, C), rows *_pitch apart; y, sum (R, C) adjacent; all of `dtype` (f64,
///           f32, bf16). weight, bias (C) and mean, rstd (R): f64 for f64, else f32. sum = s where it
///           is not null; mean and rstd both or neither. y may be x or residual where those are
///           adjacent; sum too, but not the same as y.
/// Dropout   drop.p > 0: x passes dropout with these keys first, one row a row (dropout.h): the same
///           mask. Its pointers x, y and sizes are not read.
/// Numerics  mean and centred sum of squares in f32 (f64 for f64), in two passes over a row kept on
///           chip: no cancellation where |mean| >> deviation. Same bits for any thread count.
/// Cost      reads x and residual once, writes y and sum.
/// Errors    Error if R < 0, C < 1, epsilon <= 0, a pitch is too small or a needed pointer null; on
///           CUDA for f64, or for C above kLayerNormMostChannels.
/// Source    Ba, Kiros, Hinton 2016, arXiv:1607.06450.
struct LayerNormArgs {
  void* y;
  void* sum;  // may be null
  void *mean, *rstd;
  const void* x;
  const void* residual;  // may be null
  const void *weight, *bias;
  std::int64_t rows, channels, x_pitch, residual_pitch;
  double epsilon;
  DType dtype;
  DropoutArgs drop{};
};

void layer_norm_cpu(const Context& context, const LayerNormArgs& args);
extern CudaOp<LayerNormArgs> layer_norm_cuda;

/// With xhat = (s - mean) rstd and g = dy weight:
///
///   ds = rstd (g - mean_c(g) - xhat mean_c(g xhat))    dx = ds, or ds / (1 - p) where x was kept
///   dweight[c] = sum_r dy xhat    dbias[c] = sum_r dy
///
/// Shapes    dy, s (R, C), rows *_pitch apart; s is x where there was no residual and no dropout. ds,
///           dx (R, C) adjacent, each may be null: not wanted; dx is written with dropout only. With
///           add_to_ds, ds holds a gradient already and the new one is added. ds may be dy.
///           dweight, dbias: both or neither.
/// Numerics  dweight and dbias: rows added in runs of kLayerNormBand in f32, the runs in order in
///           f64. The same bits for any thread count.
/// Cost      reads dy and s once, writes ds and dx; scratch of 2 C sums a run.
struct LayerNormBackwardArgs {
  void* ds;
  void* dx;
  void *dweight, *dbias;
  const void *dy, *s;
  const void *mean, *rstd, *weight;
  std::int64_t rows, channels, dy_pitch, s_pitch;
  bool add_to_ds;
  DType dtype;
  DropoutArgs drop{};
};

void layer_norm_backward_cpu(const Context& context, const LayerNormBackwardArgs& args);
extern CudaOp<LayerNormBackwardArgs> layer_norm_backward_cuda;

/// Rows whose parts of dweight and dbias are added up in f32.
inline constexpr std::int64_t kLayerNormBand = 64;

/// The widest row that the CUDA kernels hold in registers.
inline constexpr std::int64_t kLayerNormMostChannels = 8192;

inline void layer_norm(const Context& context, const LayerNormArgs& a) {
  RETORT_CHECK(a.rows >= 0 && a.channels >= 1,
               "[layer_norm] expected rows >= 0 and channels >= 1, got ", a.rows, ", ", a.channels);
  RETORT_CHECK(a.epsilon > 0, "[layer_norm] expected epsilon > 0, got ", a.epsilon);
  RETORT_CHECK(a.drop.p >= 0 && a.drop.p < 1, "[layer_norm] expected p in [0, 1), got ", a.drop.p);
  if (a.rows == 0) return;
  RETORT_CHECK(
      a.rows == 1 || (a.x_pitch >= a.channels && (!a.residual || a.residual_pitch >= a.channels)),
      "[layer_norm] expected pitches >= ", a.channels, ", got ", a.x_pitch, ", ", a.residual_pitch);
  RETORT_CHECK(a.x && a.y && a.weight && a.bias && (a.mean != nullptr) == (a.rstd != nullptr),
               "[layer_norm] expected non-null x, y, weight and bias, and both mean and rstd or",
               " neither");
  dispatch("layer_norm", context, a, layer_norm_cpu, layer_norm_cuda);
}

inline void layer_norm_backward(const Context& context, const LayerNormBackwardArgs& a) {
  RETORT_CHECK(a.rows >= 0 && a.channels >= 1,
               "[layer_norm_backward] expected rows >= 0 and channels >= 1, got ", a.rows, ", ",
               a.channels);
  RETORT_CHECK((a.dweight != nullptr) == (a.dbias != nullptr),
               "[layer_norm_backward] expected both dweight and dbias, or neither");
  RETORT_CHECK(a.rows <= 1 || (a.dy_pitch >= a.channels && a.s_pitch >= a.channels),
               "[layer_norm_backward] expected pitches >= ", a.channels, ", got ", a.dy_pitch, ", ",
               a.s_pitch);
  RETORT_CHECK(a.rows == 0 || (a.dy && a.s && a.mean && a.rstd && a.weight),
               "[layer_norm_backward] expected non-null dy, s, mean, rstd and weight");
  RETORT_CHECK(!a.dx || a.drop.p > 0,
               "[layer_norm_backward] expected dx with dropout only: else it is ds");
  dispatch("layer_norm_backward", context, a, layer_norm_backward_cpu, layer_norm_backward_cuda);
}

}  // namespace retort::kernels
