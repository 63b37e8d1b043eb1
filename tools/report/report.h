// From the files of a run folder to results.json and report.html.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace retort::tools {

// Note [What metrics.jsonl holds for the report]
//   Every line is one flat object (numbers, strings, booleans). Lines of training and evaluation
//   carry
//     arm, seed, epoch, step, split ("train" | "test" | any evaluation set's name), loss, loss_ce,
//     loss_kd, lambda, temperature, lr, accuracy, samples_per_s  and any further numbers:
//     share_<phase of the step> on lines of training, of the time since the last one.
//   The teacher is the arm "teacher". Besides these there are
//     {"arm":A,"seed":S,"split":"final","wall_s":..,"parameters":..,"<metric>":..}   one per
//     finished arm
//        and seed. memory_mib and memory_<role>_mib are peaks of the process. Every further number
//        is a metric of the results table; names say the set:
//        "test.accuracy", "test.loss", "exact1017.accuracy", "steps_to_0.99",
//        "probe.degree1_ratio", ...
//     {"arm":A,"split":"note","text":"..."}    warnings that the report must show (untrained
//     teacher
//        allowed, degenerate reliance, fraction clamped, ...)
//   NaN and infinities are the strings "nan", "inf", "-inf".

/// Mean, spread and interval of one metric over seeds.
struct Summary {
  std::int64_t n = 0;
  double mean = 0;
  double sd = 0;  // with n - 1; 0 for n = 1
  double median = 0;
  double low95 = 0, high95 = 0;  // Student t interval of the mean; both NaN for n = 1
};
Summary summarize(const std::vector<double>& values);

/// Quantile of Student's t: the t with P(T <= t) = p for `dof` degrees of freedom, 0 < p < 1, dof
/// >= 1.
double student_t_quantile(double p, double dof);

/// What only the recipe knows: the page's headline, and names of arms as people read them.
struct ReportText {
  std::string title, description;             // "" = the folder's name, none
  std::map<std::string, std::string> labels;  // by arm; an arm without one shows its name
};

/// Reads metrics.jsonl, curriculum/*.csv and recipe.resolved.toml of the folder and writes
/// results.json and report.html into it (each by temporary file and rename). Works on a run that is
/// still going on: arms without a "final" line are marked unfinished. The first arm, or the one
/// named "unguided" or "one_shot", is the baseline of the paired differences. Errors    Error(kIo)
/// if the folder cannot be read or written, Error(kBadInput) with file and line for
///           a line that is not a flat JSON object; the last line may be torn (a crash) and is then
///           ignored.
void write_report(const std::filesystem::path& run_folder, const ReportText& text = {});

/// The results table as plain text, for the end of `kdtrain run`: one line per arm, mean +- half
/// interval (n); of the metrics that arms are compared by (the page has all).
std::string results_table(const std::filesystem::path& run_folder);

}  // namespace retort::tools
