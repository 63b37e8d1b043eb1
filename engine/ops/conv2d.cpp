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

// The weights that a product reads: of f32 ones under bf16 images their bf16 copy, where they keep
// one (the kernels would round them first, to the same bytes).
Tensor filter_of(const Tensor& x, const Tensor& weight) {
  const Tensor copy = x.dtype() == DType::kBF16 ? weight.bf16_copy() : Tensor{};
  return (copy.defined() ? copy : weight).contiguous().detach();
}

DType statistics_dtype(const Tensor& x) {
  return x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Conv2dOptions& options,
              ChannelStatistics* statistics) {
  const kernels::Conv2dShape shape = shape_of(x, weight, options);
  const Tensor input = x.contiguous().detach(), filter = filter_of(x, weight);
  const Tensor y = Tensor::empty(
      {shape.batch, shape.out_height(), shape.out_width(), shape.filters}, x.dtype(), x.device());
  if (statistics) {
    const kernels::Conv2dChunks chunks = kernels::conv2d_statistics_chunks(shape, x.device());
    statistics->rows = chunks.rows;
    statistics->partial =
        Tensor::empty({chunks.count, 2, shape.filters}, statistics_dtype(x), x.device());
  }
  kernels::conv2d(context_of(x.device()), {y.raw(),
                                           input.raw(),
                                           filter.raw(),
                                           shape,
                                           x.dtype(),
                                           filter.dtype(),
                                           {},
                                           statistics ? statistics->partial.raw() : nullptr});

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
              context, {gradients[0].raw(), dy.raw(), filter.raw(), shape, dtype, filter.dtype()});
        }
        if (want_dweight) {
          gradients[1] = gradient_memory(1, weight_shape, weight_dtype, dy.device());
          kernels::conv2d_backward_weight(
              context, {gradients[1].raw(), input.raw(), dy.raw(), shape, dtype, weight_dtype});
        }
        return gradients;
      });
}

Tensor conv2d_inference(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Conv2dOptions& options, bool relu, const Tensor& residual) {
  const kernels::Conv2dShape shape = shape_of(x, weight, options);
  const Shape y_shape{shape.batch, shape.out_height(), shape.out_width(), shape.filters};
  RETORT_CHECK(!needs_grad(x) && !needs_grad(weight) && !needs_grad(bias) && !needs_grad(residual),
               "[conv2d_inference] expected no wanted gradient: use conv2d, or NoGrad");
  RETORT_CHECK(bias.defined() && bias.shape() == Shape{shape.filters} &&
                   bias.dtype() == statistics_dtype(x) && bias.device() == x.device(),
               "[conv2d_inference] expected bias (", shape.filters, ") of ",
               name_of(statistics_dtype(x)), " on ", name_of(x.device()), ", got ",
               bias.defined() ? join(bias.shape(), " of ", name_of(bias.dtype()), " on ",
                                     name_of(bias.device()))
                              : std::string("an undefined tensor"));
  if (residual.defined())
    RETORT_CHECK(residual.shape() == y_shape && residual.dtype() == x.dtype() &&
                     residual.device() == x.device(),
                 "[conv2d_inference] expected a residual ", y_shape, " of ", name_of(x.dtype()),
                 " on ", name_of(x.device()), ", got ", residual.shape(), " of ",
                 name_of(residual.dtype()), " on ", name_of(residual.device()));
  const Tensor input = x.contiguous(), filter = filter_of(x, weight), offset = bias.contiguous();
  const Tensor added = residual.defined() ? residual.contiguous() : Tensor{};
  const Tensor y = Tensor::empty(y_shape, x.dtype(), x.device());
  kernels::conv2d(context_of(x.device()),
                  {y.raw(),
                   input.raw(),
                   filter.raw(),
                   shape,
                   x.dtype(),
                   filter.dtype(),
                   {offset.raw(), added.defined() ? added.raw() : nullptr, relu}});
  return y;
}

}  // namespace retort
