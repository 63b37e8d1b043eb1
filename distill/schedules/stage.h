// What a student learns from, stage after stage. One-shot, progressive and extraction are lists.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "distill/terms/projection.h"
#include "distill/terms/soft_targets.h"

namespace retort::distill {

/// When a stage is over.
struct SwitchRule {
  std::int64_t steps = 0;  // at the latest after so many; 0: never (the last stage)
  // Plateau: earlier, if the mean loss of the last `window` steps is not at least min_improvement
  // (relative) below that of the window before. 0: off.
  std::int64_t window = 0;
  double min_improvement = 0.01;
};

struct Stage {
  std::string name = {};
  std::vector<std::size_t> teachers = {0};  // which of the run's teachers its terms learn from
  Terms terms = soft_targets();
  SwitchRule until = {};
  bool fresh_optimizer = true;  // new optimizer state at the start of the stage
  /// Override the step's settings; unset: as given.
  std::optional<float> lambda = {}, temperature = {};

  /// Only some layers are trained: parameters that its terms do not reach are left alone.
  bool partial() const;
};

/// The final teacher throughout. `teacher` is its index.
std::vector<Stage> one_shot_stages(std::size_t teacher = 0, const Terms& terms = soft_targets());

/// Teacher checkpoints for a while each, then the last one for good. The optimizer goes on through
/// all of them unless fresh_optimizer.
struct ProgressivePart {
  std::size_t teacher = 0;
  std::int64_t steps = 0;
};
std::vector<Stage> progressive_stages(std::span<const ProgressivePart> parts,
                                      std::size_t final_teacher, bool fresh_optimizer = false,
                                      const Terms& terms = soft_targets());

/// Curriculum extraction: one projection stage per student layer from the input side, then ordinary
/// distillation with a fresh optimizer.
struct ExtractionOptions {
  ProjectionVariant variant = ProjectionVariant::kPost;
  std::int64_t width = 16;             // kHead
  SwitchRule until = {.steps = 1000};  // of each projection stage
  std::uint64_t seed = 0;
  bool centre = true, scale = true;
  std::size_t projection_teacher = 0;  // whose hidden layers
  std::size_t final_teacher = 0;       // whose output
};
std::vector<Stage> extraction_stages(std::int64_t student_layers, const ExtractionOptions& options,
                                     const Terms& terms = soft_targets());

/// Index of the first checkpoint whose accuracy is above the threshold (the middle of the teacher's
/// phase transition), then `count` in all, evenly spaced towards the last one, which is not
/// included. Empty if none is above, or only the last.
/// Source    the rule of choice: Panigrahi et al. 2025, arXiv:2410.05464 (a checkpoint inside the
///           transition works, before or after it does not).
std::vector<std::size_t> pick_checkpoints(std::span<const double> accuracies, double first_above,
                                          std::size_t count = 1);

}  // namespace retort::distill
