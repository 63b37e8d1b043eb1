// One pass over data on its device: what evaluation, scoring and the check of a teacher all ask for.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distill/metrics/metrics_of_rows.h"
#include "distill/teacher/teacher.h"
#include "kernels/distill_loss/distill_loss.h"
#include "nn/data/dataset.h"

namespace retort {
class Communicator;
}

namespace retort::distill {

/// A teacher's logits of a fixed set of samples, asked for again and again: kept on the device, pass
/// by pass, as long as they fit; computed anew, with the same bits, where they do not.
///
/// Threads   logits() may be called from several at once.
class TeacherAnswers {
 public:
  /// reading: what the teacher sees of a batch. max_bytes: of what is kept.
  TeacherAnswers(std::shared_ptr<const Teacher> teacher, std::size_t reading,
                 std::uint64_t max_bytes);
  /// Of pass `number`, which must have the same samples in every call.
  Tensor logits(std::int64_t number, const nn::Batch& batch) const;
  const Teacher& teacher() const { return *teacher_; }

 private:
  std::shared_ptr<const Teacher> teacher_;
  std::size_t reading_;
  std::uint64_t max_bytes_;
  mutable std::mutex mutex_;
  mutable std::uint64_t bytes_ = 0;
  mutable std::vector<Tensor> kept_;  // by number; undefined: not kept
};

/// Samples that measure() passes through a model at once.
///
/// Note [Passes of evaluation]
///   The last bits of a product may depend on the number of rows that are multiplied together: a
///   library has other paths for few rows than for many. So the cuts between passes are a function
///   of the data and the kind of device alone, and how many samples are made ready at once
///   (MeasureOptions::batch, a knob of memory and time) changes no bit. The count bounds what a
///   pass holds: values of inputs, and of logits where a text has a row for many of its positions.
///   On a GPU it is larger, since a small pass leaves most of it idle.
std::int64_t samples_of_a_pass(const nn::DataFacts& facts, Device device);

struct MeasureOptions {
  /// Samples made ready at once: rounded down to whole passes, at least one. Changes no bit.
  std::int64_t batch = 500;
  std::uint32_t epoch = 0;                  // what is drawn is drawn for this one
  const TeacherAnswers* teacher = nullptr;  // for agreement and KL
  std::int64_t limit = 0;                   // so many, drawn across the data; 0: all
  bool statistics = false;                  // fills Measurement::statistics
  /// Told of every pass and what came out; may be empty.
  std::function<void(const nn::Batch&, const nn::Outputs&)> each = {};
  /// Who shares the batches; all get all rows. Null, or one rank: nobody. The call is collective then.
  Communicator* ranks = nullptr;
};

/// What one pass found, on the host. Rows whose target is ignored are not in it.
struct Measurement {
  std::int64_t samples = 0;
  std::int64_t classes = 0;
  std::vector<std::int32_t> targets, predictions, rank, teacher_predictions;  // (N)
  std::vector<float> loss, confidence, kl;                                    // (N)
  /// Of the model's own logits, if asked for: rows of kernels::RowStatistic, teacher ones.
  std::array<std::vector<float>, kernels::kRowStatistics> statistics;  // (N) each
  std::vector<std::int64_t> sample_of_row;                             // (N), ascending

  RowRecords rows() const;
  /// All metrics that can be computed from these rows, in the order of the table.
  Metrics metrics() const;
  /// One of them; NaN if it cannot be computed.
  double metric(const std::string& name) const;
};

/// All of a source in evaluation mode, in data order; the model's mode is restored. A row's numbers
/// come from the loss kernel, so they have its rounding (f32); for the same logits they do not depend
/// on the rows beside it.
///
/// Errors    kNumerics naming the first sample whose logits are NaN.
Measurement measure(nn::Model& model, const nn::Source& source, const MeasureOptions& options = {});

}  // namespace retort::distill
