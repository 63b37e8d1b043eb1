// What a transformer is made of, and Hugging Face's config.json of it.
#pragma once
#include <cstdint>
#include <string>

#include "engine/io/json.h"
#include "kernels/common/activation.h"
#include "nn/data/dataset.h"

namespace retort::nn {

enum class TransformerFamily : std::uint8_t { kBert, kDistilBert, kGpt2 };
/// "bert", "distilbert", "gpt2": the arch of recipes, and model_type in config.json.
const char* name_of(TransformerFamily family);

struct TransformerConfig {
  TransformerFamily family = TransformerFamily::kBert;
  /// What its head gives rows for; kNone: no head, hidden states are all there is.
  TextTask head = TextTask::kNone;
  std::int64_t layers = 12, hidden = 768, heads = 12, intermediate = 3072;
  std::int64_t positions = 512, types = 2, vocabulary = 30522;  // types: of bert alone
  std::int64_t classes = 2;                                     // of kClassification
  double dropout = 0.1;            // of embeddings and of what is added to the residual stream
  double attention_dropout = 0.1;  // of attention weights
  double head_dropout = 0.1;       // in front of a classifier
  kernels::Activation activation = kernels::Activation::kGelu;
  double epsilon = 1e-12;  // of layer norms
  double init_deviation = 0.02;

  bool has_pooler() const {
    return family == TransformerFamily::kBert &&
           (head == TextTask::kClassification || head == TextTask::kMultipleChoice);
  }
  bool operator==(const TransformerConfig&) const = default;
};

/// The family as published: bert-base-uncased, distilbert-base-uncased, gpt2; without a head.
TransformerConfig published(TransformerFamily family);

/// "gelu", "gelu_new", "relu": Hugging Face's names of what transformers here know.
const char* activation_name(kernels::Activation activation);

/// From config.json; the head follows `architectures` (none of them: kNone). Keys that decide
/// nothing of what is computed here are not looked at.
///
/// Errors    Error(kBadInput) with the file that lists all that does not fit at once, what was
///           expected and what was found: a model_type or an architecture that is not known; sizes
///           that are missing, not positive, or hidden not a multiple of heads; other activations;
///           is_decoder, add_cross_attention, relative positions, a decoder that is not tied.
/// Source    transformers, configuration_{bert,distilbert,gpt2}.py.
TransformerConfig parse_transformer_config(const Json& json, const std::string& file);

/// config.json of it, as transformers reads it: parse_transformer_config gives the same config.
Json json_of(const TransformerConfig& config);

/// Errors    kUsage, beginning with [family], for sizes that do not fit together.
void check(const TransformerConfig& config);

}  // namespace retort::nn
