#include "kernels/softmax/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax/softmax_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/exp-inl.h"
#include "kernels/common/parallel.h"
#include "kernels/common/vector_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

std::int64_t rows_per_chunk(std::int64_t classes) {
  return std::max<std::int64_t>(1, (std::int64_t{1} << 15) / classes);
}

// Elements whose float partial sums are added in double: 32 in each lane, however many lanes the
// processor has, so that adding them costs less precision than the exponentials have.
HWY_INLINE std::int64_t run_length() {
  return 32 * static_cast<std::int64_t>(hn::Lanes(FloatTag()));
}
constexpr float kLowest = std::numeric_limits<float>::lowest();  // finite: -inf - -inf is NaN
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// ------------------------------------------------------------------------- one row of f32 or bf16

template <class T>
float max_of_row(const T* x, std::int64_t n) {
  const FloatTag d;
  FloatVector max = hn::Set(d, kLowest);
  for_each_floats(n, kMinusInfinity, [&](std::int64_t, const auto& load, const auto&) HWY_ATTR {
    max = hn::Max(load(x), max);
  });
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

// y may be x. Where y can hold them, the exponentials are kept in it.
template <class T>
void softmax_row(T* y, const T* x, std::int64_t n, bool log) {
  constexpr bool kKeep = std::is_same_v<T, float>;
  const FloatTag d;
  const float max = max_of_row(x, n);
  const FloatVector vmax = hn::Set(d, max), scale = hn::Set(d, kLog2E);
  double sum = 0;
  const std::int64_t length = run_length();
  for (std::int64_t at = 0; at < n; at += length) {
    FloatVector run = hn::Zero(d);
    for_each_floats(std::min(length, n - at), kMinusInfinity,
                    [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
                      const FloatVector e = exp2_scaled(d, hn::Sub(load(x + at), vmax), scale);
                      run = hn::Add(run, e);
                      if (kKeep && !log) store(e, y + at);
                    });
    sum += sum_of_lanes(run);
  }
  const FloatVector inverse = hn::Set(d, static_cast<float>(sum == 0 ? 0 : 1 / sum)),
                    log_sum = hn::Set(d, static_cast<float>(sum == 0 ? 0 : std::log(sum)));
  for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
    if (log)
      store(hn::Sub(hn::Sub(load(x), vmax), log_sum), y);
    else if (kKeep)
      store(hn::Mul(load(y), inverse), y);
    else
      store(hn::Mul(exp2_scaled(d, hn::Sub(load(x), vmax), scale), inverse), y);
  });
}

template <class T>
void softmax_backward_row(T* dx, const T* dy, const T* y, std::int64_t n, bool log) {
  const FloatTag d;
  double total = 0;
  const std::int64_t length = run_length();
  for (std::int64_t at = 0; at < n; at += length) {
    FloatVector run = hn::Zero(d);
    for_each_floats(std::min(length, n - at), 0.0f,
                    [&](std::int64_t, const auto& load, const auto&) HWY_ATTR {
                      const FloatVector g = load(dy + at);
                      run = log ? hn::Add(run, g) : hn::MulAdd(g, load(y + at), run);
                    });
    total += sum_of_lanes(run);
  }
  const FloatVector sum = hn::Set(d, static_cast<float>(total)), scale = hn::Set(d, kLog2E);
  for_each_floats(n, 0.0f, [&](std::int64_t, const auto& load, const auto& store) HWY_ATTR {
    const FloatVector g = load(dy), p = load(y);
    store(log ? hn::NegMulAdd(exp2_scaled(d, p, scale), sum, g) : hn::Mul(hn::Sub(g, sum), p), dx);
  });
}

// ---------------------------------------------------------------------------------- one row of f64

void softmax_row(double* y, const double* x, std::int64_t n, bool log) {
  double max = std::numeric_limits<double>::lowest();
  for (std::int64_t v = 0; v < n; ++v) max = std::max(max, x[v]);
  double sum = 0;
  for (std::int64_t v = 0; v < n; ++v) sum += std::exp(x[v] - max);
  const double inverse = sum == 0 ? 0 : 1 / sum, log_sum = sum == 0 ? 0 : std::log(sum);
  for (std::int64_t v = 0; v < n; ++v)
    y[v] = log ? x[v] - max - log_sum : std::exp(x[v] - max) * inverse;
}

void softmax_backward_row(double* dx, const double* dy, const double* y, std::int64_t n, bool log) {
  double sum = 0;
  for (std::int64_t v = 0; v < n; ++v) sum += log ? dy[v] : dy[v] * y[v];
  for (std::int64_t v = 0; v < n; ++v)
    dx[v] = log ? dy[v] - std::exp(y[v]) * sum : (dy[v] - sum) * y[v];
}

// ------------------------------------------------------------------------------------- all the
// rows

void softmax_rows(const SoftmaxArgs& a) {
  dispatch_float(a.dtype, "softmax", [&]<class T>() {
    parallel_for(a.rows, rows_per_chunk(a.classes), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        softmax_row(static_cast<T*>(a.y) + i * a.y_pitch,
                    static_cast<const T*>(a.x) + i * a.x_pitch, a.classes, a.log);
    });
  });
}

void softmax_backward_rows(const SoftmaxBackwardArgs& a) {
  dispatch_float(a.dtype, "softmax_backward", [&]<class T>() {
    parallel_for(a.rows, rows_per_chunk(a.classes), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        softmax_backward_row(static_cast<T*>(a.dx) + i * a.dx_pitch,
                             static_cast<const T*>(a.dy) + i * a.dy_pitch,
                             static_cast<const T*>(a.y) + i * a.y_pitch, a.classes, a.log);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<SoftmaxArgs> softmax_cuda = nullptr;
CudaOp<SoftmaxBackwardArgs> softmax_backward_cuda = nullptr;

HWY_EXPORT(softmax_rows);
HWY_EXPORT(softmax_backward_rows);

void softmax_cpu(const Context&, const SoftmaxArgs& args) {
  HWY_DYNAMIC_DISPATCH(softmax_rows)(args);
}
void softmax_backward_cpu(const Context&, const SoftmaxBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(softmax_backward_rows)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
