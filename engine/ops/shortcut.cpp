#include "engine/ops/shortcut.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/shortcut/shortcut.h"

namespace retort {

Tensor shortcut_a(const Tensor& x_in, int stride, std::int64_t out_channels) {
  RETORT_CHECK(x_in.defined() && x_in.rank() == 4, "[shortcut_a] expected x (N, H, W, C), got ",
               x_in.defined() ? x_in.shape().str() : std::string("an undefined tensor"));
  RETORT_CHECK(stride >= 1 && out_channels >= x_in.dim(3),
               "[shortcut_a] expected stride >= 1 and at least ", x_in.dim(3),
               " output channels, got stride ", stride, ", ", out_channels, " channels");
  const Tensor x = x_in.detach().contiguous();
  const Tensor y = Tensor::empty(
      {x.dim(0), (x.dim(1) + stride - 1) / stride, (x.dim(2) + stride - 1) / stride, out_channels},
      x.dtype(), x.device());
  kernels::shortcut(context_of(x.device()), {x.raw(), y.raw(), x.dim(0), x.dim(1), x.dim(2),
                                             x.dim(3), out_channels, stride, x.dtype()});
  return record("shortcut_a", y, {x_in},
                [stride, out_channels, shape = x.shape()](const Tensor& dy_in) {
                  const Tensor dy = dy_in.contiguous();
                  const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
                  kernels::shortcut_backward(context_of(dy.device()),
                                             {dy.raw(), dx.raw(), shape[0], shape[1], shape[2],
                                              shape[3], out_channels, stride, dy.dtype()});
                  return std::vector<Tensor>{dx};
                });
}

}  // namespace retort
