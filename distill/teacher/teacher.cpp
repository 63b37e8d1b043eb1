#include "distill/teacher/teacher.h"

#include "engine/autograd/autograd.h"
#include "engine/io/file.h"

namespace retort::distill {

std::string weights_hash(const nn::Module& module) {
  Hasher hasher;
  const auto add = [&hasher](const nn::Module::Named& list) {
    for (const auto& [path, tensor] : list) {
      const std::string head = join(path, "|", name_of(tensor.dtype()), "|", tensor.shape(), "|");
      hasher.update(head.data(), head.size());
      const Tensor host = tensor.detach().to(Device::kCpu).contiguous();
      if (host.numel() > 0) hasher.update(host.raw(), host.bytes());
    }
  };
  add(module.named_parameters());
  add(module.named_buffers());
  return hasher.hex();
}

Teacher::Teacher(std::shared_ptr<nn::Model> model, std::string name)
    : model_(std::move(model)), name_(std::move(name)) {
  RETORT_CHECK(model_ != nullptr, "[teacher] expected a model, got null");
  model_->eval();
  model_->requires_grad(false);
  hash_ = weights_hash(*model_);
}

Tensor Teacher::logits(const Tensor& inputs) const {
  const NoGrad no_grad;
  return model_->forward(inputs).logits;
}

nn::ForwardResult Teacher::forward(const Tensor& inputs) const {
  const NoGrad no_grad;
  return model_->forward(inputs, true);
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

Tensor Teacher::logits(const Tensor& inputs, std::span<const std::int64_t> samples,
                       std::span<const std::uint32_t> augment) const {
  if (!cache_ || samples.empty()) return logits(inputs);
  const std::int64_t rows = inputs.dim(0);
  RETORT_CHECK(static_cast<std::int64_t>(samples.size()) == rows, "[teacher] expected ", rows,
               " sample indices, got ", samples.size());
  std::vector<float> values(samples.size() * static_cast<std::size_t>(classes()));
  // A missing row costs a pass over the whole batch: its shape then is what it is without a cache,
  // and with it every bit of the result. In practice all rows of a batch are there, or none.
  if (cache_->lookup(samples, augment, values))
    return Tensor::from(values, {rows, classes()}, inputs.device());
  const Tensor fresh = logits(inputs);
  cache_->insert(samples, augment, fresh.to_vector<float>());
  return fresh;
}

}  // namespace retort::distill
