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
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = from_float<T>(to_float(y[i]) + a * to_float(x[i]));
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

}  // namespace retort::kernels
