// Numbers of the steps between two log lines.
#pragma once
#include <optional>
#include <vector>

#include "engine/io/json.h"
#include "tools/kdtrain/trainer.h"

namespace retort::tools {

/// The steps' numbers wait in a StepMeter until fold() takes them. They are always added one step
/// after the other, so that a resumed run adds the same numbers in the same order.
class StepSums {
 public:
  void add(const StepOutcome& outcome) { waiting_.push_back(outcome); }
  std::size_t waiting() const { return waiting_.size(); }

  struct NotFinite {
    std::size_t steps_ago;  // 0: the newest step
    double loss;
  };
  /// Adds what waits: one set of numbers for each outcome. Stops at the first loss that is NaN or
  /// infinite and names it.
  std::optional<NotFinite> fold(const std::vector<distill::StepNumbers>& steps);

  std::int64_t steps() const { return steps_; }
  double loss() const { return loss_ / static_cast<double>(steps_); }  // mean over steps
  double lambda() const { return lambda_ / static_cast<double>(steps_); }
  double fraction_clamped() const { return clamped_ / static_cast<double>(steps_); }
  /// Of all steps, whatever was cleared.
  double fraction_clamped_of_all() const {
    return all_steps_ == 0 ? 0 : all_clamped_ / static_cast<double>(all_steps_);
  }
  double cross_entropy() const { return ce_ / samples(); }  // means over samples
  double distillation() const { return kd_ / samples(); }
  double accuracy() const { return correct_ / samples(); }
  void clear();

  Json json() const;
  static StepSums of(const Json& json);

 private:
  double samples() const { return static_cast<double>(samples_); }
  std::vector<StepOutcome> waiting_;
  double loss_ = 0, ce_ = 0, kd_ = 0, lambda_ = 0, correct_ = 0, teacher_correct_ = 0;
  double clamped_ = 0, all_clamped_ = 0;
  std::int64_t steps_ = 0, samples_ = 0, all_steps_ = 0;
};

}  // namespace retort::tools
