#include "engine/ops/conv2d.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/conv2d/conv2d.h"

namespace retort {
namespace {

kernels::Conv2dShape shape_of(const Tensor& x, const Tensor& weight, const Conv2dOptions& o) {
  RETORT_CHECK(x.defined() && weight.defined(), "[conv2d] expected defined x and weight");
  RETORT_CHECK(x.rank() == 4, "[conv2d] expected x (N, H, W, C), got ", x.shape());
  RETORT_CHECK(weight.rank() == 4, "[conv2d] expected weight (K, R, S, C), got ", weight.shape());
  RETORT_CHECK(x.dim(3) == weight.dim(3), "[conv2d] expected weight with ", x.dim(3),
               " channels for x ", x.shape(), ", got ", weight.shape());
  RETORT_CHECK(x.device() == weight.device(), "[conv2d] expected weight on ", name_of(x.device()),
               ", got ", name_of(weight.device()));
  const kernels::Conv2dShape shape{x.dim(0),      x.dim(1),      x.dim(2), x.dim(3), weight.dim(0),
                                   weight.dim(1), weight.dim(2), o.stride, o.padding};
  kernels::check_conv2d("conv2d", shape, x.dtype(), weight.dtype());
  return shape;
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Conv2dOptions& options) {
  const kernels::Conv2dShape shape = shape_of(x, weight, options);
  const Tensor input = x.contiguous().detach(), filter = weight.contiguous().detach();
  const Tensor y = Tensor::empty(
      {shape.batch, shape.out_height(), shape.out_width(), shape.filters}, x.dtype(), x.device());
  kernels::conv2d(context_of(x.device()),
                  {y.raw(), input.raw(), filter.raw(), shape, x.dtype(), weight.dtype()});

  // Saved: the weights if x wants a gradient, x if the weights want one.
  const bool want_dx = needs_grad(x), want_dweight = needs_grad(weight);
  return record(
      "conv2d", y, {x, weight},
      [shape, want_dx, want_dweight, dtype = x.dtype(), weight_dtype = weight.dtype(),
       x_shape = x.shape(), weight_shape = weight.shape(), input = want_dweight ? input : Tensor(),
       filter = want_dx ? filter : Tensor()](const Tensor& dy_any) {
        const Tensor dy = dy_any.contiguous();
        const Context& context = context_of(dy.device());
        std::vector<Tensor> gradients(2);
        if (want_dx) {
          gradients[0] = Tensor::empty(x_shape, dtype, dy.device());
          kernels::conv2d_backward_data(
              context, {gradients[0].raw(), dy.raw(), filter.raw(), shape, dtype, weight_dtype});
        }
        if (want_dweight) {
          gradients[1] = Tensor::empty(weight_shape, weight_dtype, dy.device());
          kernels::conv2d_backward_weight(
              context, {gradients[1].raw(), input.raw(), dy.raw(), shape, dtype, weight_dtype});
        }
        return gradients;
      });
}

}  // namespace retort
