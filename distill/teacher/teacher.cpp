#include "distill/teacher/teacher.h"

#include <algorithm>
#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/linear.h"
#include "nn/checkpoint/weights.h"

namespace retort::distill {
namespace {

// Note [Passes that fill the cache]
//   The last bits of a product may depend on the number of rows, so a row computed in a short last
//   batch would differ from the same row in a full one, and what a run sees would depend on which
//   came first. Missing rows are therefore always computed in passes of exactly this many rows,
//   filled up by repeating the last one. Texts have no such passes, since each has a length of its
//   own: their rows are computed as they come, by products in which a row stands alone (RowsAlone).
constexpr std::size_t kCachePass = 64;

bool all_zero(const nn::Module& module) {
  for (const auto& [path, tensor] : module.named_parameters())
    for (const float v : tensor.detach().to_vector<float>())
      if (v != 0) return false;  // NaN counts as content: the logits will show it
  return true;
}

}  // namespace

Teacher::Teacher(std::shared_ptr<nn::Model> model, std::string name)
    : model_(std::move(model)), name_(std::move(name)) {
  RETORT_CHECK(model_ != nullptr, "[teacher] expected a model, got null");
  model_->eval();
  model_->requires_grad(false);
  hash_ = nn::weights_hash(*model_);
  weights_are_zero_ = all_zero(*model_);
  model_->freeze(model_.use_count() == 1 ? nn::Model::Frozen::kForGood
                                         : nn::Model::Frozen::kBeside);
}

Tensor Teacher::logits(const nn::Inputs& inputs) const { return forward(inputs, {}).logits; }

nn::Outputs Teacher::forward(const nn::Inputs& inputs, const nn::Want& want) const {
  const NoGrad no_grad;
  return model_->forward(inputs, want);
}

void Teacher::use_cache(std::shared_ptr<LogitCache> cache) {
  if (cache) {
    const LogitCacheKey& key = cache->key();
    RETORT_CHECK(key.teacher_hash == hash_, "[teacher] the cache is of the teacher ",
                 key.teacher_hash, ", not of ", hash_);
    RETORT_CHECK(key.classes == classes(), "[teacher] expected a cache of ", classes(),
                 " classes, got ", key.classes);
  }
  cache_ = std::move(cache);
}

Tensor Teacher::logits(const nn::Inputs& inputs, std::span<const std::int64_t> samples,
                       std::span<const std::uint32_t> variants) const {
  if (!cache_ || samples.empty()) return logits(inputs);
  const std::int64_t rows = inputs.samples();
  RETORT_CHECK(static_cast<std::int64_t>(samples.size()) == rows, "[teacher] expected ", rows,
               " sample indices, got ", samples.size());
  std::vector<float> values(samples.size() * static_cast<std::size_t>(classes()));
  cached_logits([&] { return inputs; }, samples, variants, values);
  return Tensor::from(values, {rows, classes()}, inputs.device());
}

void Teacher::cached_logits(const std::function<nn::Inputs()>& make_inputs,
                            std::span<const std::int64_t> samples,
                            std::span<const std::uint32_t> variants,
                            std::span<float> values) const {
  RETORT_CHECK(cache_ != nullptr, "[teacher] expected a cache");
  const auto width = static_cast<std::size_t>(classes());
  const std::vector<std::int64_t> missing = cache_->lookup(samples, variants, values);
  if (missing.empty()) return;
  const nn::Inputs whole = make_inputs();
  if (whole.starts.defined()) {
    // All of them: to pick out the missing ones saves little, as they are all there or none.
    RETORT_CHECK(!whole.rows.defined(),
                 "[teacher] the cache expects one row of logits a sample, got a choice of rows");
    const RowsAlone rows_alone;
    const std::vector<float> fresh = logits(whole).to_vector<float>();
    RETORT_CHECK(fresh.size() == values.size(), "[teacher] the cache expects ", values.size(),
                 " logits of ", samples.size(), " texts, got ", fresh.size());
    std::copy(fresh.begin(), fresh.end(), values.begin());
    cache_->insert(samples, variants, values);
    return;
  }
  const Tensor& inputs = whole.values;
  for (std::size_t begin = 0; begin < missing.size(); begin += kCachePass) {
    const std::size_t count = std::min(kCachePass, missing.size() - begin);
    Shape shape{static_cast<std::int64_t>(kCachePass)};
    for (int d = 1; d < inputs.rank(); ++d) shape.push_back(inputs.dim(d));
    const Tensor pass = Tensor::empty(shape, inputs.dtype(), inputs.device());
    for (std::size_t k = 0; k < kCachePass; ++k) {
      const std::int64_t row = missing[begin + std::min(k, count - 1)];
      const auto to = static_cast<std::int64_t>(k);
      pass.slice(to, to + 1).copy_from(inputs.slice(row, row + 1));
    }
    const std::vector<float> fresh = logits(pass).to_vector<float>();
    for (std::size_t k = 0; k < count; ++k)
      std::copy_n(&fresh[k * width], width,
                  &values[static_cast<std::size_t>(missing[begin + k]) * width]);
  }
  cache_->insert(samples, variants, values);
}

}  // namespace retort::distill
