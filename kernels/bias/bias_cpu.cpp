#include "kernels/bias/bias.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bias/bias_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

template <class T, bool kRelu>
void bias_rows(const BiasArgs& args) {
  using A = accumulator_t<T>;
  T* const y = static_cast<T*>(args.y);
  const T* const x = static_cast<const T*>(args.x);
  const T* const bias = static_cast<const T*>(args.bias);
  const std::int64_t columns = args.columns;
  parallel_for(args.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 15) / columns),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   for (std::int64_t c = 0; c < columns; ++c) {
                     const A v = to_float(x[r * columns + c]) + to_float(bias[c]);
                     y[r * columns + c] = from_float<T>(kRelu && v < A(0) ? A(0) : v);
                   }
               });
}

// Rows are added in runs of kRowRun (one float lane per column), runs in order in double.
constexpr std::int64_t kRowRun = 64, kColumnRun = 256;

template <class T, bool kRelu>
void backward_run(T* dx, const T* dy, const T* y, std::int64_t rows, std::int64_t pitch,
                  std::int64_t n, double* total) {
  using A = accumulator_t<T>;
  A lane[kColumnRun];
  for (std::int64_t c = 0; c < n; ++c) lane[c] = A(0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * pitch;
    for (std::int64_t c = 0; c < n; ++c) {
      A v = to_float(dy[at + c]);
      if constexpr (kRelu) {
        v = to_float(y[at + c]) > A(0) ? v : A(0);
        dx[at + c] = from_float<T>(v);
      }
      lane[c] += v;
    }
  }
  for (std::int64_t c = 0; c < n; ++c) total[c] += static_cast<double>(lane[c]);
}

template <class T, bool kRelu>
void backward_bands(const Context& context, const BiasBackwardArgs& args) {
  T* const dx = static_cast<T*>(args.dx);
  const T* const dy = static_cast<const T*>(args.dy);
  const T* const y = static_cast<const T*>(args.y);
  T* const dbias = static_cast<T*>(args.dbias);
  const std::int64_t rows = args.rows, columns = args.columns;
  // Bands of rows make enough chunks for the threads when the matrix is tall and narrow.
  const std::int64_t band = std::max<std::int64_t>(
      kRowRun, ((std::int64_t{1} << 15) / columns + kRowRun - 1) / kRowRun * kRowRun);
  const std::int64_t bands = std::max<std::int64_t>(1, (rows + band - 1) / band);
  double* const partial = static_cast<double*>(
      context.scratch->get(static_cast<std::size_t>(bands * columns) * sizeof(double)));
  parallel_for(bands, 1, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      double* const total = partial + b * columns;
      std::fill(total, total + columns, 0.0);
      const std::int64_t end = std::min(rows, (b + 1) * band);
      for (std::int64_t c = 0; c < columns; c += kColumnRun)
        for (std::int64_t r = b * band; r < end; r += kRowRun) {
          const std::int64_t at = r * columns + c;
          backward_run<T, kRelu>(kRelu ? dx + at : nullptr, dy + at, kRelu ? y + at : nullptr,
                                 std::min(kRowRun, end - r), columns,
                                 std::min(kColumnRun, columns - c), total + c);
        }
    }
  });
  if (dbias == nullptr) return;
  for (std::int64_t c = 0; c < columns; ++c) {
    double total = 0;
    for (std::int64_t b = 0; b < bands; ++b) total += partial[b * columns + c];
    dbias[c] = from_float<T>(static_cast<accumulator_t<T>>(total));
  }
}

void bias_loops(const BiasArgs& args) {
  dispatch_float(args.dtype, "bias", [&]<class T>() {
    if (args.relu)
      bias_rows<T, true>(args);
    else
      bias_rows<T, false>(args);
  });
}
void bias_backward_loops(const Context& context, const BiasBackwardArgs& args) {
  dispatch_float(args.dtype, "bias_backward", [&]<class T>() {
    if (args.y)
      backward_bands<T, true>(context, args);
    else
      backward_bands<T, false>(context, args);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<BiasArgs> bias_cuda = nullptr;
CudaOp<BiasBackwardArgs> bias_backward_cuda = nullptr;

HWY_EXPORT(bias_loops);
HWY_EXPORT(bias_backward_loops);

void bias_cpu(const Context&, const BiasArgs& args) { HWY_DYNAMIC_DISPATCH(bias_loops)(args); }
void bias_backward_cpu(const Context& context, const BiasBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(bias_backward_loops)(context, args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
