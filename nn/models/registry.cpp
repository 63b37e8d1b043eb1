#include "nn/models/registry.h"

#include "nn/models/mlp.h"
#include "nn/models/plain_cnn.h"
#include "nn/models/resnet.h"
#include "nn/models/transformer/transformer.h"

namespace retort::nn {

Registry<ModelKind>& model_kinds() {
  static Registry<ModelKind> kinds(
      "model", {cifar_resnet_kind(), wide_cifar_resnet_kind(), imagenet_resnet_kind(),
                plain_cnn_kind(), mlp_kind(), bert_kind(), distilbert_kind(), gpt2_kind()});
  return kinds;
}

ModelConfig complete(const ModelConfig& config) {
  ModelConfig full = config;
  full.options = complete(config.arch, model_kinds().at(config.arch).options, config.options);
  return full;
}

std::shared_ptr<Model> make_model(const ModelConfig& config) {
  const ModelKind& kind = model_kinds().at(config.arch);
  RETORT_CHECK(config.classes >= 1, "[make_model] expected classes >= 1, got ", config.classes);
  const ModelConfig full = complete(config);
  const std::shared_ptr<Model> model = kind.make(full);
  RETORT_CHECK(model != nullptr, "[make_model] the row of '", config.arch, "' made no model");
  const std::int64_t layers = model->facts().hidden_layers;
  RETORT_CHECK(!kind.hidden_layers || kind.hidden_layers(full) == layers, "[make_model] '",
               config.arch, "' has ", layers, " hidden layers, and its row says otherwise");
  if (config.initialize) model->initialize(config.seed);
  return model;
}

}  // namespace retort::nn
