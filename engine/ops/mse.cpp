#include "engine/ops/mse.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/mse/mse.h"

namespace retort {

Tensor mse(const Tensor& x_given, const Tensor& target_given) {
  RETORT_CHECK(x_given.shape() == target_given.shape() && x_given.numel() > 0,
               "[mse] expected two tensors of one shape that is not empty, got ", x_given.shape(),
               " and ", target_given.shape());
  RETORT_CHECK(x_given.dtype() == target_given.dtype() && x_given.device() == target_given.device(),
               "[mse] expected one dtype and device, got ", name_of(x_given.dtype()), " on ",
               name_of(x_given.device()), " and ", name_of(target_given.dtype()), " on ",
               name_of(target_given.device()));
  const Tensor x = x_given.contiguous(), target = target_given.contiguous();
  Tensor y = Tensor::empty({}, x.dtype(), x.device());
  kernels::mse(context_of(x.device()), {y.raw(), x.raw(), target.raw(), x.numel(), x.dtype()});
  const bool need_x = needs_grad(x_given), need_target = needs_grad(target_given);
  if (!need_x && !need_target) return y;
  // Saved: both operands.
  return record(
      "mse", y, {x_given, target_given},
      [need_x, need_target, x = x.detach(), target = target.detach()](const Tensor& dy) {
        const auto like_x = [&] { return Tensor::empty(x.shape(), x.dtype(), x.device()); };
        const Tensor dx = need_x ? like_x() : Tensor();
        const Tensor dtarget = need_target ? like_x() : Tensor();
        kernels::mse_backward(context_of(x.device()),
                              {need_x ? dx.raw() : nullptr, need_target ? dtarget.raw() : nullptr,
                               x.raw(), target.raw(), dy.raw(), x.numel(), x.dtype()});
        return std::vector<Tensor>{dx, dtarget};
      });
}

Tensor mse_composed(const Tensor& x, const Tensor& target) {
  return mean(square(subtract(x, target)));
}

}  // namespace retort
