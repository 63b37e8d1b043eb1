// CUDA kernel of axpy and its launch configuration.
#pragma once
#include "kernels/axpy/axpy.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// One thread per element, grid-stride.
// Shared: none. Launch: any grid, block a multiple of 32.
template <class T>
__global__ void __launch_bounds__(256)
    axpy_thread_per_element_kernel(T* y, const T* x, accumulator_t<T> a, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = from_float<T>(to_float(y[i]) + a * to_float(x[i]));
}

// One thread per element; blockIdx.y strides over rows, x over columns.
// Shared: none. Launch: any grid.
template <class T>
__global__ void __launch_bounds__(256)
    axpy_rows_thread_per_element_kernel(T* y, const T* x, accumulator_t<T> a, std::int64_t rows,
                                        std::int64_t columns, std::int64_t y_pitch,
                                        std::int64_t x_pitch) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y)
#pragma unroll 1
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < columns;
         c += step) {
      T& out = y[r * y_pitch + c];
      out = from_float<T>(to_float(out) + a * to_float(x[r * x_pitch + c]));
    }
}

}  // namespace SIMT_NS

inline void axpy_launch(const Context& context, const AxpyArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "axpy", [&]<class T>() {
    const std::int64_t blocks = (args.n + 255) / 256;
    simt::launch({"axpy", static_cast<unsigned>(blocks < 65536 ? blocks : 65536), 256, 0,
                  static_cast<cudaStream_t>(context.stream)},
                 axpy_thread_per_element_kernel<T>, static_cast<T*>(args.y),
                 static_cast<const T*>(args.x), static_cast<accumulator_t<T>>(args.a), args.n);
  });
}

inline void axpy_rows_launch(const Context& context, const AxpyRowsArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "axpy_rows", [&]<class T>() {
    const std::int64_t across = (args.columns + 255) / 256;
    simt::launch({"axpy_rows",
                  dim3(static_cast<unsigned>(across < 65536 ? across : 65536),
                       static_cast<unsigned>(args.rows < 65535 ? args.rows : 65535)),
                  256, 0, static_cast<cudaStream_t>(context.stream)},
                 axpy_rows_thread_per_element_kernel<T>, static_cast<T*>(args.y),
                 static_cast<const T*>(args.x), static_cast<accumulator_t<T>>(args.a), args.rows,
                 args.columns, args.y_pitch, args.x_pitch);
  });
}

}  // namespace retort::kernels
