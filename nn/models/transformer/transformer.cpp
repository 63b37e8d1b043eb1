#include "nn/models/transformer/transformer.h"

#include <cmath>

#include "engine/autograd/autograd.h"
#include "engine/ops/attention.h"
#include "engine/ops/cast.h"
#include "engine/ops/dropout.h"
#include "engine/ops/embedding.h"
#include "engine/ops/gather_rows.h"
#include "engine/ops/layer_norm.h"
#include "engine/ops/linear.h"
#include "engine/ops/view.h"
#include "kernels/common/philox.h"

namespace retort::nn {
namespace {

using kernels::Activation;

std::uint32_t draw_path(const std::string& path) { return path_hash(("dropout." + path).c_str()); }

bool is_classifier(TextTask head) {
  return head == TextTask::kClassification || head == TextTask::kMultipleChoice;
}

}  // namespace

// Where the sequences of a batch lie, and what drawing is keyed by.
struct Transformer::Sequences {
  Tensor starts;
  std::int64_t count = 0, tokens = 0, longest = 0;
  Noise noise;        // of rows of tokens; without samples: nothing is drawn
  Noise of_sequence;  // of one row a sequence
};

Transformer::Transformer(const TransformerConfig& config, std::uint64_t dropout_seed,
                         std::int64_t choices)
    : config_(config), dropout_seed_(dropout_seed), choices_(choices) {
  check(config);
  const std::string p = prefix();
  const double deviation = config.init_deviation;
  const std::int64_t width = config.hidden;
  if (is_gpt2()) {
    word_ = &add_table(part("word", p + "wte"), config.vocabulary, width, deviation);
    position_ = &add_table(part("position", p + "wpe"), config.positions, width, deviation);
  } else {
    word_ = &add_table(part("word", p + "embeddings.word_embeddings"), config.vocabulary, width,
                       deviation);
    position_ = &add_table(part("position", p + "embeddings.position_embeddings"), config.positions,
                           width, deviation);
    if (config.family == TransformerFamily::kBert)
      type_ = &add_table(part("type", p + "embeddings.token_type_embeddings"), config.types, width,
                         deviation);
    embedding_norm_ = add_norm(part("embedding_norm", p + "embeddings.LayerNorm"), width);
  }
  for (std::int64_t i = 0; i < config.layers; ++i) layers_.push_back(add_layer(i));
  if (is_gpt2()) last_norm_ = add_norm(part("last_norm", p + "ln_f"), width);
  embedding_drop_ = draw_path("embeddings");
  head_drop_ = draw_path("head");
  add_head();
}

Branch& Transformer::at(const std::string& path) {
  const std::size_t dot = path.find('.');
  const std::string name = path.substr(0, dot);
  Branch*& child = branches_[name];
  if (child == nullptr) child = &add_module(name, std::make_shared<Branch>());
  return dot == std::string::npos ? *child : child->at(path.substr(dot + 1));
}

Branch& Transformer::part(const std::string& what, const std::string& path) {
  parts_.emplace_back(what, path + ".");
  return at(path);
}

Transformer::Layer Transformer::add_layer(std::int64_t i) {
  const std::int64_t width = config_.hidden, wide = config_.intermediate;
  const double deviation = config_.init_deviation;
  // Radford et al. 2019, 2.3: what the residual stream gets is scaled by its 2 N summands.
  const double into_stream =
      is_gpt2() ? deviation / std::sqrt(2.0 * static_cast<double>(config_.layers)) : deviation;
  const char* const where[] = {"encoder.layer.", "transformer.layer.", "h."};
  const std::string p =
      prefix() + where[static_cast<std::size_t>(config_.family)] + std::to_string(i) + ".";
  const std::string what = "layer" + std::to_string(i) + ".";
  const auto map = [&](const char* is, const char* name, std::int64_t in, std::int64_t out,
                       double sd) { return add_linear(part(what + is, p + name), in, out, sd); };
  const auto norm = [&](const char* is, const char* name) {
    return add_norm(part(what + is, p + name), width);
  };
  Layer l;
  switch (config_.family) {
    case TransformerFamily::kBert:
      l.query = map("query", "attention.self.query", width, width, deviation);
      l.key = map("key", "attention.self.key", width, width, deviation);
      l.value = map("value", "attention.self.value", width, width, deviation);
      l.attention_out = map("attention_out", "attention.output.dense", width, width, deviation);
      l.attention_norm = norm("attention_norm", "attention.output.LayerNorm");
      l.up = map("up", "intermediate.dense", width, wide, deviation);
      l.down = map("down", "output.dense", wide, width, deviation);
      l.output_norm = norm("output_norm", "output.LayerNorm");
      break;
    case TransformerFamily::kDistilBert:
      l.query = map("query", "attention.q_lin", width, width, deviation);
      l.key = map("key", "attention.k_lin", width, width, deviation);
      l.value = map("value", "attention.v_lin", width, width, deviation);
      l.attention_out = map("attention_out", "attention.out_lin", width, width, deviation);
      l.attention_norm = norm("attention_norm", "sa_layer_norm");
      l.up = map("up", "ffn.lin1", width, wide, deviation);
      l.down = map("down", "ffn.lin2", wide, width, deviation);
      l.output_norm = norm("output_norm", "output_layer_norm");
      break;
    case TransformerFamily::kGpt2:
      l.attention_norm = norm("attention_norm", "ln_1");
      l.attention_in = map("attention_in", "attn.c_attn", width, 3 * width, deviation);
      l.attention_out = map("attention_out", "attn.c_proj", width, width, into_stream);
      l.output_norm = norm("output_norm", "ln_2");
      l.up = map("up", "mlp.c_fc", width, wide, deviation);
      l.down = map("down", "mlp.c_proj", wide, width, into_stream);
      break;
  }
  // By number and part alone: what is drawn does not hang on the family's spelling.
  const std::string drawn = "layer" + std::to_string(i);
  l.attention_path = draw_path(drawn + ".attention");
  l.attention_drop = draw_path(drawn + ".attention_out");
  l.output_drop = draw_path(drawn + ".output");
  return l;
}

void Transformer::add_head() {
  const std::int64_t width = config_.hidden;
  const double deviation = config_.init_deviation;
  const bool bert = config_.family == TransformerFamily::kBert;
  if (bert && (config_.has_pooler() || config_.head == TextTask::kNone))
    head_dense_ = add_linear(part("pooler", prefix() + "pooler.dense"), width, width, deviation);
  if (config_.head == TextTask::kMaskedLm) {
    const std::string out = bert ? "cls.predictions" : "vocab_projector";
    head_out_.bias = &at(out).add_parameter("bias", {config_.vocabulary}, Init::constant(0));
    parts_.emplace_back("masked_lm.bias", out + ".bias");
    const std::string dense = bert ? "cls.predictions.transform.dense" : "vocab_transform";
    head_dense_ = add_linear(part("masked_lm.dense", dense), width, width, deviation);
    const std::string norm = bert ? "cls.predictions.transform.LayerNorm" : "vocab_layer_norm";
    head_norm_ = add_norm(part("masked_lm.norm", norm), width);
  } else if (is_classifier(config_.head)) {
    if (!bert)
      head_dense_ = add_linear(part("pre_classifier", "pre_classifier"), width, width, deviation);
    head_out_ =
        add_linear(part(name_of(config_.head), "classifier"), width,
                   config_.head == TextTask::kMultipleChoice ? 1 : config_.classes, deviation);
  }
}

Head Transformer::head() const {
  if (config_.head == TextTask::kNone) return {};
  if (is_classifier(config_.head)) return {*head_out_.weight, *head_out_.bias};
  return {*word_, head_out_.bias == nullptr ? Tensor() : *head_out_.bias};  // tied
}

ModelFacts Transformer::facts() const {
  std::int64_t classes = 0;
  switch (config_.head) {
    case TextTask::kNone: break;
    case TextTask::kMaskedLm:
    case TextTask::kCausalLm: classes = config_.vocabulary; break;
    case TextTask::kClassification: classes = config_.classes; break;
    case TextTask::kMultipleChoice: classes = choices_; break;
  }
  return {.reads = Reads::kTokens, .classes = classes, .hidden_layers = config_.layers};
}

Transformer::Sequences Transformer::sequences_of(const Inputs& in) const {
  const char* const who = name_of(config_.family);
  RETORT_CHECK(in.values.defined() && in.values.rank() == 1 && in.values.dtype() == DType::kI32 &&
                   in.starts.defined() && in.starts_on_host.size() >= 2,
               "[", who, "] expected ids (T) of i32 with starts: Inputs::tokens()");
  Sequences s;
  s.starts = in.starts;
  s.count = in.starts.dim(0) - 1;
  s.tokens = in.values.dim(0);
  const std::vector<std::int32_t>& starts = in.starts_on_host;
  for (std::size_t b = 0; b + 1 < starts.size(); ++b)
    s.longest = std::max<std::int64_t>(s.longest, starts[b + 1] - starts[b]);
  RETORT_CHECK(s.longest <= config_.positions, "[", who, "] expected sequences of at most ",
               config_.positions, " tokens, as many as there are positions, got one of ",
               s.longest);
  RETORT_CHECK(config_.head != TextTask::kMultipleChoice || in.choices == choices_, "[", who,
               "] expected ", choices_, " sequences a sample, got ", in.choices);
  const bool draws = training() && (config_.dropout > 0 || config_.attention_dropout > 0 ||
                                    (is_classifier(config_.head) && config_.head_dropout > 0));
  if (!draws) return s;
  RETORT_CHECK(in.drawn_by.defined() && in.drawn_by.dim(0) == s.count && in.step.defined(), "[",
               who, "] dropout in training is keyed by sample and step: expected Inputs::key()");
  std::vector<std::int32_t> sequence, place;  // of each token
  sequence.reserve(static_cast<std::size_t>(s.tokens));
  place.reserve(static_cast<std::size_t>(s.tokens));
  for (std::size_t b = 0; b + 1 < starts.size(); ++b)
    for (std::int32_t t = starts[b]; t < starts[b + 1]; ++t) {
      sequence.push_back(static_cast<std::int32_t>(b));
      place.push_back(t - starts[b]);
    }
  const Device device = in.values.device();
  const NoGrad no_grad;
  s.of_sequence = {dropout_seed_, in.step, in.drawn_by, {}};
  s.noise = {dropout_seed_, in.step,
             gather_rows(in.drawn_by.view({s.count, 1}), Tensor::from(sequence, {s.tokens}, device))
                 .view({s.tokens}),
             Tensor::from(place, {s.tokens}, device)};
  return s;
}

Tensor Transformer::embed(const Inputs& in, const Sequences& s) const {
  EmbeddingArgs args;
  args.word = *word_;
  args.position = *position_;
  if (type_ != nullptr) {
    args.type = *type_;
    args.segments = in.segments;
  }
  args.ids = in.values;
  args.starts = s.starts;
  Tensor h = embedding(args);  // (T, hidden)
  if (in.activations == DType::kBF16) h = cast(h, DType::kBF16);
  if (!is_gpt2())
    h = layer_norm(h, *embedding_norm_.weight, *embedding_norm_.bias, config_.epsilon);
  return dropout(h, config_.dropout, s.noise, embedding_drop_, training());
}

// h (T, hidden) -> (T, hidden), behind the output map.
Tensor Transformer::attend(const Layer& l, const Tensor& h, const Sequences& s,
                           Outputs* reads) const {
  AttentionOptions options;
  options.causal = is_gpt2();
  options.longest = s.longest;
  options.dropout = training() ? config_.attention_dropout : 0;
  options.noise = s.noise;
  options.path = l.attention_path;
  if (is_gpt2()) {
    const Tensor packed = l.attention_in(h);  // (T, 3 hidden)
    if (reads != nullptr)
      reads->attention.push_back({slice_columns(packed, 0, config_.hidden),
                                  slice_columns(packed, config_.hidden, 2 * config_.hidden),
                                  config_.heads, true});
    return l.attention_out(attention(packed, s.starts, config_.heads, options));
  }
  const Tensor q = l.query(h), k = l.key(h);  // (T, hidden)
  if (reads != nullptr) reads->attention.push_back({q, k, config_.heads, false});
  return l.attention_out(attention(q, k, l.value(h), s.starts, config_.heads, options));
}

Tensor Transformer::run_bert(Tensor h, const Sequences& s, const Want& want, Outputs* out) const {
  const double p = training() ? config_.dropout : 0;
  const std::size_t layers =
      want.layers > 0 ? static_cast<std::size_t>(want.layers) : layers_.size();
  for (std::size_t i = 0; i < layers; ++i) {
    const Layer& l = layers_[i];
    h = layer_norm_residual(attend(l, h, s, want.attention ? out : nullptr), h,
                            *l.attention_norm.weight, *l.attention_norm.bias, config_.epsilon,
                            {p, s.noise, l.attention_drop});
    h = layer_norm_residual(l.down(l.up(h, config_.activation)), h, *l.output_norm.weight,
                            *l.output_norm.bias, config_.epsilon, {p, s.noise, l.output_drop});
    if (want.hidden) out->post.push_back(h);
  }
  return h;
}

Tensor Transformer::run_gpt2(Tensor h, const Sequences& s, const Want& want, Outputs* out) const {
  const double p = training() ? config_.dropout : 0, epsilon = config_.epsilon;
  const std::size_t layers =
      want.layers > 0 ? static_cast<std::size_t>(want.layers) : layers_.size();
  const Affine* norm = &layers_[0].attention_norm;
  Tensor normal = layer_norm(h, *norm->weight, *norm->bias, epsilon);
  for (std::size_t i = 0; i < layers; ++i) {
    const Layer& l = layers_[i];
    NormAndSum a = layer_norm_and_sum(attend(l, normal, s, want.attention ? out : nullptr), h,
                                      *l.output_norm.weight, *l.output_norm.bias, epsilon,
                                      {p, s.noise, l.attention_drop});
    const bool last = i + 1 == layers_.size();
    norm = last ? &last_norm_ : &layers_[i + 1].attention_norm;
    a = layer_norm_and_sum(l.down(l.up(a.y, config_.activation)), a.sum, *norm->weight, *norm->bias,
                           epsilon, {p, s.noise, l.output_drop});
    h = a.sum;
    normal = a.y;
    if (want.hidden) out->post.push_back(last ? normal : h);
  }
  return normal;
}

void Transformer::run_head(const Tensor& h, const Inputs& in, const Sequences& s, const Want& want,
                           Outputs* out) const {
  if (is_classifier(config_.head)) {
    const Tensor first = gather_rows(h, s.starts.slice(0, s.count));  // (S, hidden)
    const bool bert = config_.family == TransformerFamily::kBert;
    const Tensor pooled = head_dense_(first, bert ? Activation::kTanh : Activation::kRelu);
    out->features = dropout(pooled, config_.head_dropout, s.of_sequence, head_drop_, training());
  } else {
    out->features = in.rows.defined() ? gather_rows(h, in.rows) : h;  // (N, hidden)
    if (config_.head == TextTask::kMaskedLm)
      out->features = layer_norm(head_dense_(out->features, config_.activation), *head_norm_.weight,
                                 *head_norm_.bias, config_.epsilon);
    if (config_.head == TextTask::kNone) return;
  }
  out->head = head();
  const bool choice = config_.head == TextTask::kMultipleChoice;
  if (want.head && !choice) return;
  out->logits = logits_of(*out);  // (N, V) or (B, classes)
  out->head = {};
  if (choice) out->logits = reshape(out->logits, {s.count / choices_, choices_});
}

Outputs Transformer::forward(const Inputs& inputs, const Want& want) {
  check_want(name_of(config_.family), want);
  const Sequences s = sequences_of(inputs);
  Outputs out;
  const Tensor h = embed(inputs, s);
  if (want.hidden) out.embeddings = h;
  if (want.attention) out.starts_on_host = inputs.starts_on_host;
  const Tensor last = is_gpt2() ? run_gpt2(h, s, want, &out) : run_bert(h, s, want, &out);
  out.pre = out.post;
  if (want.layers == 0) run_head(last, inputs, s, want, &out);
  return out;
}

}  // namespace retort::nn
