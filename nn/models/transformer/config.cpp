#include "nn/models/transformer/config.h"

#include <algorithm>
#include <optional>

namespace retort::nn {
namespace {

using kernels::Activation;

constexpr const char* kFamilies[] = {"bert", "distilbert", "gpt2"};

struct Architecture {
  const char* name;
  TransformerFamily family;
  TextTask head;
};
// The first of a family and head is what is written.
constexpr Architecture kArchitectures[] = {
    {"BertModel", TransformerFamily::kBert, TextTask::kNone},
    {"BertForMaskedLM", TransformerFamily::kBert, TextTask::kMaskedLm},
    {"BertForPreTraining", TransformerFamily::kBert, TextTask::kMaskedLm},
    {"BertForSequenceClassification", TransformerFamily::kBert, TextTask::kClassification},
    {"BertForMultipleChoice", TransformerFamily::kBert, TextTask::kMultipleChoice},
    {"DistilBertModel", TransformerFamily::kDistilBert, TextTask::kNone},
    {"DistilBertForMaskedLM", TransformerFamily::kDistilBert, TextTask::kMaskedLm},
    {"DistilBertForSequenceClassification", TransformerFamily::kDistilBert,
     TextTask::kClassification},
    {"DistilBertForMultipleChoice", TransformerFamily::kDistilBert, TextTask::kMultipleChoice},
    {"GPT2Model", TransformerFamily::kGpt2, TextTask::kNone},
    {"GPT2LMHeadModel", TransformerFamily::kGpt2, TextTask::kCausalLm},
};

// How config.json of a family spells what all have; null: it has no such key.
struct Spelling {
  const char *layers, *hidden, *heads, *intermediate, *positions, *types;
  const char *dropout, *attention_dropout, *head_dropout, *activation, *epsilon;
};
constexpr Spelling kSpellings[] = {
    {"num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size",
     "max_position_embeddings", "type_vocab_size", "hidden_dropout_prob",
     "attention_probs_dropout_prob", "classifier_dropout", "hidden_act", "layer_norm_eps"},
    {"n_layers", "dim", "n_heads", "hidden_dim", "max_position_embeddings", nullptr, "dropout",
     "attention_dropout", "seq_classif_dropout", "activation", nullptr},
    {"n_layer", "n_embd", "n_head", "n_inner", "n_positions", nullptr, "resid_pdrop", "attn_pdrop",
     nullptr, "activation_function", "layer_norm_epsilon"},
};
const Spelling& spelling_of(TransformerFamily family) {
  return kSpellings[static_cast<std::size_t>(family)];
}

struct NamedActivation {
  const char* name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {
    {"gelu", Activation::kGelu}, {"gelu_new", Activation::kGeluTanh}, {"relu", Activation::kRelu}};

class Reader {
 public:
  Reader(const Json& json, std::string file) : json_(json), file_(std::move(file)) {}

  TransformerConfig read() {
    if (json_.kind() != Json::Kind::kObject)
      fail(ErrorCode::kBadInput, file_, ": expected an object");
    const auto family = family_of();
    if (!family) stop();
    TransformerConfig c = published(*family);
    const Spelling& names = spelling_of(*family);
    c.head = head_of(*family);
    size(names.layers, &c.layers);
    size(names.hidden, &c.hidden);
    size(names.heads, &c.heads);
    if (*family == TransformerFamily::kGpt2) c.intermediate = 4 * c.hidden;  // n_inner: null
    size(names.intermediate, &c.intermediate);
    size(names.positions, &c.positions);
    if (names.types != nullptr) size(names.types, &c.types);
    size("vocab_size", &c.vocabulary);
    if (c.heads >= 1 && c.hidden % c.heads != 0)
      fault(names.hidden, join("a multiple of ", names.heads, " = ", c.heads),
            std::to_string(c.hidden));
    share(names.dropout, &c.dropout);
    share(names.attention_dropout, &c.attention_dropout);
    if (names.head_dropout != nullptr) {
      if (*family == TransformerFamily::kBert) c.head_dropout = c.dropout;  // null means so
      share(names.head_dropout, &c.head_dropout);
    }
    if (names.epsilon != nullptr) number(names.epsilon, 1e-30, 1, &c.epsilon);
    number("initializer_range", 0, 1e3, &c.init_deviation);
    activation(names.activation, &c.activation);
    classes(&c.classes);
    refuse_what_is_not_computed(c);
    if (!faults_.empty()) stop();
    return c;
  }

 private:
  [[noreturn]] void stop() const {
    fail(ErrorCode::kBadInput, file_, ": this model is not known here; ", faults_);
  }
  void fault(const std::string& key, const std::string& expected, const std::string& found) {
    faults_ += (faults_.empty() ? "" : "; ") + key + ": expected " + expected + ", found " + found;
  }
  const Json* find(const char* key) const {
    const Json* const value = json_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  static bool is_integer(const Json& value) {
    return value.kind() == Json::Kind::kInteger || value.kind() == Json::Kind::kUnsigned;
  }

  std::optional<TransformerFamily> family_of() {
    const Json* const type = find("model_type");
    const bool text = type != nullptr && type->kind() == Json::Kind::kString;
    for (std::size_t i = 0; text && i < std::size(kFamilies); ++i)
      if (type->as_string() == kFamilies[i]) return static_cast<TransformerFamily>(i);
    fault("model_type", "\"bert\", \"distilbert\" or \"gpt2\"",
          type == nullptr ? "none" : type->dump());
    return std::nullopt;
  }

  TextTask head_of(TransformerFamily family) {
    const Json* const list = find("architectures");
    if (list == nullptr) return TextTask::kNone;
    if (list->kind() == Json::Kind::kArray && list->items().empty()) return TextTask::kNone;
    if (list->kind() == Json::Kind::kArray && list->items()[0].kind() == Json::Kind::kString)
      for (const Architecture& a : kArchitectures)
        if (a.family == family && list->items()[0].as_string() == a.name) return a.head;
    std::string known;
    for (const Architecture& a : kArchitectures)
      if (a.family == family) known += (known.empty() ? "" : ", ") + std::string(a.name);
    fault("architectures", "one of " + known, list->dump());
    return TextTask::kNone;
  }

  void size(const char* key, std::int64_t* value) {
    const Json* const given = find(key);
    if (given == nullptr) return;
    if (is_integer(*given)) {
      const double n = given->as_number();
      if (n >= 1 && n <= 1e9) {
        *value = given->as_integer();
        return;
      }
    }
    fault(key, "an integer in [1, 1000000000]", given->dump());
  }

  void number(const char* key, double least, double most, double* value) {
    const Json* const given = find(key);
    if (given == nullptr) return;
    if (given->kind() == Json::Kind::kNumber || is_integer(*given)) {
      const double n = given->as_number();
      if (n >= least && n <= most) {
        *value = n;
        return;
      }
    }
    fault(key, join("a number in [", least, ", ", most, "]"), given->dump());
  }
  void share(const char* key, double* value) { number(key, 0, 0.999, value); }

  void activation(const char* key, Activation* value) {
    const Json* const given = find(key);
    if (given == nullptr) return;
    if (given->kind() == Json::Kind::kString)
      for (const NamedActivation& a : kActivations)
        if (given->as_string() == a.name) {
          *value = a.activation;
          return;
        }
    fault(key, "\"gelu\", \"gelu_new\" or \"relu\"", given->dump());
  }

  // transformers counts id2label, and writes num_labels only where there is none.
  void classes(std::int64_t* value) {
    size("num_labels", value);
    if (const Json* const names = find("id2label"); names && names->kind() == Json::Kind::kObject)
      if (!names->members().empty()) *value = static_cast<std::int64_t>(names->members().size());
  }

  void only(const char* key, const Json& wanted) {
    const Json* const given = find(key);
    if (given != nullptr && given->dump() != wanted.dump())
      fault(key, wanted.dump(), given->dump());
  }
  void refuse_what_is_not_computed(const TransformerConfig& c) {
    only("add_cross_attention", false);
    if (c.family != TransformerFamily::kGpt2) only("is_decoder", false);
    if (c.family == TransformerFamily::kBert) only("position_embedding_type", "absolute");
    if (c.family == TransformerFamily::kGpt2) {
      only("scale_attn_weights", true);
      only("scale_attn_by_inverse_layer_idx", false);
      // One rate for what the residual stream gets, and the embeddings are part of it.
      if (const Json* const own = find("embd_pdrop");
          own && own->kind() != Json::Kind::kString && own->as_number() != c.dropout)
        fault("embd_pdrop", join("resid_pdrop = ", c.dropout), own->dump());
    }
    if (c.head == TextTask::kMaskedLm || c.head == TextTask::kCausalLm)
      only("tie_word_embeddings", true);
  }

  const Json& json_;
  std::string file_, faults_;
};

}  // namespace

const char* name_of(TransformerFamily family) {
  return kFamilies[static_cast<std::size_t>(family)];
}

const char* activation_name(Activation activation) {
  for (const NamedActivation& a : kActivations)
    if (a.activation == activation) return a.name;
  return "none";
}

TransformerConfig published(TransformerFamily family) {
  TransformerConfig c;
  c.family = family;
  if (family == TransformerFamily::kDistilBert) {
    c.layers = 6;
    c.types = 0;
    c.head_dropout = 0.2;
  } else if (family == TransformerFamily::kGpt2) {
    c.positions = 1024;
    c.types = 0;
    c.vocabulary = 50257;
    c.activation = Activation::kGeluTanh;
    c.epsilon = 1e-5;
    c.head_dropout = 0;
  }
  return c;
}

TransformerConfig parse_transformer_config(const Json& json, const std::string& file) {
  return Reader(json, file).read();
}

Json json_of(const TransformerConfig& c) {
  const Spelling& names = spelling_of(c.family);
  Json json = Json::object();
  for (const Architecture& a : kArchitectures)
    if (a.family == c.family && a.head == c.head) {
      json.set("architectures", Json::array().push(a.name));
      break;
    }
  json.set("model_type", name_of(c.family));
  json.set(names.layers, c.layers).set(names.hidden, c.hidden).set(names.heads, c.heads);
  json.set(names.intermediate, c.intermediate).set(names.positions, c.positions);
  if (names.types != nullptr) json.set(names.types, c.types);
  json.set("vocab_size", c.vocabulary);
  json.set(names.dropout, c.dropout).set(names.attention_dropout, c.attention_dropout);
  if (c.family == TransformerFamily::kGpt2) json.set("embd_pdrop", c.dropout);
  if (names.head_dropout != nullptr) json.set(names.head_dropout, c.head_dropout);
  json.set(names.activation, activation_name(c.activation));
  if (names.epsilon != nullptr) json.set(names.epsilon, c.epsilon);
  json.set("initializer_range", c.init_deviation).set("tie_word_embeddings", true);
  if (c.family == TransformerFamily::kBert) json.set("position_embedding_type", "absolute");
  if (c.family != TransformerFamily::kGpt2) json.set("pad_token_id", 0);
  if (c.head == TextTask::kClassification) {
    Json names_of_ids = Json::object(), ids_of_names = Json::object();
    for (std::int64_t i = 0; i < c.classes; ++i) {
      const std::string name = "LABEL_" + std::to_string(i);
      names_of_ids.set(std::to_string(i), name);
      ids_of_names.set(name, i);
    }
    json.set("id2label", names_of_ids).set("label2id", ids_of_names);
  }
  json.set("torch_dtype", "float32");
  return json;
}

void check(const TransformerConfig& c) {
  const char* const who = name_of(c.family);
  for (const auto& [what, value] : {std::pair("layers", c.layers),
                                    {"hidden_size", c.hidden},
                                    {"heads", c.heads},
                                    {"intermediate", c.intermediate},
                                    {"positions", c.positions},
                                    {"vocabulary", c.vocabulary},
                                    {"classes", c.classes}})
    RETORT_CHECK(value >= 1, "[", who, "] expected ", what, " >= 1, got ", value);
  RETORT_CHECK(c.hidden % c.heads == 0, "[", who, "] expected a hidden_size that is a multiple of ",
               c.heads, " heads, got ", c.hidden);
  const bool known =
      std::any_of(std::begin(kArchitectures), std::end(kArchitectures),
                  [&](const Architecture& a) { return a.family == c.family && a.head == c.head; });
  RETORT_CHECK(known, "[", who, "] there is no head for ", name_of(c.head));
}

}  // namespace retort::nn
