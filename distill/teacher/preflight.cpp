#include "distill/teacher/preflight.h"

#include <algorithm>
#include <cmath>

namespace retort::distill {
PreflightReport preflight(const Teacher& teacher, const Tensor& inputs, const Tensor& targets,
                          std::int64_t data_classes, bool allow_untrained) {
  RETORT_CHECK(inputs.rank() >= 1 && inputs.dim(0) >= 1 && targets.numel() == inputs.dim(0),
               "[preflight] expected a target for each of at least 1 inputs, got ", inputs.shape(),
               " and ", targets.shape());
  PreflightReport report;
  report.teacher = teacher.name();
  report.teacher_hash = teacher.hash();
  report.samples = inputs.dim(0);
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
  std::int64_t correct = 0, bad_rows = 0;
  double loss = 0;
  constexpr std::int64_t kRows = 256;
  for (std::int64_t begin = 0; begin < report.samples; begin += kRows) {
    const std::int64_t end = std::min(begin + kRows, report.samples);
    const Tensor logits = teacher.logits(inputs.slice(begin, end));
    RETORT_CHECK_AS(kBadInput, logits.rank() == 2 && logits.dim(1) == data_classes, "[preflight] '",
                    teacher.name(), "' gave logits ", logits.shape(), " for ", data_classes,
                    " classes");
    const std::vector<double> z = logits.to_vector<double>();
    const auto width = static_cast<std::size_t>(data_classes);
    for (std::int64_t r = begin; r < end; ++r) {
      const double* row = &z[static_cast<std::size_t>(r - begin) * width];
      const auto label = static_cast<std::size_t>(labels[static_cast<std::size_t>(r)]);
      if (!std::all_of(row, row + width, [](double v) { return std::isfinite(v); })) {
        ++bad_rows;
        continue;
      }
      const double* top = std::max_element(row, row + width);
      double sum = 0;
      for (std::size_t c = 0; c < width; ++c) sum += std::exp(row[c] - *top);
      loss += std::log(sum) + *top - row[label];
      correct += static_cast<std::size_t>(top - row) == label;
    }
  }
  const double n = static_cast<double>(report.samples);
  report.accuracy = static_cast<double>(correct) / n;
  report.loss = loss / n;
  report.chance = std::max(static_cast<double>(*std::max_element(count.begin(), count.end())) / n,
                           1 / static_cast<double>(data_classes));
  report.threshold =
      std::min(report.chance + 3 * std::sqrt(report.chance * (1 - report.chance) / n), 1.0);
  if (bad_rows > 0) {
    report.problems.push_back(
        join("its logits are NaN or infinite for ", bad_rows, " of ", report.samples, " samples"));
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
