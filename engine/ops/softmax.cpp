#include "engine/ops/softmax.h"

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/softmax/softmax.h"

namespace retort {
namespace {

Tensor apply(const char* name, const Tensor& x, bool log) {
  RETORT_CHECK(x.defined() && x.rank() >= 1 && x.dim(-1) >= 1, "[", name,
               "] expected rank >= 1 and a last dimension >= 1, got ",
               x.defined() ? x.shape().str() : "nothing");
  const Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() > 0)
    kernels::softmax(context_of(x.device()), {y.raw(), x.raw(), x.rows(), x.dim(-1), y.row_pitch(),
                                              x.row_pitch(), log, x.dtype()});
  // Saved: y only.
  return record(name, y, {x}, [y = y.detach(), log](const Tensor& dy) {
    const Tensor dx = Tensor::empty(y.shape(), y.dtype(), y.device());
    if (y.numel() > 0)
      kernels::softmax_backward(context_of(y.device()),
                                {dx.raw(), dy.raw(), y.raw(), y.rows(), y.dim(-1), dx.row_pitch(),
                                 dy.row_pitch(), y.row_pitch(), log, y.dtype()});
    return std::vector<Tensor>{dx};
  });
}

}  // namespace

Tensor softmax(const Tensor& x) { return apply("softmax", x, false); }
Tensor log_softmax(const Tensor& x) { return apply("log_softmax", x, true); }

}  // namespace retort
