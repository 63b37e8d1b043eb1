#include "engine/ops/view.h"

#include "engine/autograd/autograd.h"

namespace retort {

Tensor reshape(const Tensor& x, const Shape& shape) {
  const Tensor y = x.contiguous().detach().view(shape);
  if (!needs_grad(x)) return y;
  return record("reshape", y, {x}, [from = x.shape()](const Tensor& dy) {
    return std::vector<Tensor>{dy.contiguous().view(from)};
  });
}

Tensor concatenate(const std::vector<Tensor>& parts) {
  RETORT_CHECK(!parts.empty(), "[concatenate] expected at least one tensor, got none");
  const Tensor& first = parts[0];
  RETORT_CHECK(first.rank() >= 1, "[concatenate] expected tensors with a dimension, got a scalar");
  std::int64_t rows = 0;
  for (const Tensor& t : parts) {
    bool fits =
        t.rank() == first.rank() && t.dtype() == first.dtype() && t.device() == first.device();
    for (int i = 1; fits && i < t.rank(); ++i) fits = t.dim(i) == first.dim(i);
    RETORT_CHECK(fits, "[concatenate] expected parts like ", first.shape(), " ",
                 name_of(first.dtype()), " on ", name_of(first.device()),
                 " but for the first dimension, got ", t.shape(), " ", name_of(t.dtype()), " on ",
                 name_of(t.device()));
    rows += t.dim(0);
  }
  Shape shape{rows};
  for (int i = 1; i < first.rank(); ++i) shape.push_back(first.dim(i));
  const Tensor y = Tensor::empty(shape, first.dtype(), first.device());
  std::vector<std::int64_t> ends;
  std::int64_t at = 0;
  for (const Tensor& t : parts) {
    y.slice(at, at + t.dim(0)).copy_from(t);
    at += t.dim(0);
    ends.push_back(at);
  }
  return record("concatenate", y, parts, [ends](const Tensor& dy) {
    std::vector<Tensor> gradients;
    std::int64_t begin = 0;
    for (const std::int64_t end : ends) {
      gradients.push_back(dy.slice(begin, end));
      begin = end;
    }
    return gradients;
  });
}

Tensor slice_rows(const Tensor& x, std::int64_t begin, std::int64_t end) {
  const Tensor y = x.slice(begin, end);
  if (!needs_grad(x)) return y;
  return record("slice_rows", y, {x}, [shape = x.shape(), begin, end](const Tensor& dy) {
    const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    dx.slice(0, begin).fill(0);
    dx.slice(begin, end).copy_from(dy);
    dx.slice(end, shape[0]).fill(0);
    return std::vector<Tensor>{dx};
  });
}

}  // namespace retort
