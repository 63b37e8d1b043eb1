#include "engine/ops/pool.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/pool/pool.h"

namespace retort {
namespace {

void check_image(const char* op, const Tensor& x) {
  RETORT_CHECK(x.defined() && x.rank() == 4, "[", op, "] expected x (N, H, W, C), got ",
               x.defined() ? x.shape().str() : std::string("an undefined tensor"));
}

kernels::PoolSizes sizes_of(const Tensor& x, int kernel_h, int kernel_w, int stride, int padding) {
  const auto outputs = [&](std::int64_t size, int kernel) {
    // Wrong settings are refused by the kernel's own check; here only no division by zero.
    return stride < 1 ? 0 : (size + 2 * std::int64_t{padding} - kernel) / stride + 1;
  };
  return {x.dim(0),
          x.dim(1),
          x.dim(2),
          x.dim(3),
          outputs(x.dim(1), kernel_h),
          outputs(x.dim(2), kernel_w),
          kernel_h,
          kernel_w,
          stride,
          padding};
}

Tensor average(const char* name, const Tensor& x_in, const kernels::PoolSizes& s,
               const Shape& out) {
  const Tensor x = x_in.detach().contiguous();
  const Tensor y = Tensor::empty(out, x.dtype(), x.device());
  kernels::average_pool(context_of(x.device()), {x.raw(), y.raw(), s, x.dtype()});
  return record(name, y, {x_in}, [s, shape = x.shape()](const Tensor& dy_in) {
    const Tensor dy = dy_in.contiguous();
    const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    kernels::average_pool_backward(context_of(dy.device()), {dy.raw(), dx.raw(), s, dy.dtype()});
    return std::vector<Tensor>{dx};
  });
}

}  // namespace

Tensor max_pool2d(const Tensor& x_in, int kernel, int stride, int padding) {
  check_image("max_pool2d", x_in);
  const kernels::PoolSizes s = sizes_of(x_in, kernel, kernel, stride, padding);
  kernels::check_pool("max_pool2d", s);
  const Tensor x = x_in.detach().contiguous();
  const Shape out{s.batch, s.out_height, s.out_width, s.channels};
  const Tensor y = Tensor::empty(out, x.dtype(), x.device());
  const Tensor winner = Tensor::empty(out, DType::kU8, x.device());
  kernels::max_pool(context_of(x.device()),
                    {x.raw(), y.raw(), winner.data<std::uint8_t>(), s, x.dtype()});
  // Saved: winner only.
  return record("max_pool2d", y, {x_in}, [s, winner, shape = x.shape()](const Tensor& dy_in) {
    const Tensor dy = dy_in.contiguous();
    const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    kernels::max_pool_backward(context_of(dy.device()),
                               {dy.raw(), winner.data<std::uint8_t>(), dx.raw(), s, dy.dtype()});
    return std::vector<Tensor>{dx};
  });
}

Tensor average_pool2d(const Tensor& x, int kernel, int stride, int padding) {
  check_image("average_pool2d", x);
  const kernels::PoolSizes s = sizes_of(x, kernel, kernel, stride, padding);
  kernels::check_pool("average_pool2d", s);
  return average("average_pool2d", x, s, {s.batch, s.out_height, s.out_width, s.channels});
}

Tensor global_average_pool(const Tensor& x) {
  check_image("global_average_pool", x);
  RETORT_CHECK(x.dim(1) <= 32768 && x.dim(2) <= 32768,
               "[global_average_pool] expected images of at most 32768 x 32768, got ", x.shape());
  const kernels::PoolSizes s =
      sizes_of(x, static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)), 1, 0);
  kernels::check_pool("global_average_pool", s);
  return average("global_average_pool", x, s, {x.dim(0), x.dim(3)});
}

}  // namespace retort
