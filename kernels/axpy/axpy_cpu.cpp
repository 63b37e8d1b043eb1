#include "kernels/axpy/axpy.h"

#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<AxpyArgs> axpy_cuda = nullptr;

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

}  // namespace retort::kernels
