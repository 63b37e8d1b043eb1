// What one model reads of a batch, and what is wanted of it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort::nn {

/// What kind of values data gives and a model reads.
enum class Reads : std::uint8_t { kFeatures, kImages, kTokens };
/// "features", "images", "tokens".
const char* name_of(Reads reads);

/// A batch of B samples as one model reads it. Rows of logits are not samples: an image or a vector
/// of features has one row, a text has as many as are asked for.
///
/// Shapes    values: images (B, H, W, C), features (B, n), or ids i32 (T) of all sequences, end to
///           end and unpadded. The rest is for ids alone: starts i32 (B + 1), sample b is tokens
///           [starts[b], starts[b+1]) (with choices C: i32 (B C + 1), sample b is the sequences
///           [b C, (b+1) C)); segments i32 (T); rows i32 (N), ascending: the tokens whose
///           logits are wanted. Undefined: as the model has it (segment 0; one row a sample, or
///           all).
struct Inputs {
  Tensor values;
  Tensor starts, segments, rows;
  /// Of ids: sequences that make one sample (multiple choice). Logits are then one row a sample, (B,
  /// choices): how well each sequence answers.
  std::int64_t choices = 1;
  /// Of starts and rows, for whoever cuts a batch without asking the device.
  std::vector<std::int32_t> starts_on_host, rows_on_host;

  /// Of ids, which have none of their own: bf16 for activations in it, f32 for those of the
  /// parameters.
  DType activations = DType::kF32;

  /// What a model in training draws numbers by (dropout): a number of each sequence (i64; of each
  /// sample where values are no ids), and the step, an i64 scalar. Undefined: it may draw none.
  Tensor drawn_by, step;

  Inputs() = default;
  Inputs(Tensor v) : values(std::move(v)) {}  // forward(x) reads well
  /// Ids with their sequences' lengths, all >= 1; `wanted` are rows, empty for undefined.
  static Inputs tokens(Tensor ids, std::vector<std::int32_t> starts,
                       std::vector<std::int32_t> wanted = {});

  bool defined() const { return values.defined(); }
  Device device() const { return values.device(); }
  std::int64_t samples() const;  // B
  /// Samples [begin, end): views where they can be. Rows are counted from the slice's first token.
  Inputs slice(std::int64_t begin, std::int64_t end) const;
  /// From now on sample b has this number, and this is the step: a draw is a function of both and
  /// of its place in the sample, and so the same in any order and split. Sequence c of a sample is
  /// drawn by samples[b] * choices + c. Errors    kUsage unless there is a number for each sample.
  void key(std::span<const std::int64_t> samples, std::int64_t at);
};

/// What of a forward pass is wanted: the largest of what its readers want.
struct Want {
  std::int64_t layers = 0;  // only the first so many hidden layers, and no logits; 0: everything
  bool hidden = false;      // pre and post of the layers computed
  bool features = false;    // what the last layer reads: not to be had from a cache of logits
  /// Features and the last layer's weights do instead of logits, which a model may then leave
  /// undefined: for who multiplies them part by part. Also said by who reads no logits.
  bool head = false;
  bool attention = false;  // queries and keys of the layers computed

  /// Both at once.
  Want operator|(const Want& other) const;
  /// Whether logits are enough to answer.
  bool logits_suffice() const { return layers == 0 && !hidden && !features && !attention; }
  bool operator==(const Want&) const = default;
};

/// A last layer that is linear: logits = features weight^T + bias.
///
/// Shapes    weight (V, m), bias (V) or undefined; for features (N, m), which are widened to the
///           weight's dtype.
struct Head {
  Tensor weight, bias;
  bool defined() const { return weight.defined(); }
};

/// What a layer's attention is made of: softmax(q k^T / sqrt(D)) over each sequence, for each head.
///
/// Shapes    queries and keys (T, heads D)
struct AttentionReads {
  Tensor queries, keys;
  std::int64_t heads = 0;
  bool causal = false;
};

/// What a model returns. pre and post are filled if hidden layers are wanted: the activations
/// before and after the nonlinearity, from the input side on.
///
/// Shapes    logits (N, V); undefined where features and head stand for them (Want::head).
///           features (N, m): what the last layer reads. mlp: one (B, width) each
///           per hidden layer. ResNets: one (B, H, W, C) each per stage, of the stage's last block.
///           Transformers: one (T, H) per layer, its output, in pre and in post; embeddings (T, H):
///           what the first one reads; attention: one a layer, where it is wanted.
struct Outputs {
  Tensor logits;
  std::vector<Tensor> pre, post;
  Tensor features;
  Tensor embeddings;
  Head head = {};
  std::vector<AttentionReads> attention = {};
  std::vector<std::int32_t> starts_on_host = {};  // of the sequences that attention is over
};

/// The logits, multiplied out where features and head stand for them.
Tensor logits_of(const Outputs& outputs);

}  // namespace retort::nn
