// Batch normalisation over all dimensions but the last, fused with a residual add and ReLU.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[r,c] = [relu]((x[r,c] - mean[c]) * rstd[c] * weight[c] + bias[c] [+ residual[r,c]])
///
/// training: mean, var are those of x over r (var biased), rstd = 1 / sqrt(var + epsilon), and
///   running_mean := (1 - momentum) * running_mean + momentum * mean
///   running_var  := (1 - momentum) * running_var  + momentum * var * R / max(R - 1, 1)
/// otherwise mean = running_mean, var = running_var, which are only read.
///
/// With `statistics` (training only) mean and var come from these instead of a pass over x:
/// statistics[i, 0, c] = mean and [i, 1, c] = centred sum of squares of x over rows
/// i * statistics_rows to (i + 1) * statistics_rows, as conv2d writes them.
///
/// Shapes    x, residual, y (R, C) adjacent, of `dtype`; the others (C), f64 for f64, else f32;
///           statistics (ceil(R / statistics_rows), 2, C).
/// Units     momentum weighs the new value, as in PyTorch (default 0.1).
/// Numerics  f32 statistics for f32 and bf16: mean and centred sum of squares per chunk of rows,
///           merged by Chan's formula in a fixed order; no cancellation where |mean| >> std.
/// Cost      training reads x twice (once with statistics) and residual, writes y; scratch 2 * C
///           per chunk.
/// Errors    Error if R < 1 in training, C < 1, epsilon <= 0, a needed pointer is null, or dtype is
///           f64 on CUDA (f64 is for checks, which run on the CPU).
/// Source    Ioffe, Szegedy 2015, arXiv:1502.03167; Chan, Golub, LeVeque 1979 (merging).
struct BatchNormArgs {
  const void* x;
  const void* residual;  // may be null
  void* y;               // may be x or residual
  const void* weight;
  const void* bias;
  void* running_mean;  // both may be null in training: then no running statistics are kept
  void* running_var;
  void* mean;  // out, for the backward pass
  void* rstd;  // out
  std::int64_t rows;
  std::int64_t channels;
  double momentum;
  double epsilon;
  bool training;
  bool relu;
  DType dtype;
  const void* statistics = nullptr;
  std::int64_t statistics_rows = 0;
};

/// Gradients of the above. With g = dy where y > 0 (relu) or dy, xhat = (x - mean) * rstd:
///
///   dbias = sum_r g    dweight = sum_r g * xhat    dresidual = g
///   dx = weight * rstd * (g - dbias / R - xhat * dweight / R)    training
///   dx = weight * rstd * g                                       otherwise
///
/// Shapes    as above. y is read with relu only; null with relu: there was no residual, and
///           y > 0 is decided from x by the forward formula, which saves keeping and reading y.
/// Masking   relu passes no gradient where y == 0.
/// Numerics  sums in f32 (f64 for f64) per chunk of rows, chunks added in f64 in a fixed order.
/// Cost      reads dy and x twice (y too where given, or dresidual in place of dy and y).
struct BatchNormBackwardArgs {
  const void* dy;
  const void* x;
  const void* y;  // may be null
  const void* weight;
  const void* bias;  // read where y is null with relu
  const void* mean;
  const void* rstd;
  void* dx;         // may be null: not wanted
  void* dresidual;  // may be null; only with relu and y, else it would be dy
  void* dweight;
  void* dbias;
  std::int64_t rows;
  std::int64_t channels;
  bool training;
  bool relu;
  DType dtype;
};

void batch_norm_cpu(const Context& context, const BatchNormArgs& args);
void batch_norm_backward_cpu(const Context& context, const BatchNormBackwardArgs& args);
extern CudaOp<BatchNormArgs> batch_norm_cuda;
extern CudaOp<BatchNormBackwardArgs> batch_norm_backward_cuda;

inline void batch_norm(const Context& context, const BatchNormArgs& a) {
  RETORT_CHECK(a.channels >= 1, "[batch_norm] expected channels >= 1, got ", a.channels);
  RETORT_CHECK(a.rows >= (a.training ? 1 : 0),
               "[batch_norm] expected at least one row per channel in training, got ", a.rows);
  RETORT_CHECK(a.epsilon > 0, "[batch_norm] expected epsilon > 0, got ", a.epsilon);
  RETORT_CHECK((a.x && a.y) || a.rows == 0, "[batch_norm] expected non-null x and y");
  RETORT_CHECK(a.weight && a.bias && a.mean && a.rstd,
               "[batch_norm] expected non-null weight, bias, mean and rstd");
  RETORT_CHECK((a.running_mean != nullptr) == (a.running_var != nullptr),
               "[batch_norm] expected both running_mean and running_var, or neither");
  RETORT_CHECK(a.training || a.running_mean,
               "[batch_norm] expected running statistics outside training");
  RETORT_CHECK(
      !a.statistics || (a.training && a.statistics_rows >= 1),
      "[batch_norm] expected statistics in training only, of at least one row a chunk, got ",
      a.statistics_rows, " rows");
  dispatch("batch_norm", context, a, batch_norm_cpu, batch_norm_cuda);
}

inline void batch_norm_backward(const Context& context, const BatchNormBackwardArgs& a) {
  RETORT_CHECK(a.channels >= 1 && a.rows >= 0,
               "[batch_norm_backward] expected channels >= 1 and rows >= 0, got ", a.channels, ", ",
               a.rows);
  RETORT_CHECK(a.rows == 0 || (a.dy && a.x && (a.y || a.bias || !a.relu)),
               "[batch_norm_backward] expected non-null dy, x, and y or bias with relu");
  RETORT_CHECK(!a.dresidual || (a.relu && a.y),
               "[batch_norm_backward] expected dresidual only with relu and y: else it is dy");
  RETORT_CHECK(a.weight && a.mean && a.rstd && a.dweight && a.dbias,
               "[batch_norm_backward] expected non-null weight, mean, rstd, dweight and dbias");
  dispatch("batch_norm_backward", context, a, batch_norm_backward_cpu, batch_norm_backward_cuda);
}

}  // namespace retort::kernels
