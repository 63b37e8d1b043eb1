#include "kernels/reduce/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce/reduce_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/column_sums-inl.h"
#include "kernels/common/parallel.h"
#include "kernels/common/sum_terms-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

template <class T>
double sum_of_row(const T* x, std::int64_t n) {
  return sum_terms_here<accumulator_t<T>>(
      0, n, [=](std::int64_t i) HWY_ATTR -> accumulator_t<T> { return to_float(x[i]); });
}

template <class T>
double sum_all(const Context& context, const SumArgs& args) {
  using A = accumulator_t<T>;
  const T* const x = static_cast<const T*>(args.x);
  const std::int64_t rows = args.rows, columns = args.columns, pitch = args.pitch;
  if (rows <= 1 || pitch == columns)
    return sum_terms<A>(context.scratch, rows * columns,
                        [=](std::int64_t i) HWY_ATTR -> A { return to_float(x[i]); });
  // Whole rows, at least one a chunk.
  const std::int64_t grain = std::max<std::int64_t>(1, kTermChunk / columns);
  const std::int64_t chunks = (rows + grain - 1) / grain;
  double* const partial =
      static_cast<double*>(context.scratch->get(static_cast<std::size_t>(chunks) * sizeof(double)));
  parallel_for(rows, grain, [=](std::int64_t begin, std::int64_t end) {
    double total = 0;
    for (std::int64_t r = begin; r < end; ++r) total += sum_of_row(x + r * pitch, columns);
    partial[begin / grain] = total;
  });
  double total = 0;
  for (std::int64_t c = 0; c < chunks; ++c) total += partial[c];
  return total;
}

template <class T>
void sum_rows(const SumArgs& args) {
  const T* const x = static_cast<const T*>(args.x);
  T* const y = static_cast<T*>(args.y);
  const std::int64_t columns = args.columns, pitch = args.pitch;
  const double factor = args.factor;
  parallel_for(
      args.rows,
      std::max<std::int64_t>(1, (std::int64_t{1} << 14) / std::max<std::int64_t>(columns, 1)),
      [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r)
          y[r] = from_float<T>(
              static_cast<accumulator_t<T>>(factor * sum_of_row(x + r * pitch, columns)));
      });
}

template <class T>
void sum_columns(const Context& context, const SumArgs& args) {
  const T* const x = static_cast<const T*>(args.x);
  const std::int64_t pitch = args.pitch;
  column_sums(ColumnSums{context.scratch, args.rows, args.columns}, static_cast<T*>(args.y),
              args.factor, [=](std::int64_t r, std::int64_t c) HWY_ATTR -> accumulator_t<T> {
                return to_float(x[r * pitch + c]);
              });
}

void sum_loops(const Context& context, const SumArgs& args) {
  dispatch_float(args.dtype, "sum", [&]<class T>() {
    switch (args.kind) {
      case Sum::kAll:
        static_cast<T*>(args.y)[0] =
            from_float<T>(static_cast<accumulator_t<T>>(args.factor * sum_all<T>(context, args)));
        return;
      case Sum::kRows: return sum_rows<T>(args);
      case Sum::kColumns: return sum_columns<T>(context, args);
    }
  });
}

void expand_loops(const ExpandArgs& args) {
  dispatch_float(args.dtype, "expand", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const x = static_cast<const T*>(args.x);
    T* const y = static_cast<T*>(args.y);
    const A factor = static_cast<A>(args.factor);
    const std::int64_t columns = args.columns;
    if (args.kind == Sum::kAll) {
      const T value = from_float<T>(factor * to_float(x[0]));
      parallel_for(args.rows * columns, std::int64_t{1} << 16,
                   [=](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) y[i] = value;
                   });
      return;
    }
    const bool rows = args.kind == Sum::kRows;
    parallel_for(args.rows, std::max<std::int64_t>(1, (std::int64_t{1} << 16) / columns),
                 [=](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     T* const row = y + r * columns;
                     if (rows) {
                       const T value = from_float<T>(factor * to_float(x[r]));
                       for (std::int64_t c = 0; c < columns; ++c) row[c] = value;
                     } else {
                       for (std::int64_t c = 0; c < columns; ++c)
                         row[c] = from_float<T>(factor * to_float(x[c]));
                     }
                   }
                 });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<SumArgs> sum_cuda = nullptr;
CudaOp<ExpandArgs> expand_cuda = nullptr;

HWY_EXPORT(sum_loops);
HWY_EXPORT(expand_loops);

void sum_cpu(const Context& context, const SumArgs& args) {
  HWY_DYNAMIC_DISPATCH(sum_loops)(context, args);
}
void expand_cpu(const Context&, const ExpandArgs& args) {
  HWY_DYNAMIC_DISPATCH(expand_loops)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
