// What golden_test.cpp does not hold against older records.
#pragma once
#include <vector>

namespace retort::tools {

// Changes that were meant. The list only grows: a record says how many of them it was made with,
// and the later ones are not held against it.
struct Change {
  const char* lines;  // part of the names of the lines concerned, "" for all; *: anything
  const char* key;    // "" for all
  const char* why;
};
inline const std::vector<Change>& changes() {
  static const std::vector<Change> list{
      // Evaluation, scores and the check of a teacher have one implementation, the loss kernel's
      // row statistics (f32 a row), where there were four, in double.
      {"/test", "loss", "measured by the loss kernel: rounding"},
      {"/validation", "loss", "measured by the loss kernel: rounding"},
      {"/final", "test.loss", "measured by the loss kernel: rounding"},
      {"/final", "validation.loss", "measured by the loss kernel: rounding"},
      {"/test", "calibration_error", "measured by the loss kernel: rounding"},
      {"/validation", "calibration_error", "measured by the loss kernel: rounding"},
      {"/curriculum/", "bytes", "scores measured by the loss kernel: last digits, not the order"},
      {"image_score/", "bytes", "scores measured by the loss kernel: last digits, not the order"},
      {"image_eval/", "", "more metrics, and the rounding of loss and calibration_error"},
      // A key stands only where it means something, and a name has one meaning.
      {"/test", "loss_ce", "gone: it was the loss again"},
      {"/validation", "loss_ce", "gone: it was the loss again"},
      {"/test", "loss_kd", "gone: mean_kl says it, without tau"},
      {"/validation", "loss_kd", "gone: mean_kl says it, without tau"},
      {"/test", "lambda", "gone: an evaluation has none"},
      {"/validation", "lambda", "gone: an evaluation has none"},
      {"/test", "temperature", "gone: an evaluation has none"},
      {"/validation", "temperature", "gone: an evaluation has none"},
      {"/test", "lr", "gone: an evaluation has none"},
      {"/validation", "lr", "gone: an evaluation has none"},
      {"/train", "loss_kd", "a mean over steps that ask a teacher; no key where none does"},
      {"/train", "loss_ce", "no key in projection stages, which had 0"},
      {"/train", "accuracy", "no key in projection stages, which had 0"},
      {"/train", "lambda", "no key where no teacher is asked, which had 0 or 1"},
      {"/train", "temperature", "no key where no teacher is asked"},
      {"/train", "fraction_clamped", "no key where lambda is none"},
      {"", "normalize", "no key for data that has no normalisation (parity)"},
      // More metrics, and the rows that they are of.
      {"/test", "n", "new"},
      {"/validation", "n", "new"},
      {"/train", "teacher_accuracy", "new"},
      {"", "mean_kl", "new"},
      {"", "perplexity", "new"},
      {"", "macro_f1", "new"},
      {"", "mcc", "new"},
      {"", "top5", "new"},
      {"", "balanced_accuracy", "new"},
      {"/final", "test.perplexity", "new"},
      {"/final", "test.macro_f1", "new"},
      {"/final", "test.mcc", "new"},
      {"/final", "test.top5", "new"},
      {"/final", "test.balanced_accuracy", "new"},
      {"/final", "test.mean_kl", "new"},
      {"/final", "test.calibration_error", "new"},
      {"/final", "validation.perplexity", "new"},
      {"/final", "validation.macro_f1", "new"},
      {"/final", "validation.mcc", "new"},
      {"/final", "validation.top5", "new"},
      {"/final", "validation.balanced_accuracy", "new"},
      {"/final", "validation.mean_kl", "new"},
      {"/final", "validation.calibration_error", "new"},
      // Its gradient grew with the temperature.
      {"/total_variation/", "", "tau^1 instead of tau^2"},
      // The first n may all be of one class.
      {"stages/arms/post/", "", "calibration samples are drawn"},
      {"stages/arms/pre/", "", "calibration samples are drawn"},
      {"stages/arms/head/", "", "calibration samples are drawn"},
      {"stages/arms/untrained/", "", "calibration samples are drawn"},
      {"stages/arms/plateau/", "", "calibration samples are drawn"},
      {"stages/metrics/post/", "", "calibration samples are drawn"},
      {"stages/metrics/pre/", "", "calibration samples are drawn"},
      {"stages/metrics/head/", "", "calibration samples are drawn"},
      {"stages/metrics/untrained/", "", "calibration samples are drawn"},
      {"stages/metrics/plateau/", "", "calibration samples are drawn"},
      // A line of training is of one stage.
      {"parity/metrics/progressive/*/train", "", "the last step of a stage has a line"},
      {"parity/metrics/post/*/train", "", "the last step of a stage has a line"},
      {"parity/metrics/pre/*/train", "", "the last step of a stage has a line"},
      {"parity/metrics/head/*/train", "", "the last step of a stage has a line"},
      {"parity/metrics/untrained/*/train", "", "the last step of a stage has a line"},
      {"parity/metrics/plateau/*/train", "", "the last step of a stage has a line"},
      {"emulated_parity/metrics/post/*/train", "", "the last step of a stage has a line"},
      {"emulated_parity/metrics/head/*/train", "", "the last step of a stage has a line"},
      // On the CPU.
      {"/jensen_shannon/", "", "one logarithm where two were, for shares near 1/2: rounding"},
  };
  return list;
}

}  // namespace retort::tools
