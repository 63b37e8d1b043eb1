// The rows of bert, distilbert and gpt2: options, Hugging Face folders, what data asks for.
#include "nn/models/transformer/transformer.h"

namespace retort::nn {
namespace {

using kernels::Activation;

constexpr const char* kFolders = "; 0: as the folder of its weights has it, else as published.";

std::vector<OptionSpec> transformer_options() {
  const auto size = [](const char* key, double most, const char* unit, const char* what) {
    return count_option(key, 0, 0, most, unit, std::string(what) + kFolders).with(kChangesCost);
  };
  return {
      size("layers", 1000, "layers", "Layers of a transformer"),
      size("hidden_size", 65536, "units", "Width of a transformer's residual stream"),
      size("heads", 1024, "heads", "Attention heads of a transformer's layer"),
      size("intermediate", 1048576, "units",
           "Width inside a transformer's feed-forward block (4 hidden_size where only that is "
           "set)"),
      size("positions", 1048576, "tokens", "Longest sequence that a transformer has positions for"),
      count_option("vocabulary", 0, 0, 1e9, "ids",
                   "Rows of a transformer's embedding; 0: as the folder of its weights has it, "
                   "else as many as the data has ids.")
          .with(kChangesCost),
      number_option("dropout", -1, -1, 0.99, "fraction",
                    "Dropout of a transformer, everywhere; -1: as the folder of its weights has "
                    "it, else 0.1.")
          .with(kChangesCost),
      choice_option("activation", "auto", "auto|gelu|gelu_new|relu",
                    "Activation of a transformer; auto: as its folder has it, else as published.")
          .with(kChangesCost),
      choice_option("head", "auto", "auto|none|masked_lm|causal_lm|classification|multiple_choice",
                    "Head of a transformer; auto: what the data asks for, else as its folder has "
                    "it.")
          .with(kChangesCost)};
}

std::optional<OptionFault> check_sizes(const Options& options) {
  const std::int64_t width = options.integer("hidden_size"), heads = options.integer("heads");
  if (width > 0 && heads > 0 && width % heads != 0)
    return OptionFault{"hidden_size", "expected a multiple of heads = " + std::to_string(heads) +
                                          ", found " + std::to_string(width)};
  return std::nullopt;
}

TransformerFamily family_of(const std::string& arch) {
  for (const TransformerFamily family :
       {TransformerFamily::kBert, TransformerFamily::kDistilBert, TransformerFamily::kGpt2})
    if (arch == name_of(family)) return family;
  fail(ErrorCode::kUsage, "[transformer] no family is called ", arch);
}

ModelKind kind_of(TransformerFamily family, std::string doc) {
  ModelKind kind;
  kind.names = {name_of(family)};
  kind.reads = Reads::kTokens;
  kind.options = transformer_options();
  kind.doc = std::move(doc);
  kind.check = check_sizes;
  kind.hidden_layers = [](const ModelConfig& c) {
    const std::int64_t layers = c.options.integer("layers");
    if (layers > 0) return layers;
    if (c.folder.empty()) return published(family_of(c.arch)).layers;
    const std::string file = c.folder + "/config.json";
    return parse_transformer_config(Json::read(file), file).layers;
  };
  kind.make = [](const ModelConfig& c) -> std::shared_ptr<Model> {
    return std::make_shared<Transformer>(transformer_config(c), c.seed, c.choices);
  };
  return kind;
}

}  // namespace

TransformerConfig transformer_config(const ModelConfig& config) {
  const TransformerFamily family = family_of(config.arch);
  TransformerConfig c = published(family);
  c.vocabulary = config.ids > 0 ? config.ids : c.vocabulary;
  const std::string file = config.folder + "/config.json";
  if (!config.folder.empty()) {
    c = parse_transformer_config(Json::read(file), file);
    RETORT_CHECK_AS(kBadInput, c.family == family, file, ": expected model_type \"",
                    name_of(family), "\", found \"", name_of(c.family), "\"");
  }
  const Options& o = config.options;
  const auto take = [&](const char* key, std::int64_t* value) {
    if (o.integer(key) > 0) *value = o.integer(key);
  };
  take("layers", &c.layers);
  if (o.integer("hidden_size") > 0) {  // what hangs on it, unless it is said
    c.hidden = o.integer("hidden_size");
    c.intermediate = 4 * c.hidden;
    c.heads = c.hidden % 64 == 0 ? c.hidden / 64 : 1;
  }
  take("heads", &c.heads);
  take("intermediate", &c.intermediate);
  take("positions", &c.positions);
  take("vocabulary", &c.vocabulary);
  if (o.number("dropout") >= 0)
    c.dropout = c.attention_dropout = c.head_dropout = o.number("dropout");
  const std::string& activation = o.text("activation");
  for (const Activation a : {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu})
    if (activation == activation_name(a)) c.activation = a;
  if (const std::string& head = o.text("head"); head == "none")
    c.head = TextTask::kNone;
  else if (head != "auto")
    c.head = parse_text_task(head);
  else if (config.task != TextTask::kNone)
    c.head = config.task;
  if (c.head == TextTask::kClassification) c.classes = config.classes;
  RETORT_CHECK_AS(kBadInput, config.ids <= c.vocabulary,
                  config.folder.empty() ? std::string("[" + config.arch + "]") : file + ":",
                  " expected embeddings of at least the ", config.ids,
                  " ids that the data has, found ", c.vocabulary);
  check(c);
  return c;
}

ModelKind bert_kind() {
  return kind_of(TransformerFamily::kBert,
                 "BERT: a bidirectional transformer; masked LM, classification, multiple choice");
}
ModelKind distilbert_kind() {
  return kind_of(TransformerFamily::kDistilBert,
                 "DistilBERT: BERT without token types and pooler, as published half as deep");
}
ModelKind gpt2_kind() {
  return kind_of(TransformerFamily::kGpt2, "GPT-2: a causal transformer decoder");
}

}  // namespace retort::nn
