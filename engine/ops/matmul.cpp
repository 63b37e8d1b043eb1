#include "engine/ops/matmul.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/pitch.h"
#include "engine/runtime/device.h"
#include "kernels/gemm/gemm.h"

namespace retort {
namespace {

Tensor product(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  const std::int64_t m = a.dim(transpose_a ? 1 : 0), k = a.dim(transpose_a ? 0 : 1),
                     n = b.dim(transpose_b ? 0 : 1);
  const Tensor y = Tensor::empty({m, n}, a.dtype(), a.device());
  kernels::GemmArgs args{y.raw(), a.raw(), b.raw(), m, n, k, pitch_of(a), pitch_of(b), n};
  args.transpose_a = transpose_a;
  args.transpose_b = transpose_b;
  args.dtype = a.dtype();
  kernels::gemm(context_of(a.device()), args);
  return y;
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  RETORT_CHECK(a.rank() == 2 && b.rank() == 2, "[matmul] expected two matrices, got ", a.shape(),
               " and ", b.shape());
  RETORT_CHECK(a.dim(transpose_a ? 0 : 1) == b.dim(transpose_b ? 1 : 0),
               "[matmul] expected equal inner sizes, got ", a.shape(), transpose_a ? "^T" : "",
               " and ", b.shape(), transpose_b ? "^T" : "");
  RETORT_CHECK(a.dtype() == b.dtype(), "[matmul] expected one dtype, got ", name_of(a.dtype()),
               " and ", name_of(b.dtype()));
  RETORT_CHECK(a.device() == b.device(), "[matmul] expected one device, got ", name_of(a.device()),
               " and ", name_of(b.device()));
  const bool want_a = needs_grad(a), want_b = needs_grad(b);
  // Saved: each input if the other one needs a gradient.
  //   y = a b      da = dy b^T    db = a^T dy
  //   y = a^T b    da = b dy^T    db = a dy       (and so on: the order turns with the transpose)
  return record("matmul", product(a, b, transpose_a, transpose_b), {a, b},
                [=, a = want_b ? a.detach() : Tensor{},
                 b = want_a ? b.detach() : Tensor{}](const Tensor& dy) {
                  std::vector<Tensor> gradients(2);
                  if (want_a)
                    gradients[0] = transpose_a ? product(b, dy, transpose_b, true)
                                               : product(dy, b, false, !transpose_b);
                  if (want_b)
                    gradients[1] = transpose_b ? product(dy, a, true, transpose_a)
                                               : product(a, dy, !transpose_a, false);
                  return gradients;
                });
}

}  // namespace retort
