// Numbers of the steps between two log lines.
#pragma once
#include <optional>
#include <vector>

#include "distill/step_numbers.h"
#include "engine/io/json.h"

namespace retort::tools {

/// They are always added one step after the other, so that a resumed run adds the same numbers in
/// the same order.
class StepSums {
 public:
  struct NotFinite {
    std::size_t steps_ago;  // 0: the newest step
    double loss;
    std::int64_t slice;  // of its batch, from 0; -1: it has none
  };
  /// Adds the steps. Stops at the first loss that is NaN or infinite and names it.
  std::optional<NotFinite> fold(const std::vector<distill::StepNumbers>& steps);

  /// Since clear().
  const distill::StepNumbers& recent() const { return recent_; }
  void clear() { recent_ = {}; }
  /// Mean over all steps that had the column, whatever was cleared; 0 if none had.
  double mean_of_all(const char* name) const;

  Json json() const;
  static StepSums of(const Json& json);

 private:
  distill::StepNumbers recent_, told_;  // told_: columns that are means over steps, of all steps
};

}  // namespace retort::tools
