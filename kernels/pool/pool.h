// Max and average pooling of NHWC images. Global average pooling is the average over one window
// that is the image.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// Sizes shared by all pooling ops: x (N, H, W, C), y (N, P, Q, C) with
///   P = (H + 2 * padding - kernel_h) / stride + 1, Q alike.
struct PoolSizes {
  std::int64_t batch, height, width, channels;
  std::int64_t out_height, out_width;
  int kernel_h, kernel_w, stride, padding;
};

/// y[n,p,q,c] = max of x[n, p * s - pad + i, q * s - pad + j, c] over the window inside the image.
/// winner[n,p,q,c] = i * kernel_w + j of it: the first of equal values, the last NaN if any.
///
/// Errors    Error if kernel_h * kernel_w > 256, or 2 * padding > kernel (a window would be empty).
struct MaxPoolArgs {
  const void* x;
  void* y;
  std::uint8_t* winner;
  PoolSizes sizes;
  DType dtype;
};

/// dx[n,h,w,c] = sum of dy over the windows that (h, w) won. Gathered: every dx is written once,
/// windows in row order, so the sum's order is fixed.
struct MaxPoolBackwardArgs {
  const void* dy;
  const std::uint8_t* winner;
  void* dx;
  PoolSizes sizes;
  DType dtype;
};

/// y[n,p,q,c] = sum over the window / (kernel_h * kernel_w): padding counts as zeros, as in
/// PyTorch's default.
///
/// Numerics  summed in f32 (f64 for f64), row by row of the window.
struct AveragePoolArgs {
  const void* x;
  void* y;
  PoolSizes sizes;
  DType dtype;
};

/// dx[n,h,w,c] = sum of dy over the windows that hold (h, w) / (kernel_h * kernel_w).
struct AveragePoolBackwardArgs {
  const void* dy;
  void* dx;
  PoolSizes sizes;
  DType dtype;
};

void max_pool_cpu(const Context& context, const MaxPoolArgs& args);
void max_pool_backward_cpu(const Context& context, const MaxPoolBackwardArgs& args);
void average_pool_cpu(const Context& context, const AveragePoolArgs& args);
void average_pool_backward_cpu(const Context& context, const AveragePoolBackwardArgs& args);
extern CudaOp<MaxPoolArgs> max_pool_cuda;
extern CudaOp<MaxPoolBackwardArgs> max_pool_backward_cuda;
extern CudaOp<AveragePoolArgs> average_pool_cuda;
extern CudaOp<AveragePoolBackwardArgs> average_pool_backward_cuda;

inline void check_pool(const char* op, const PoolSizes& s) {
  RETORT_CHECK(s.batch >= 0 && s.height >= 1 && s.width >= 1 && s.channels >= 1, "[", op,
               "] expected sizes >= 1, got (", s.batch, ", ", s.height, ", ", s.width, ", ",
               s.channels, ")");
  RETORT_CHECK(s.kernel_h >= 1 && s.kernel_w >= 1 && s.stride >= 1 && s.padding >= 0, "[", op,
               "] expected kernel >= 1, stride >= 1, padding >= 0, got kernel ", s.kernel_h, " x ",
               s.kernel_w, ", stride ", s.stride, ", padding ", s.padding);
  RETORT_CHECK(2 * s.padding <= s.kernel_h && 2 * s.padding <= s.kernel_w, "[", op,
               "] expected padding of at most half the kernel, got padding ", s.padding,
               ", kernel ", s.kernel_h, " x ", s.kernel_w);
  RETORT_CHECK(s.kernel_h <= s.height + 2 * s.padding && s.kernel_w <= s.width + 2 * s.padding, "[",
               op, "] expected a kernel that fits the padded image ", s.height + 2 * s.padding,
               " x ", s.width + 2 * s.padding, ", got ", s.kernel_h, " x ", s.kernel_w);
  RETORT_CHECK(s.out_height == (s.height + 2 * s.padding - s.kernel_h) / s.stride + 1 &&
                   s.out_width == (s.width + 2 * s.padding - s.kernel_w) / s.stride + 1,
               "[", op, "] output size ", s.out_height, " x ", s.out_width, " does not fit");
}

inline void max_pool(const Context& context, const MaxPoolArgs& args) {
  check_pool("max_pool", args.sizes);
  RETORT_CHECK(args.sizes.kernel_h * args.sizes.kernel_w <= 256,
               "[max_pool] expected a window of at most 256 pixels, got ", args.sizes.kernel_h,
               " x ", args.sizes.kernel_w);
  if (args.sizes.batch == 0) return;
  RETORT_CHECK(args.x && args.y && args.winner, "[max_pool] expected non-null x, y and winner");
  dispatch("max_pool", context, args, max_pool_cpu, max_pool_cuda);
}
inline void max_pool_backward(const Context& context, const MaxPoolBackwardArgs& args) {
  check_pool("max_pool_backward", args.sizes);
  if (args.sizes.batch == 0) return;
  RETORT_CHECK(args.dy && args.winner && args.dx,
               "[max_pool_backward] expected non-null dy, winner and dx");
  dispatch("max_pool_backward", context, args, max_pool_backward_cpu, max_pool_backward_cuda);
}
inline void average_pool(const Context& context, const AveragePoolArgs& args) {
  check_pool("average_pool", args.sizes);
  if (args.sizes.batch == 0) return;
  RETORT_CHECK(args.x && args.y, "[average_pool] expected non-null x and y");
  dispatch("average_pool", context, args, average_pool_cpu, average_pool_cuda);
}
inline void average_pool_backward(const Context& context, const AveragePoolBackwardArgs& args) {
  check_pool("average_pool_backward", args.sizes);
  if (args.sizes.batch == 0) return;
  RETORT_CHECK(args.dy && args.dx, "[average_pool_backward] expected non-null dy and dx");
  dispatch("average_pool_backward", context, args, average_pool_backward_cpu,
           average_pool_backward_cuda);
}

}  // namespace retort::kernels
