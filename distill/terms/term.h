// Terms: the weighted parts of what a student minimises in a stage.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "distill/step_numbers.h"
#include "distill/teacher/teacher.h"
#include "engine/io/safetensors.h"
#include "nn/data/dataset.h"
#include "nn/module.h"

namespace retort::distill {

/// What a term reads beside the models' outputs: of the rows of a batch, or of a part of it.
///
/// Shapes    as in DistillationLossArgs, which says what undefined means: targets i32 (N),
///           sample_of_row i32 (N), lambda and temperature f32 scalar or (S), normalizer f32 scalar
struct Rows {
  Tensor targets, sample_of_row;
  Tensor lambda;  // the teacher's share; undefined: it is 0 everywhere, and no teacher is asked
  Tensor temperature;
  Tensor normalizer;  // Z of the whole batch where these rows are a part of it
  // What part of the whole batch these are: the factor of a mean over its samples, over its rows of
  // logits, and over what the inputs' first dimension counts (samples, or tokens).
  double share = 1, row_share = 1, value_share = 1;
};

/// What a term makes of a batch or a part of it: its parts add up to the whole batch's.
struct TermLoss {
  Tensor total;                 // scalar, differentiable
  std::vector<Column> columns;  // detached
};

/// What a term may ask before its stage begins.
struct Calibration {
  nn::Model& student;
  std::span<const std::shared_ptr<const Teacher>> teachers;  // the stage's
  std::span<const std::size_t> readings;                     // what they read of a batch
  const nn::Batch& batch;                                    // samples as they are stored
};

/// One part of the loss. A term that is trained or calibrated belongs to one student.
class Term {
 public:
  virtual ~Term() = default;
  /// In logs, checkpoints and messages: "soft_targets", "hidden_mse".
  virtual std::string name() const = 0;
  /// What of the student's forward pass it reads.
  virtual nn::Want of_student() const = 0;
  /// What it reads of each of the stage's teachers; nothing: these rows need no teacher.
  virtual std::optional<nn::Want> of_teacher(const Rows& rows) const = 0;
  virtual TermLoss operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                              const Rows& rows) const = 0;

  /// Of a stage that begins; `resuming`: load_state() will follow.
  virtual void begin(const Calibration& /*calibration*/, bool /*resuming*/) {}
  /// Whether begin() looks at the calibration batch.
  virtual bool calibrates() const { return false; }
  /// What is trained with the student and thrown away behind the stage; null: nothing.
  virtual nn::Module* trained() { return nullptr; }
  /// What a checkpoint keeps beside trained(); it comes back in any order, so it is read by name.
  virtual NamedTensors state() const { return {}; }
  virtual void load_state(const NamedTensors& /*state*/) {}
  /// Two terms of equal keys cost the same, and a step captured with one does for the other.
  virtual std::string key() const { return name(); }
};

struct WeightedTerm {
  float weight = 1;
  std::shared_ptr<Term> term;
};
using Terms = std::vector<WeightedTerm>;

}  // namespace retort::distill
