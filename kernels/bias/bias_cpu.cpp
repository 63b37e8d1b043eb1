#include "kernels/bias/bias.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bias/bias_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/bias_rows.h"
#include "kernels/common/column_sums-inl.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

template <class T, bool kBias, Activation kF>
void some_rows(T* y, const T* x, const T* bias, std::int64_t rows, std::int64_t columns,
               std::int64_t pitch) {
  using A = accumulator_t<T>;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      A v = to_float(x[r * pitch + c]);
      if (kBias) v += to_float(bias[c]);
      y[r * pitch + c] = from_float<T>(activate<kF>(v));
    }
}

template <class T>
void rows_of(T* y, const T* x, const T* bias, std::int64_t rows, std::int64_t columns,
             std::int64_t pitch, Activation activation) {
  dispatch_bool(bias != nullptr, [&](auto has_bias) {
    dispatch_activation(activation, [&]<Activation kF>() {
      some_rows<T, decltype(has_bias)::value, kF>(y, x, bias, rows, columns, pitch);
    });
  });
}
void rows_f64(double* y, const double* x, const double* bias, std::int64_t rows,
              std::int64_t columns, std::int64_t pitch, Activation activation) {
  rows_of(y, x, bias, rows, columns, pitch, activation);
}
void rows_f32(float* y, const float* x, const float* bias, std::int64_t rows, std::int64_t columns,
              std::int64_t pitch, Activation activation) {
  rows_of(y, x, bias, rows, columns, pitch, activation);
}
void rows_bf16(bf16* y, const bf16* x, const bf16* bias, std::int64_t rows, std::int64_t columns,
               std::int64_t pitch, Activation activation) {
  rows_of(y, x, bias, rows, columns, pitch, activation);
}

void bias_backward_loops(const Context& context, const BiasBackwardArgs& args) {
  dispatch_float(args.dtype, "bias_backward", [&]<class T>() {
    using A = accumulator_t<T>;
    T* const dx = static_cast<T*>(args.dx);
    const T* const dy = static_cast<const T*>(args.dy);
    const T* const saved = static_cast<const T*>(args.saved);
    const T* const bias = static_cast<const T*>(args.bias);
    const std::int64_t columns = args.columns;
    const ColumnSums sums{context.scratch, args.rows, columns};
    if (args.activation != Activation::kNone)
      dispatch_activation(args.activation, [&]<Activation kF>() {
        dispatch_bool(bias != nullptr, [&](auto has_bias) {
          constexpr bool kBias = decltype(has_bias)::value;
          column_sums(sums, static_cast<T*>(args.dbias), 1.0,
                      [=](std::int64_t r, std::int64_t c) HWY_ATTR -> A {
                        const std::int64_t at = r * columns + c;
                        const A g = to_float(dy[at]);  // in any case: no branch, so it vectorises
                        A s = to_float(saved[at]);
                        if constexpr (kBias) s += to_float(bias[c]);
                        const A v = activate_backward<kF>(g, s);
                        dx[at] = from_float<T>(v);
                        return v;
                      });
        });
      });
    else if (args.dbias)
      column_sums(sums, static_cast<T*>(args.dbias), 1.0,
                  [=](std::int64_t r, std::int64_t c)
                      HWY_ATTR -> A { return to_float(dy[r * columns + c]); });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<BiasArgs> bias_cuda = nullptr;
CudaOp<BiasBackwardArgs> bias_backward_cuda = nullptr;

HWY_EXPORT(rows_f64);
HWY_EXPORT(rows_f32);
HWY_EXPORT(rows_bf16);
HWY_EXPORT(bias_backward_loops);

template <>
void bias_rows(double* y, const double* x, const double* bias, std::int64_t rows,
               std::int64_t columns, std::int64_t pitch, Activation activation) {
  HWY_DYNAMIC_DISPATCH(rows_f64)(y, x, bias, rows, columns, pitch, activation);
}
template <>
void bias_rows(float* y, const float* x, const float* bias, std::int64_t rows, std::int64_t columns,
               std::int64_t pitch, Activation activation) {
  HWY_DYNAMIC_DISPATCH(rows_f32)(y, x, bias, rows, columns, pitch, activation);
}
template <>
void bias_rows(bf16* y, const bf16* x, const bf16* bias, std::int64_t rows, std::int64_t columns,
               std::int64_t pitch, Activation activation) {
  HWY_DYNAMIC_DISPATCH(rows_bf16)(y, x, bias, rows, columns, pitch, activation);
}

void bias_cpu(const Context&, const BiasArgs& args) {
  dispatch_float(args.dtype, "bias", [&]<class T>() {
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    const T* const bias = static_cast<const T*>(args.bias);
    const std::int64_t columns = args.columns;
    parallel_for(args.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 15) / columns),
                 [=, activation = args.activation](std::int64_t begin, std::int64_t end) {
                   const std::int64_t at = begin * columns;
                   bias_rows(y + at, x + at, bias, end - begin, columns, columns, activation);
                 });
  });
}
void bias_backward_cpu(const Context& context, const BiasBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(bias_backward_loops)(context, args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
