#include "engine/ops/linear.h"

#include <algorithm>

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/gemm/gemm.h"

namespace retort {
namespace {

// Every leading dimension counts as rows: rows of any rank lie row_pitch apart.
std::int64_t pitch_of(const Tensor& t) { return std::max(t.row_pitch(), t.dim(-1)); }

void multiply(const Tensor& y, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b,
              std::int64_t k, const void* bias = nullptr) {
  kernels::GemmArgs args{y.raw(), a.raw(),     b.raw(),     y.rows(), y.dim(-1),
                         k,       pitch_of(a), pitch_of(b), y.dim(-1)};
  args.transpose_a = transpose_a;
  args.transpose_b = transpose_b;
  args.dtype = y.dtype();
  args.bias = bias;
  kernels::gemm(context_of(y.device()), args);
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  RETORT_CHECK(x.rank() >= 1 && weight.rank() == 2 && x.dim(-1) == weight.dim(1),
               "[linear] expected x (..., in) and weight (out, in), got ", x.shape(), " and ",
               weight.shape());
  RETORT_CHECK(!bias.defined() || (bias.rank() == 1 && bias.dim(0) == weight.dim(0)),
               "[linear] expected a bias (", weight.dim(0), "), got ", bias.shape());
  for (const Tensor& t : {weight, bias})
    RETORT_CHECK(!t.defined() || (t.dtype() == x.dtype() && t.device() == x.device()),
                 "[linear] expected ", name_of(x.dtype()), " on ", name_of(x.device()), ", got ",
                 name_of(t.dtype()), " on ", name_of(t.device()));
  const std::int64_t in = weight.dim(1), out = weight.dim(0), rows = x.rows();
  Shape shape(std::span(x.shape().begin(), x.shape().end() - 1));
  shape.push_back(out);
  const Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor bias_row = bias.defined() ? bias.contiguous() : Tensor{};
  if (rows > 0) multiply(y, x, weight, false, true, in, bias.defined() ? bias_row.raw() : nullptr);

  const bool want_x = needs_grad(x), want_weight = needs_grad(weight), want_bias = needs_grad(bias);
  // Saved: x for dweight, weight for dx; the bias gradient needs neither.
  return record("linear", y, {x, weight, bias},
                [=, x = want_weight ? x.detach() : Tensor{}, weight = weight.detach(),
                 x_shape = x.shape()](const Tensor& dy) {
                  std::vector<Tensor> gradients(3);
                  if (want_x) {
                    gradients[0] = Tensor::empty(x_shape, dy.dtype(), dy.device());
                    multiply(gradients[0], dy, weight, false, false, out);
                  }
                  if (want_weight) {
                    gradients[1] = gradient_memory(1, weight.shape(), dy.dtype(), dy.device());
                    multiply(gradients[1], dy, x, true, false, rows);
                  }
                  if (want_bias) {
                    gradients[2] = gradient_memory(2, {out}, dy.dtype(), dy.device());
                    kernels::column_sum(
                        context_of(dy.device()),
                        {gradients[2].raw(), dy.raw(), rows, out, pitch_of(dy), dy.dtype()});
                  }
                  return gradients;
                });
}

}  // namespace retort
