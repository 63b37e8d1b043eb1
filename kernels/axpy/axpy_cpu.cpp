#include "kernels/axpy/axpy.h"

#include <algorithm>

#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<AxpyArgs> axpy_cuda = nullptr;
CudaOp<AxpyRowsArgs> axpy_rows_cuda = nullptr;

void axpy_cpu(const Context&, const AxpyArgs& args) {
  dispatch_float(args.dtype, "axpy", [&]<class T>() {
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    const auto a = static_cast<accumulator_t<T>>(args.a);
    parallel_for(args.n, std::int64_t{1} << 16, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        y[i] = from_float<T>(to_float(y[i]) + a * to_float(x[i]));
    });
  });
}

void axpy_rows_cpu(const Context&, const AxpyRowsArgs& args) {
  dispatch_float(args.dtype, "axpy_rows", [&]<class T>() {
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    const auto a = static_cast<accumulator_t<T>>(args.a);
    const std::int64_t grain = std::max<std::int64_t>(1, (std::int64_t{1} << 16) / args.columns);
    parallel_for(args.rows, grain, [=, &args](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* const to = y + r * args.y_pitch;
        const T* const from = x + r * args.x_pitch;
        for (std::int64_t c = 0; c < args.columns; ++c)
          to[c] = from_float<T>(to_float(to[c]) + a * to_float(from[c]));
      }
    });
  });
}

}  // namespace retort::kernels
