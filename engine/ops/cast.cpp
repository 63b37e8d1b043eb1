#include "engine/ops/cast.h"

#include "engine/autograd/autograd.h"

namespace retort {

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return record("cast", x.detach().to(dtype), {x},
                [from = x.dtype()](const Tensor& dy) { return std::vector<Tensor>{dy.to(from)}; });
}

}  // namespace retort
