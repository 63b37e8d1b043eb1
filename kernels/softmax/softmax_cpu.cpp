#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/parallel.h"
#include "kernels/softmax/softmax.h"

namespace retort::kernels {

CudaOp<SoftmaxArgs> softmax_cuda = nullptr;
CudaOp<SoftmaxBackwardArgs> softmax_backward_cuda = nullptr;

namespace {
std::int64_t rows_per_chunk(std::int64_t classes) {
  return std::max<std::int64_t>(1, (std::int64_t{1} << 15) / classes);
}
}  // namespace

void softmax_cpu(const Context&, const SoftmaxArgs& a) {
  dispatch_float(a.dtype, "softmax", [&]<class T>() {
    using A = accumulator_t<T>;
    parallel_for(a.rows, rows_per_chunk(a.classes), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T* const x = static_cast<const T*>(a.x) + i * a.x_pitch;
        T* const y = static_cast<T*>(a.y) + i * a.y_pitch;
        A max = std::numeric_limits<A>::lowest();  // finite: -inf - -inf would be NaN
        for (std::int64_t v = 0; v < a.classes; ++v) max = std::max(max, A(to_float(x[v])));
        double sum = 0;  // serial: float would lose 1e-5 over 50,000 classes
        for (std::int64_t v = 0; v < a.classes; ++v) sum += std::exp(A(to_float(x[v])) - max);
        const A inverse = static_cast<A>(sum == 0 ? 0 : 1 / sum);
        const A log_sum = static_cast<A>(sum == 0 ? 0 : std::log(sum));
        for (std::int64_t v = 0; v < a.classes; ++v) {
          const A d = A(to_float(x[v])) - max;
          y[v] = from_float<T>(a.log ? d - log_sum : std::exp(d) * inverse);
        }
      }
    });
  });
}

void softmax_backward_cpu(const Context&, const SoftmaxBackwardArgs& a) {
  dispatch_float(a.dtype, "softmax_backward", [&]<class T>() {
    using A = accumulator_t<T>;
    parallel_for(a.rows, rows_per_chunk(a.classes), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T* const dy = static_cast<const T*>(a.dy) + i * a.dy_pitch;
        const T* const y = static_cast<const T*>(a.y) + i * a.y_pitch;
        T* const dx = static_cast<T*>(a.dx) + i * a.dx_pitch;
        double total = 0;
        for (std::int64_t v = 0; v < a.classes; ++v)
          total += A(to_float(dy[v])) * (a.log ? A(1) : A(to_float(y[v])));
        const A sum = static_cast<A>(total);
        for (std::int64_t v = 0; v < a.classes; ++v) {
          const A g = to_float(dy[v]), p = to_float(y[v]);
          dx[v] = from_float<T>(a.log ? g - std::exp(p) * sum : (g - sum) * p);
        }
      }
    });
  });
}

}  // namespace retort::kernels
