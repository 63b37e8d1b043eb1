// The loops are plain: Highway compiles this file once per instruction set (foreach_target) and GCC
// vectorises them there. What no compiler vectorises (exp, log, tanh, erf) is libm's.
#include "kernels/elementwise/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/elementwise_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr std::int64_t kGrain = std::int64_t{1} << 15;

void unary_loops(const UnaryArgs& args) {
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    using A = accumulator_t<T>;
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    const A a = static_cast<A>(args.a), b = static_cast<A>(args.b);
    dispatch_unary(args.op, [&]<Unary kOp>() {
      parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          y[i] = from_float<T>(unary_forward<kOp, A>(to_float(x[i]), a, b));
      });
    });
  });
}

void unary_backward_loops(const UnaryBackwardArgs& args) {
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    using A = accumulator_t<T>;
    T* const dx = static_cast<T*>(args.dx);
    const T* const dy = static_cast<const T*>(args.dy);
    const T* const saved = static_cast<const T*>(args.saved ? args.saved : args.dy);
    const A a = static_cast<A>(args.a);
    dispatch_unary(args.op, [&]<Unary kOp>() {
      parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          dx[i] = from_float<T>(unary_backward<kOp, A>(to_float(dy[i]), to_float(saved[i]), a));
      });
    });
  });
}

void binary_loops(const BinaryArgs& args) {
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    using A = accumulator_t<T>;
    T* const y = static_cast<T*>(args.y);
    const T* const x1 = static_cast<const T*>(args.x1);
    const T* const x2 = static_cast<const T*>(args.x2);
    dispatch_binary(args.op, [&]<Binary kOp>() {
      if (args.x2_is_scalar) {
        const A b = to_float(x2[0]);
        parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i)
            y[i] = from_float<T>(binary_forward<kOp, A>(to_float(x1[i]), b));
        });
      } else {
        parallel_for(args.n, kGrain, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i)
            y[i] = from_float<T>(binary_forward<kOp, A>(to_float(x1[i]), to_float(x2[i])));
        });
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cstring>

namespace retort::kernels {

CudaOp<UnaryArgs> unary_cuda = nullptr;
CudaOp<UnaryBackwardArgs> unary_backward_cuda = nullptr;
CudaOp<BinaryArgs> binary_cuda = nullptr;
CudaOp<CastArgs> cast_cuda = nullptr;
CudaOp<FillArgs> fill_cuda = nullptr;
CudaOp<AdvanceArgs> advance_cuda = nullptr;

HWY_EXPORT(unary_loops);
HWY_EXPORT(unary_backward_loops);
HWY_EXPORT(binary_loops);

void unary_cpu(const Context&, const UnaryArgs& args) { HWY_DYNAMIC_DISPATCH(unary_loops)(args); }
void unary_backward_cpu(const Context&, const UnaryBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(unary_backward_loops)(args);
}
void binary_cpu(const Context&, const BinaryArgs& args) {
  HWY_DYNAMIC_DISPATCH(binary_loops)(args);
}

namespace {

constexpr std::int64_t kCopyGrain = std::int64_t{1} << 16;

// Chunks of whole rows, or of one long row.
template <class F>
void for_rows(std::int64_t rows, std::int64_t columns, F&& f) {
  if (rows == 1) {
    parallel_for(columns, kCopyGrain,
                 [&](std::int64_t begin, std::int64_t end) { f(0, begin, end - begin); });
    return;
  }
  parallel_for(rows, std::max<std::int64_t>(1, kCopyGrain / columns),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) f(r, 0, columns);
               });
}

}  // namespace

void cast_cpu(const Context&, const CastArgs& given) {
  CastArgs args = given;
  if (args.to_pitch == args.columns && args.from_pitch == args.columns) {
    args.columns *= args.rows;
    args.rows = 1;
  }
  if (args.to_dtype == args.from_dtype) {
    const std::int64_t size = static_cast<std::int64_t>(size_of(args.to_dtype));
    for_rows(args.rows, args.columns, [&](std::int64_t r, std::int64_t c, std::int64_t n) {
      std::memcpy(static_cast<char*>(args.to) + (r * args.to_pitch + c) * size,
                  static_cast<const char*>(args.from) + (r * args.from_pitch + c) * size,
                  static_cast<std::size_t>(n * size));
    });
    return;
  }
  dispatch_any(args.to_dtype, [&]<class To>() {
    dispatch_any(args.from_dtype, [&]<class From>() {
      for_rows(args.rows, args.columns, [&](std::int64_t r, std::int64_t c, std::int64_t n) {
        To* const to = static_cast<To*>(args.to) + r * args.to_pitch + c;
        const From* const from = static_cast<const From*>(args.from) + r * args.from_pitch + c;
        for (std::int64_t i = 0; i < n; ++i) to[i] = convert<To, From>(from[i]);
      });
    });
  });
}

void fill_cpu(const Context&, const FillArgs& given) {
  FillArgs args = given;
  if (args.pitch == args.columns) {
    args.columns *= args.rows;
    args.rows = 1;
  }
  dispatch_any(args.dtype, [&]<class T>() {
    const T value = convert<T, double>(args.value);
    for_rows(args.rows, args.columns, [&](std::int64_t r, std::int64_t c, std::int64_t n) {
      T* const to = static_cast<T*>(args.to) + r * args.pitch + c;
      std::fill(to, to + n, value);
    });
  });
}

void advance_cpu(const Context&, const AdvanceArgs& args) {
  if (args.skip == nullptr || *args.skip == 0) *args.counter += args.by;
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
