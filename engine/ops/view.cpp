#include "engine/ops/view.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/axpy.h"

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

namespace {

using Part = Tensor (Tensor::*)(std::int64_t, std::int64_t) const;  // slice or slice_columns

Tensor part_of(const char* name, Part part, const Tensor& x, std::int64_t begin, std::int64_t end,
               std::int64_t size) {
  const Tensor y = (x.*part)(begin, end);
  if (!needs_grad(x)) return y;
  return record(name, y, {x}, [=, shape = x.shape()](const Tensor& dy) {
    const GradientPlace dx = gradient_place(0, shape, dy.dtype(), dy.device());
    const Tensor mine = (dx.memory.*part)(begin, end);
    if (dx.is_empty) {
      (dx.memory.*part)(0, begin).fill(0);
      mine.copy_from(dy);
      (dx.memory.*part)(end, size).fill(0);
    } else {
      add_into(mine, dy);
    }
    return std::vector<Tensor>{dx.memory};
  });
}

}  // namespace

Tensor slice_rows(const Tensor& x, std::int64_t begin, std::int64_t end) {
  return part_of("slice_rows", &Tensor::slice, x, begin, end, x.rank() ? x.dim(0) : 0);
}

Tensor slice_columns(const Tensor& x, std::int64_t begin, std::int64_t end) {
  return part_of("slice_columns", &Tensor::slice_columns, x, begin, end, x.rank() ? x.dim(-1) : 0);
}

}  // namespace retort
