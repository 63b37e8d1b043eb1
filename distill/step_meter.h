// The numbers of the steps between two log lines, gathered on the device.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "distill/step_numbers.h"

namespace retort {
class Communicator;
}

namespace retort::distill {

/// What a row of numbers holds behind the loss and the number of rows: names, and what their means
/// are over. Known when the terms have run; the same for every replay of a captured step.
using ColumnNames = std::vector<std::pair<std::string, Per>>;

/// Rows of numbers, one a step, or one for each slice of a step's batch that has samples. They are
/// summed on the device in a fixed order (kernels/step_statistics) and come to the host in one
/// copy: when asked for, or when `capacity` rows are full. There a step's rows are added in the
/// order of its slices.
class StepMeter {
 public:
  explicit StepMeter(std::int64_t capacity = 1024);

  /// From now on the steps are of batches that these ranks share: each writes the rows of its own
  /// slices, and take() adds those of all, so it is collective. Null, or one rank: nobody does.
  void share_with(Communicator* ranks);

  /// The first row of the next step, of a batch of so many samples in so many slices, of which
  /// [here.first, here.second) are run here: all, if nothing is said. `told` are numbers that the
  /// host knows, on all ranks: each a mean over steps. Errors    kUsage for more slices than there
  /// are rows.
  std::int64_t begin_row(Device device, std::int64_t samples,
                         std::span<const std::pair<std::string, double>> told = {},
                         std::int64_t slices = 1,
                         std::optional<std::pair<std::int64_t, std::int64_t>> here = {});
  /// Adds a part's numbers to a row, in one launch: its total, the rows of `targets` that count
  /// (all `rows` where they are undefined), and its columns. `first`: the row is begun. slot: i64
  /// scalar on the device that `row` is counted from; undefined: 0. Errors    kUsage for more
  /// columns than a row holds (14).
  static ColumnNames write(const Tensor& meter_rows, std::int64_t row, const Tensor& slot,
                           bool first, const Tensor& total, const Tensor& targets,
                           std::int64_t rows, std::span<const Column> columns);
  /// Forgets what begin_row() gave last: its step came to no end.
  void drop_row();
  /// What the row's numbers are called.
  void name_row(std::int64_t row, ColumnNames names);

  /// f64 (capacity, kColumns) on the device of the steps, or more rows where the first step has
  /// more slices; stays where it is.
  const Tensor& rows() const { return rows_; }
  bool empty() const { return size() == 0; }
  std::int64_t size() const { return static_cast<std::int64_t>(read_.size() + waiting_.size()); }
  /// The steps since the last call, in their order, and forgets them. Collective with ranks.
  std::vector<StepNumbers> take();
  /// All of them together.
  StepNumbers summary();

 private:
  struct Waiting {
    std::int64_t row, rows;  // one for each slice with samples
    std::int64_t slices;
    std::int64_t samples;
    ColumnNames names;
    std::vector<std::pair<std::string, double>> told;
    std::vector<double> values = {};  // (rows, kColumns), when they were read
  };
  void read();
  void gather_rows();
  static StepNumbers numbers_of(const Waiting& step);

  std::int64_t capacity_, used_ = 0;
  Communicator* ranks_ = nullptr;  // null: one
  Tensor rows_;
  std::vector<Waiting> waiting_;  // by row
  std::vector<Waiting> read_;     // before them
};

}  // namespace retort::distill
