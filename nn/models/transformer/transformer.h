// BERT, DistilBERT and a GPT-2-style decoder, from the same parts.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/registry.h"
#include "nn/models/transformer/config.h"
#include "nn/models/transformer/parts.h"

namespace retort::nn {

/// A transformer over sequences that lie end to end: nothing is padded from the embedding on.
///
///   bert, distilbert   e = drop(norm(word + position [+ type]))
///                      a = norm(h + drop(W_o attention(W_q h, W_k h, W_v h)))
///                      h' = norm(a + drop(W_2 f(W_1 a)))
///   gpt2               e = drop(word + position)
///                      a = h + drop(W_o causal(W_qkv norm(h)))
///                      h' = a + drop(W_2 f(W_1 norm(a))); norm(h') behind the last layer
///
///   heads   kMaskedLm        logits = norm(f(W h)) word^T + b of the rows wanted
///           kCausalLm        logits = h word^T of the rows wanted
///           kClassification  W_c drop(tanh(W_p h_0)), h_0 of a sequence's first token; distilbert
///                            max(0, W_p h_0) in place of the tanh
///           kMultipleChoice  the same with one row in W_c, for every sequence of a sample
///           kNone            no logits
///
/// The rows that are wanted are gathered before the product with the vocabulary.
///
/// Shapes    ids i32 (T) with starts: Inputs. logits (N, vocabulary), (B, classes), (B, choices).
///           Hidden layers (T, hidden), in pre and in post; embeddings (T, hidden): e. features:
///           what the last product reads, (N, hidden); kNone: h of the rows wanted. attention: of
///           every layer computed, without dropout.
/// Numerics  activations in Inputs::activations: bf16 behind the embedding, with parameters rounded
///           for each product; logits of a head of f32 are f32.
/// Dropout   in training, of embeddings, of attention's weights, of what the residual stream gets,
///           in front of a classifier; by (seed, step, sequence, place, path): Inputs::key().
/// Errors    kUsage for inputs of another kind, a sequence longer than there are positions, an id
///           or segment outside its table, dropout in training without Inputs::key().
/// Source    Devlin et al. 2019, arXiv:1810.04805; Sanh et al. 2019, arXiv:1910.01108; Radford et
///           al. 2019; names and shapes of transformers, modeling_{bert,distilbert,gpt2}.py.
class Transformer : public Model {
 public:
  /// choices: sequences of one sample, of kMultipleChoice. dropout_seed: of what is drawn.
  explicit Transformer(const TransformerConfig& config, std::uint64_t dropout_seed = 0,
                       std::int64_t choices = 2);
  Outputs forward(const Inputs& inputs, const Want& want = {}) override;
  ModelFacts facts() const override;
  Head head() const override;
  const TransformerConfig& config() const { return config_; }

  /// Its parts by what they are, whatever a family calls them, with the beginning of their names:
  /// {"layer3.query", "bert.encoder.layer.3.attention.self.query."}.
  const NamePairs& parts() const { return parts_; }

  /// A file without the prefix ("bert.") is read like one with it, gamma and beta as weight and
  /// bias.
  NamePairs file_names() const override;
  FileRules file_rules() const override;
  /// config.json.
  std::vector<std::pair<std::string, std::string>> companions() const override;

 private:
  struct Layer {
    Affine query, key, value;  // bert, distilbert
    Affine attention_in;       // gpt2: the three in one
    Affine attention_out, up, down;
    Affine attention_norm, output_norm;  // behind each block; gpt2: in front of it
    std::uint32_t attention_path, attention_drop, output_drop;
  };
  struct Sequences;

  Branch& at(const std::string& path);
  Branch& part(const std::string& what, const std::string& path);
  std::string prefix() const;  // "bert." where there is a head
  bool is_gpt2() const { return config_.family == TransformerFamily::kGpt2; }
  Layer add_layer(std::int64_t i);
  void add_head();
  Sequences sequences_of(const Inputs& inputs) const;
  Tensor embed(const Inputs& inputs, const Sequences& s) const;
  /// `reads`: takes queries and keys; may be null.
  Tensor attend(const Layer& layer, const Tensor& h, const Sequences& s, Outputs* reads) const;
  /// What the layers make of the embeddings: what the head reads.
  Tensor run_bert(Tensor h, const Sequences& s, const Want& want, Outputs* out) const;
  Tensor run_gpt2(Tensor h, const Sequences& s, const Want& want, Outputs* out) const;
  void run_head(const Tensor& h, const Inputs& inputs, const Sequences& s, const Want& want,
                Outputs* out) const;

  TransformerConfig config_;
  std::uint64_t dropout_seed_;
  std::int64_t choices_;
  std::map<std::string, Branch*> branches_;
  NamePairs parts_;
  const Tensor *word_ = nullptr, *position_ = nullptr, *type_ = nullptr;
  Affine embedding_norm_, last_norm_;  // of bert and distilbert; of gpt2
  std::vector<Layer> layers_;
  Affine head_dense_, head_norm_, head_out_;  // head_out_ without a weight: tied
  std::uint32_t embedding_drop_, head_drop_;
};

/// Of these options and, where there is one, of the folder's config.json: what make_model builds.
/// Errors    those of parse_transformer_config and check; kBadInput for fewer rows of embeddings
///           than the data has ids.
TransformerConfig transformer_config(const ModelConfig& config);

/// "bert", "distilbert", "gpt2", for the registry.
ModelKind bert_kind();
ModelKind distilbert_kind();
ModelKind gpt2_kind();

}  // namespace retort::nn
