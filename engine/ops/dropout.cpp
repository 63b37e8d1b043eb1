#include "engine/ops/dropout.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/device.h"
#include "kernels/dropout/dropout.h"

namespace retort {
namespace {

// The rows of x that have masks of their own.
std::int64_t noise_rows(const Tensor& x, const Noise& noise) {
  if (!noise.sample.defined()) return x.rank() == 0 ? 1 : x.dim(0);
  const std::int64_t wanted = noise.sample.numel();
  std::int64_t rows = 1;
  for (int i = 0; i < x.rank() && rows != wanted; ++i) rows *= x.dim(i);
  RETORT_CHECK(rows == wanted, "[dropout] expected samples for leading dimensions of ", x.shape(),
               ", got ", noise.sample.shape());
  return rows;
}

bool is_index(const Tensor& t, DType dtype, std::int64_t n, Device device) {
  return !t.defined() ||
         (t.dtype() == dtype && t.numel() == n && t.device() == device && t.is_contiguous());
}

Tensor drop(const Tensor& x_given, double p, const Noise& noise, std::uint32_t path) {
  const Tensor x = x_given.contiguous();
  const Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const std::int64_t rows = noise_rows(x, noise);
  kernels::DropoutArgs args{y.raw(), x.raw(),    rows, rows == 0 ? 0 : x.numel() / rows,
                            p,       noise.seed, path};
  if (noise.step.defined()) args.step = noise.step.data<std::int64_t>();
  if (noise.sample.defined()) {
    args.sample = noise.sample.raw();
    args.sample_dtype = noise.sample.dtype();
  }
  if (noise.position.defined()) args.position = noise.position.data<std::int32_t>();
  args.dtype = x.dtype();
  kernels::dropout(context_of(x.device()), args);
  return y;
}

void check(const Tensor& x, double p, const Noise& noise) {
  RETORT_CHECK(p >= 0 && p < 1, "[dropout] expected p in [0, 1), got ", p);
  const std::int64_t rows = noise_rows(x, noise);
  const Device device = x.device();
  const DType sample = noise.sample.defined() ? noise.sample.dtype() : DType::kI64;
  RETORT_CHECK(is_index(noise.step, DType::kI64, 1, device) &&
                   (sample == DType::kI64 || sample == DType::kI32) &&
                   is_index(noise.sample, sample, rows, device) &&
                   is_index(noise.position, DType::kI32, rows, device),
               "[dropout] expected on ", name_of(device), " a step of one i64, ", rows,
               " samples of i64 or i32 and positions of i32");
}

}  // namespace

Tensor dropout(const Tensor& x, double p, const Noise& noise, std::uint32_t path, bool training) {
  check(x, p, noise);
  if (p == 0 || !training) return x;
  const Tensor y = drop(x, p, noise, path);
  if (!needs_grad(x)) return y;
  // Saved: the key.
  return record("dropout", y, {x},
                [=](const Tensor& dy) { return std::vector<Tensor>{drop(dy, p, noise, path)}; });
}

Tensor dropout_mask(const Tensor& like, double p, const Noise& noise, std::uint32_t path) {
  check(like, p, noise);
  return drop(Tensor::full(like.shape(), 1, like.dtype(), like.device()), p, noise, path);
}

Tensor dropout_composed(const Tensor& x, double p, const Noise& noise, std::uint32_t path) {
  return multiply(x, dropout_mask(x, p, noise, path));
}

}  // namespace retort
