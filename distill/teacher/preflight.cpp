#include "distill/teacher/preflight.h"

#include <algorithm>
#include <cmath>

#include "distill/losses/distillation_loss.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace retort::distill {
namespace {

// What a part of the batch showed: measured by the loss kernel, as everywhere.
struct Found {
  std::int64_t rows = 0, correct = 0, bad_rows = 0;
  double loss = 0;
};

Found ask(const Teacher& teacher, const nn::Batch& part, std::int64_t classes) {
  const NoGrad no_grad;
  DistillationLossArgs args;
  args.student_logits = teacher.logits(part.inputs[0]);
  args.targets = part.targets;
  RETORT_CHECK_AS(kBadInput,
                  args.student_logits.rank() == 2 && args.student_logits.dim(1) == classes,
                  "[preflight] '", teacher.name(), "' gave logits ", args.student_logits.shape(),
                  " for ", classes, " classes");
  // A row is good if all its logits are numbers.
  const Tensor finite = subtract(args.student_logits, args.student_logits);  // 0, or NaN
  const std::vector<float> zero = sum_rows(finite).to_vector<float>();
  const DistillationLossResult r = distillation_loss(args);
  const std::vector<float> loss = r.ce.to_vector<float>();
  const std::vector<std::uint8_t> correct = r.student_correct.to_vector<std::uint8_t>();
  Found found;
  found.rows = part.rows();
  for (std::size_t i = 0; i < loss.size(); ++i) {
    if (zero[i] != 0) {
      ++found.bad_rows;
      continue;
    }
    found.loss += static_cast<double>(loss[i]);
    found.correct += correct[i];
  }
  return found;
}

}  // namespace

PreflightReport preflight(const Teacher& teacher, const nn::Batch& batch, std::int64_t data_classes,
                          bool allow_untrained) {
  batch.check();
  RETORT_CHECK(batch.size() >= 1 && batch.targets.defined() && batch.rows() >= 1,
               "[preflight] expected at least 1 sample with a target");
  const Tensor& targets = batch.targets;
  PreflightReport report;
  report.teacher = teacher.name();
  report.teacher_hash = teacher.hash();
  report.samples = batch.rows();
  report.teacher_classes = teacher.classes();
  report.data_classes = data_classes;
  bool fatal = false;
  const auto finish = [&] {
    if (report.problems.empty()) return;
    if (!fatal && allow_untrained) {
      report.allowed_untrained = true;
      return;
    }
    std::string text = join("[teacher] '", teacher.name(), "' was refused: ");
    for (const std::string& p : report.problems)
      text += (&p == &report.problems[0] ? "" : "; ") + p;
    if (!fatal) text += ". Set teacher.allow_untrained = true if that is what you want";
    fail(ErrorCode::kBadInput, text);
  };
  if (teacher.classes() != data_classes) {
    report.problems.push_back(
        join("it has ", teacher.classes(), " classes and the data has ", data_classes));
    fatal = true;
    finish();
  }
  const std::vector<std::int32_t> labels = targets.to_vector<std::int32_t>();
  std::vector<std::int64_t> count(static_cast<std::size_t>(data_classes));
  for (const std::int32_t label : labels) {
    RETORT_CHECK_AS(kBadInput, label >= 0 && label < data_classes,
                    "[preflight] expected labels below ", data_classes, ", got ", label);
    ++count[static_cast<std::size_t>(label)];
  }
  Found all;
  constexpr std::int64_t kSamples = 256;  // a pass
  for (std::int64_t begin = 0; begin < batch.size(); begin += kSamples) {
    const Found part =
        ask(teacher, batch.slice(begin, std::min(begin + kSamples, batch.size())), data_classes);
    all.correct += part.correct;
    all.bad_rows += part.bad_rows;
    all.loss += part.loss;
  }
  const double n = static_cast<double>(report.samples);
  report.accuracy = static_cast<double>(all.correct) / n;
  report.loss = all.loss / n;
  report.chance = std::max(static_cast<double>(*std::max_element(count.begin(), count.end())) / n,
                           1 / static_cast<double>(data_classes));
  report.threshold =
      std::min(report.chance + 3 * std::sqrt(report.chance * (1 - report.chance) / n), 1.0);
  if (all.bad_rows > 0) {
    report.problems.push_back(join("its logits are NaN or infinite for ", all.bad_rows, " of ",
                                   report.samples, " samples"));
    fatal = true;
  }
  if (teacher.weights_are_zero()) {
    report.all_zero_weights = true;
    report.problems.push_back("all its weights are zero");
  }
  // One class in the sample says nothing about the teacher.
  report.at_chance = report.chance < 1 && report.accuracy <= report.threshold &&
                     !(report.threshold >= 1 && report.accuracy == 1);
  if (report.at_chance)
    report.problems.push_back(join("its accuracy of ", report.accuracy, " on ", report.samples,
                                   " labelled samples is not above chance (", report.chance,
                                   ", with three standard errors ", report.threshold, ")"));
  finish();
  return report;
}

}  // namespace retort::distill
