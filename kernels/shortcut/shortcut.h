// The parameter-free shortcut of CIFAR ResNets ("option A"): subsample, pad the channels with
// zeros.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace retort::kernels {

/// y[n,p,q,before + c] = x[n, p * stride, q * stride, c], other channels of y are 0.
///
/// Shapes    x (N, H, W, C), y (N, ceil(H / stride), ceil(W / stride), K);
///           before = (K - C) / 2, rounded down.
/// Errors    Error if K < C, stride < 1, or a size < 1.
/// Source    He, Zhang, Ren, Sun 2015, arXiv:1512.03385, section 4.2.
struct ShortcutArgs {
  const void* x;
  void* y;
  std::int64_t batch, height, width, channels, out_channels;
  int stride;
  DType dtype;
};

/// dx[n,h,w,c] = dy[n, h / stride, w / stride, before + c] where stride divides h and w, else 0.
struct ShortcutBackwardArgs {
  const void* dy;
  void* dx;
  std::int64_t batch, height, width, channels, out_channels;
  int stride;
  DType dtype;
};

void shortcut_cpu(const Context& context, const ShortcutArgs& args);
void shortcut_backward_cpu(const Context& context, const ShortcutBackwardArgs& args);
extern CudaOp<ShortcutArgs> shortcut_cuda;
extern CudaOp<ShortcutBackwardArgs> shortcut_backward_cuda;

template <class Args>
void check_shortcut(const Args& a) {
  RETORT_CHECK(a.batch >= 0 && a.height >= 1 && a.width >= 1 && a.channels >= 1 && a.stride >= 1,
               "[shortcut_a] expected sizes and stride >= 1, got (", a.batch, ", ", a.height, ", ",
               a.width, ", ", a.channels, "), stride ", a.stride);
  RETORT_CHECK(a.out_channels >= a.channels, "[shortcut_a] expected at least ", a.channels,
               " output channels, got ", a.out_channels);
}

inline void shortcut(const Context& context, const ShortcutArgs& args) {
  check_shortcut(args);
  if (args.batch == 0) return;
  RETORT_CHECK(args.x && args.y, "[shortcut_a] expected non-null x and y");
  dispatch("shortcut_a", context, args, shortcut_cpu, shortcut_cuda);
}
inline void shortcut_backward(const Context& context, const ShortcutBackwardArgs& args) {
  check_shortcut(args);
  if (args.batch == 0) return;
  RETORT_CHECK(args.dy && args.dx, "[shortcut_a] expected non-null dy and dx");
  dispatch("shortcut_a_backward", context, args, shortcut_backward_cpu, shortcut_backward_cuda);
}

}  // namespace retort::kernels
