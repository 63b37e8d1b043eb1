// The numbers of training steps: the one type that carries them from the device to a log line.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort::distill {

/// What a mean of a column is taken over.
enum class Per : std::uint8_t {
  kRow,   // rows that count: "loss_ce", "accuracy"
  kStep,  // steps: "loss", "lambda"
};

/// One number of a step, still on the device: what a term tells beside its loss. Additive over the
/// parts of a batch.
///
/// Shapes    values f32 or u8 (N), summed over the rows (ignored rows hold 0); or one f32 or f64
struct Column {
  std::string name;
  Tensor values;
  Per per = Per::kRow;
};

/// Sums by name over one step or more, on the host. A column that only some of the steps have is a
/// mean over those.
class StepNumbers {
 public:
  struct Sum {
    std::string name;
    double sum = 0, weight = 0;
  };

  std::int64_t steps = 0;
  std::int64_t samples = 0;  // of the batches
  std::int64_t rows = 0;     // that count
  /// Of one step in slices: the first slice whose loss is NaN or infinite, from 0; -1: none.
  std::int64_t bad_slice = -1;

  void add(std::string_view name, double sum, double weight);
  StepNumbers& operator+=(const StepNumbers& other);
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Sum over weight; NaN where there is no such column, 0 where nothing counted.
  double mean(std::string_view name) const;
  double sum(std::string_view name) const;
  double loss() const { return mean("loss"); }
  /// In the order in which the terms made them.
  const std::vector<Sum>& columns() const { return columns_; }

 private:
  const Sum* find(std::string_view name) const;
  std::vector<Sum> columns_;
};

}  // namespace retort::distill
