// How Hugging Face's files spell a transformer's weights, and what they may hold beside them.
#include "nn/models/transformer/transformer.h"

namespace retort::nn {
namespace {

constexpr const char* kPrefixes[] = {"bert.", "distilbert.", "transformer."};

}  // namespace

std::string Transformer::prefix() const {
  return config_.head == TextTask::kNone ? "" : kPrefixes[static_cast<std::size_t>(config_.family)];
}

Module::NamePairs Transformer::file_names() const {
  const std::string theirs = kPrefixes[static_cast<std::size_t>(config_.family)];
  NamePairs pairs{{".LayerNorm.gamma", ".LayerNorm.weight"},
                  {".LayerNorm.beta", ".LayerNorm.bias"}};
  const bool distilbert = config_.family == TransformerFamily::kDistilBert;
  if (config_.head == TextTask::kNone) {
    // DistilBERT's layers stand below "transformer." themselves.
    pairs.emplace_back(theirs, "");
    return pairs;
  }
  const std::vector<const char*> parts =
      is_gpt2()    ? std::vector<const char*>{"wte.", "wpe.", "h.", "ln_f."}
      : distilbert ? std::vector<const char*>{"embeddings.", "transformer."}
                   : std::vector<const char*>{"embeddings.", "encoder.", "pooler."};
  for (const char* part : parts) pairs.emplace_back(part, theirs + part);
  return pairs;
}

Module::FileRules Transformer::file_rules() const {
  FileRules rules;
  const std::string p = prefix();
  const TextTask head = config_.head;
  const bool classifies = head == TextTask::kClassification || head == TextTask::kMultipleChoice;
  const auto part = [&](const char* name, bool ours) {
    (ours ? rules.may_lack : rules.ignored).emplace_back(name);
  };
  switch (config_.family) {
    case TransformerFamily::kBert:
      rules.ignored = {p + "embeddings.position_ids", "cls.seq_relationship."};
      if (head == TextTask::kMaskedLm) rules.ignored.push_back(p + "pooler.");
      if (head != TextTask::kMaskedLm) rules.ignored.emplace_back("cls.");
      if (head == TextTask::kMaskedLm) rules.may_lack.emplace_back("cls.predictions.");
      if (head != TextTask::kMaskedLm) rules.may_lack.push_back(p + "pooler.");
      part("classifier.", classifies);
      if (head == TextTask::kMaskedLm)
        rules.tied = {{"cls.predictions.decoder.weight", p + "embeddings.word_embeddings.weight"},
                      {"cls.predictions.decoder.bias", "cls.predictions.bias"}};
      break;
    case TransformerFamily::kDistilBert:
      rules.ignored = {p + "embeddings.position_ids"};
      part("vocab_", head == TextTask::kMaskedLm);
      part("pre_classifier.", classifies);
      part("classifier.", classifies);
      if (head == TextTask::kMaskedLm)
        rules.tied = {{"vocab_projector.weight", p + "embeddings.word_embeddings.weight"}};
      break;
    case TransformerFamily::kGpt2:
      rules.ignored_at_end = {".attn.bias", ".attn.masked_bias"};
      if (head == TextTask::kCausalLm)
        rules.tied = {{"lm_head.weight", p + "wte.weight"}};
      else
        rules.ignored = {"lm_head."};
      rules.transposed = {".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight",
                          ".mlp.c_proj.weight"};
      break;
  }
  return rules;
}

std::vector<std::pair<std::string, std::string>> Transformer::companions() const {
  return {{"config.json", json_of(config_).dump() + "\n"}};
}

}  // namespace retort::nn
