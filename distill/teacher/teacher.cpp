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

// Note [Features instead of logits]
//   Of masked words a text has a row of logits for each, as wide as the vocabulary: 116 kB where it
//   has 28,996 words, 40 GB an epoch of 20,000 abstracts. What the head reads (256 values of a net of
//   that width) says the same: the logits are its product with weights that never change. So that is
//   what a cache keeps, the k-th row of sample s under number s kMostRows + k, and the head is applied
//   each time, to all rows of a part at once, cached or not: the same bytes. What is saved is the
//   pass through the layers.
constexpr std::int64_t kMostRows = std::int64_t{1} << 16;

struct RowNames {
  std::vector<std::int64_t> samples;
  std::vector<std::uint32_t> variants;
};

RowNames names_of_rows(std::span<const std::int64_t> samples,
                       std::span<const std::uint32_t> variants,
                       std::span<const std::int32_t> of_row) {
  RowNames names;
  std::int64_t place = 0;
  for (std::size_t i = 0; i < of_row.size(); ++i) {
    const auto b = static_cast<std::size_t>(of_row[i]);
    RETORT_CHECK(of_row[i] >= 0 && b < samples.size(), "[teacher] expected rows of ",
                 samples.size(), " samples, got one of sample ", of_row[i]);
    place = i > 0 && of_row[i] == of_row[i - 1] ? place + 1 : 0;
    RETORT_CHECK(place < kMostRows, "[teacher] the cache expects at most ", kMostRows,
                 " rows of a sample");
    names.samples.push_back(samples[b] * kMostRows + place);
    names.variants.push_back(variants.empty() ? 0 : variants[b]);
  }
  return names;
}

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
    if (key.rows == CachedRows::kLogits) {
      RETORT_CHECK(key.width == classes(), "[teacher] expected a cache of ", classes(),
                   " classes, got ", key.width);
    } else {
      const nn::Head head = model_->head();
      RETORT_CHECK(head.defined(), "[teacher] features can be kept of models with a linear head");
      RETORT_CHECK(key.width == head.weight.dim(1), "[teacher] expected a cache of ",
                   head.weight.dim(1), " features, got ", key.width);
    }
  }
  cache_ = std::move(cache);
}

Tensor Teacher::logits(const nn::Inputs& inputs, std::span<const std::int64_t> samples,
                       std::span<const std::uint32_t> variants) const {
  if (!keeps(CachedRows::kLogits) || samples.empty()) return logits(inputs);
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
  RETORT_CHECK(keeps(CachedRows::kLogits), "[teacher] expected a cache of logits");
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

nn::Outputs Teacher::features(const nn::Inputs& inputs, std::span<const std::int64_t> samples,
                              std::span<const std::uint32_t> variants,
                              std::span<const std::int32_t> of_row) const {
  RETORT_CHECK(keeps(CachedRows::kFeatures), "[teacher] expected a cache of features");
  RETORT_CHECK(
      inputs.rows.defined() && inputs.rows.dim(0) == static_cast<std::int64_t>(of_row.size()),
      "[teacher] expected the sample of each row that is asked for");
  const RowNames names = names_of_rows(samples, variants, of_row);
  const std::int64_t width = cache_->key().width;
  std::vector<float> values(of_row.size() * static_cast<std::size_t>(width));
  if (!cache_->lookup(names.samples, names.variants, values).empty()) {
    // All of them: to pick out texts saves little, as they are all there or none.
    const RowsAlone rows_alone;
    values = forward(inputs, {.head = true}).features.to_vector<float>();
    cache_->insert(names.samples, names.variants, values);
  }
  nn::Outputs out;
  out.features =
      Tensor::from(values, {static_cast<std::int64_t>(of_row.size()), width}, inputs.device());
  out.head = model_->head();
  return out;
}

}  // namespace retort::distill
