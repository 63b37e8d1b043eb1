#include "distill/metrics/measure.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "distill/losses/distillation_loss.h"
#include "distill/metrics/share_rows.h"
#include "distill/own_rows.h"
#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"
#include "kernels/row_rank/row_rank.h"
#include "nn/data/drawn.h"

namespace retort::distill {
namespace {

constexpr std::int32_t kIgnored = -100;

template <class T>
void append(std::vector<T>& all, const Tensor& values, const std::vector<bool>& counts) {
  if (!values.defined()) return;
  const std::vector<T> own = values.to_vector<T>();
  for (std::size_t i = 0; i < own.size(); ++i)
    if (counts[i]) all.push_back(own[i]);
}

class Pass {
 public:
  Pass(const MeasureOptions& options, Measurement* result) : options_(options), all_(*result) {}

  void add(std::int64_t number, const nn::Batch& batch, const nn::Outputs& outputs) {
    const Tensor targets = batch.targets;
    const Tensor& logits = outputs.logits;  // (N, V)
    if (logits.dim(0) == 0) return;         // texts of which nothing is asked in this pass
    DistillationLossArgs args;
    args.student_logits = logits;
    args.targets = targets;
    if (options_.teacher != nullptr) args.teacher_logits = options_.teacher->logits(number, batch);
    if (options_.teacher == nullptr && options_.statistics) args.teacher_logits = logits;
    if (args.teacher_logits.defined())
      args.lambda = Tensor::scalar(1, DType::kF32, logits.device());
    const DistillationLossResult r = distillation_loss(args);

    const std::vector<std::int32_t> labels = targets.to_vector<std::int32_t>();
    std::vector<bool> counts;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      counts.push_back(labels[i] != kIgnored);
      if (!counts[i]) continue;
      all_.targets.push_back(labels[i]);
      const std::size_t in_batch = batch.sample_of_row.defined()
                                       ? static_cast<std::size_t>(batch.sample_of_row_on_host[i])
                                       : i;
      all_.sample_of_row.push_back(batch.sample[in_batch]);
    }
    const std::size_t before = all_.loss.size();
    append(all_.loss, r.ce, counts);
    for (std::size_t i = before; i < all_.loss.size(); ++i)
      RETORT_CHECK_AS(kNumerics, !std::isnan(all_.loss[i]), "[measure] the logits of sample ",
                      all_.sample_of_row[i], " are NaN");
    append(all_.predictions, r.student_argmax, counts);
    append(all_.confidence, r.student_confidence, counts);
    append(all_.rank, rank_of(logits, targets), counts);
    if (options_.teacher != nullptr) {
      append(all_.teacher_predictions, r.teacher_argmax, counts);
      append(all_.kl, r.kd, counts);
    }
    if (options_.statistics)
      keep_statistics(options_.teacher != nullptr ? own_statistics(logits, targets) : r, counts);
  }

 private:
  // The model's own rows where the teacher's place is taken.
  static DistillationLossResult own_statistics(const Tensor& logits, const Tensor& targets) {
    DistillationLossArgs args;
    args.student_logits = args.teacher_logits = logits;
    args.targets = targets;
    args.lambda = Tensor::scalar(1, DType::kF32, logits.device());
    return distillation_loss(args);
  }

  void keep_statistics(const DistillationLossResult& r, const std::vector<bool>& counts) {
    using namespace kernels;
    const std::pair<int, const Tensor*> rows[] = {
        {kStatTeacherConfidence, &r.teacher_confidence},
        {kStatTeacherLogConfidence, &r.teacher_log_confidence},
        {kStatTeacherMaxLogit, &r.teacher_max_logit},
        {kStatTeacherMargin, &r.teacher_margin},
        {kStatTeacherEntropy, &r.teacher_entropy},
        {kStatTeacherPTrue, &r.teacher_p_true},
        {kStatTeacherLogPTrue, &r.teacher_log_p_true}};
    for (const auto& [row, values] : rows)
      append(all_.statistics[static_cast<std::size_t>(row)], *values, counts);
  }

  static Tensor rank_of(const Tensor& logits, const Tensor& targets) {
    const Tensor rank = Tensor::empty({logits.dim(0)}, DType::kI32, logits.device());
    if (logits.dim(0) == 0) return rank;
    kernels::row_rank(context_of(logits.device()), {.rank = rank.data<std::int32_t>(),
                                                    .logits = logits.raw(),
                                                    .targets = targets.data<std::int32_t>(),
                                                    .rows = logits.dim(0),
                                                    .classes = logits.dim(1),
                                                    .pitch = logits.row_pitch(),
                                                    .dtype = logits.dtype()});
    return rank;
  }

  const MeasureOptions& options_;
  Measurement& all_;
};

}  // namespace

TeacherAnswers::TeacherAnswers(std::shared_ptr<const Teacher> teacher, std::size_t reading,
                               std::uint64_t max_bytes)
    : teacher_(std::move(teacher)), reading_(reading), max_bytes_(max_bytes) {
  RETORT_CHECK(teacher_ != nullptr, "[measure] expected a teacher");
}

Tensor TeacherAnswers::logits(std::int64_t number, const nn::Batch& batch) const {
  const auto at = static_cast<std::size_t>(number);
  {
    const std::lock_guard lock(mutex_);
    if (at < kept_.size() && kept_[at].defined()) return kept_[at];
  }
  const Tensor made = teacher_->logits(batch.read_by(reading_));
  synchronize(made.device());  // other threads read it on streams of their own
  const std::lock_guard lock(mutex_);
  if (bytes_ + made.bytes() > max_bytes_) return made;
  if (kept_.size() <= at) kept_.resize(at + 1);
  if (!kept_[at].defined()) {
    kept_[at] = made;
    bytes_ += made.bytes();
  }
  return made;
}

std::int64_t samples_of_a_pass(const nn::DataFacts& facts, Device device) {
  const bool gpu = device == Device::kCuda;
  if (facts.gives == nn::Reads::kTokens) {
    // Of unknown lengths: a few dozen sequences are thousands of tokens. Rows of a sequence that is
    // predicted everywhere, and of one with a masked share.
    const std::int64_t most = (gpu ? 128 : 32) / std::max<std::int64_t>(facts.choices, 1);
    const std::int64_t rows = facts.task == nn::TextTask::kCausalLm   ? 128
                              : facts.task == nn::TextTask::kMaskedLm ? 20
                                                                      : 1;
    const std::int64_t logits = std::int64_t{1} << (gpu ? 28 : 25);
    return std::clamp<std::int64_t>(logits / (rows * std::max<std::int64_t>(facts.classes, 1)), 1,
                                    std::max<std::int64_t>(most, 1));
  }
  constexpr std::int64_t kImages = 64, kValues = 32 * 32 * 3;  // of CIFAR, on the CPU
  const std::int64_t samples =
      (gpu ? 64 : 1) * kImages * kValues / std::max<std::int64_t>(facts.input.numel(), 1);
  return std::clamp<std::int64_t>(samples / 8 * 8, 8, 500);
}

RowRecords Measurement::rows() const {
  return {.classes = classes,
          .targets = targets,
          .predictions = predictions,
          .loss = loss,
          .confidence = confidence,
          .rank = rank,
          .teacher_predictions = teacher_predictions,
          .kl = kl};
}

Metrics Measurement::metrics() const { return metrics_of_rows(rows()); }

double Measurement::metric(const std::string& name) const {
  const MetricKind* const kind = find_metric(name);
  if (kind == nullptr || !kind->of || targets.empty())
    return std::numeric_limits<double>::quiet_NaN();
  return kind->of(rows()).value_or(std::numeric_limits<double>::quiet_NaN());
}

Measurement measure(nn::Model& model, const nn::Source& source, const MeasureOptions& options) {
  const nn::DataFacts& facts = source.facts();
  RETORT_CHECK(!facts.endless() && options.batch >= 1,
               "[measure] expected data with an end and a batch of at least 1, got ",
               options.batch);
  const nn::Evaluating evaluating(model);
  const NoGrad no_grad;
  Measurement result;
  result.classes = facts.classes;
  result.samples = options.limit > 0 ? std::min(options.limit, facts.size) : facts.size;
  Pass pass(options, &result);
  const std::vector<std::int64_t> all = nn::drawn_samples(facts.size, result.samples, 0, "measure");
  const std::int64_t each = samples_of_a_pass(facts, source.device());
  const std::int64_t ready = std::max<std::int64_t>(options.batch / each, 1);  // passes
  const auto run = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number < last; number += ready) {
      const std::int64_t begin = number * each,
                         count = std::min(std::min(number + ready, last) * each, result.samples) -
                                 begin;
      const nn::Batch batch = source.make(
          std::span(all).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
          options.epoch);
      for (std::int64_t at = 0; at < count; at += each) {
        // Note [Rows of a slice] in own_rows.h.
        const nn::Batch part =
            count <= each ? batch : own_rows(batch.slice(at, std::min(at + each, count)));
        const nn::Outputs outputs = model.forward(part.inputs[0]);
        pass.add(number + at / each, part, outputs);
        if (options.each) options.each(part, outputs);
      }
    }
  };
  const std::int64_t passes = (result.samples + each - 1) / each;
  if (options.ranks == nullptr || options.ranks->size() == 1) {
    run(0, passes);
  } else {
    const auto [first, last] = passes_of_rank(passes, *options.ranks);
    share_rows([&, first = first, last = last] { run(first, last); }, &result, *options.ranks);
  }
  return result;
}

}  // namespace retort::distill
