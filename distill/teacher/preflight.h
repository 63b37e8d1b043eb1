// Is this teacher worth listening to? Asked before the first step.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distill/teacher/teacher.h"
#include "nn/data/dataset.h"

namespace retort::distill {

/// What was found, for the report.
struct PreflightReport {
  std::string teacher, teacher_hash;
  std::int64_t samples = 0;          // labelled samples looked at
  std::int64_t teacher_classes = 0;  // width of the logits
  std::int64_t data_classes = 0;
  double accuracy = 0, loss = 0;  // loss in nats per sample
  double chance = 0;              // share of the commonest label, at least 1 / classes
  double threshold = 0;           // accuracy must exceed this: chance + 3 standard errors
  bool all_zero_weights = false;
  bool at_chance = false;
  bool allowed_untrained = false;     // problems were found and accepted
  std::vector<std::string> problems;  // plain sentences
};

/// Looks at a labelled sample (a few hundred rows; all in one forward pass per 256) and refuses a
/// teacher that cannot teach: class counts that differ or NaN logits always; all-zero weights or
/// chance-level accuracy unless `allow_untrained` (controls set it), then they are only reported.
///
/// Shapes    a batch of at least one row of logits, each with a target
/// Errors    kBadInput, a sentence per problem, naming both class counts or the accuracy.
PreflightReport preflight(const Teacher& teacher, const nn::Batch& batch, std::int64_t data_classes,
                          bool allow_untrained = false);

}  // namespace retort::distill
