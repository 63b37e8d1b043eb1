#include "engine/ops/random.h"

#include "engine/runtime/device.h"
#include "kernels/random/random.h"

namespace retort {
namespace {

void fill(kernels::Random kind, const Tensor& t, const RandomKey& key, double a, double b,
          const Tensor& epoch) {
  RETORT_CHECK(t.is_contiguous(), "[random] expected a contiguous tensor, got ", t.shape(),
               " with row pitch ", t.row_pitch());
  RETORT_CHECK(!epoch.defined() || (epoch.dtype() == DType::kI64 && epoch.numel() == 1 &&
                                    epoch.device() == t.device()),
               "[random] expected the epoch as an i64 scalar on ", name_of(t.device()));
  kernels::random(context_of(t.device()),
                  {kind, t.raw(), t.numel(), a, b, key.seed, key.sample, key.epoch, key.path,
                   epoch.defined() ? epoch.data<std::int64_t>() : nullptr, t.dtype()});
  t.round_bf16_copy();
}

}  // namespace

void fill_uniform(const Tensor& t, const RandomKey& key, double low, double high,
                  const Tensor& epoch) {
  RETORT_CHECK(low <= high, "[fill_uniform] expected low <= high, got ", low, " and ", high);
  fill(kernels::Random::kUniform, t, key, low, high, epoch);
}
void fill_normal(const Tensor& t, const RandomKey& key, double mean, double deviation,
                 const Tensor& epoch) {
  fill(kernels::Random::kNormal, t, key, mean, deviation, epoch);
}
void fill_bernoulli(const Tensor& t, const RandomKey& key, double probability,
                    const Tensor& epoch) {
  RETORT_CHECK(probability >= 0 && probability <= 1,
               "[fill_bernoulli] expected a probability in [0, 1], got ", probability);
  fill(kernels::Random::kBernoulli, t, key, probability, 0, epoch);
}
void fill_signs(const Tensor& t, const RandomKey& key, const Tensor& epoch) {
  fill(kernels::Random::kSigns, t, key, 0, 0, epoch);
}

}  // namespace retort
