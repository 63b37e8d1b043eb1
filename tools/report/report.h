// From the files of a run folder to results.json and report.html.
#pragma once
#include <filesystem>
#include <map>
#include <string>

namespace retort::tools {

// Note [What metrics.jsonl holds for the report]
//   Every line is one flat object (numbers, strings, booleans). `split` says which line it is:
//
//   "train"    arm, seed, epoch, step, loss, and what else means something there: lambda,
//              temperature, samples_per_s, share_<phase of the step> (of the time since the last
//              such line), stage, ...
//   "final"    arm, seed, wall_s, parameters, "<set>.<metric>": one per finished arm and seed.
//              memory_mib and memory_<role>_mib are peaks of the process. Every further number is a
//              metric of the results table: "test.accuracy", "steps_to_0.99",
//              "probe.degree1_ratio", ...
//   "failed"   arm, seed, step, reason: the job ended without a result. A final line of the same
//              arm and seed makes up for it, wherever it stands.
//   "note"     arm, text: a warning that the report must show (untrained teacher allowed, ...)
//   any other  an evaluation on the set of that name: arm, seed, epoch, step, its metrics by name,
//              and n, the rows that they are of (without it a single run has no interval).
//
//   The teacher is the arm "teacher". A key that is missing means that there is no such thing: no
//   value is made up for it. NaN and infinities are the strings "nan", "inf", "-inf". Names,
//   units, directions and digits of metrics come from distill/metrics/metric.h; other numbers of
//   final lines are shown too, those of evaluation lines are not.

// Note [What provenance.json holds]
//   One object; where the run came from. Values are texts, numbers, booleans, or one flat object of
//   these. Known keys come first on the page, in this order, others behind them; all are optional:
//
//     version   "0.4.0"                 commit    "1a2b3c4", with "-dirty" if so
//     started   "2026-11-29T23:45:00Z"  finished  likewise (ISO 8601, UTC)
//     command   "kdtrain run six.toml --out runs/six"
//     machine   "AMD EPYC 7B13, 2 cores, 8 GiB"
//     device    "cpu", "cuda: NVIDIA H100 80GB HBM3"
//     threads   2                       of a rank
//     ranks     "2 ranks x 1 thread on 1 node, 8 slices of 16 rows, Open MPI 4.1.4", if several
//     data      {"data_batch_1.bin": "<hash>", ...}      as hash_file of engine/io/file.h gives it
//     weights   {"teacher.safetensors": "<hash>", ...}
//
//   It stands in results.json as it is, under "provenance".

/// What only the recipe knows: the page's headline, and how arms are read.
struct ReportText {
  std::string title = {}, description = {};        // "" = the folder's name, none
  std::map<std::string, std::string> labels = {};  // by arm; an arm without one shows its name
  /// The arm that others are compared with; "" = the one named "unguided" or "one_shot", else the
  /// first.
  std::string baseline = {};
};

/// Reads metrics.jsonl, curriculum/* (CSV, images), provenance.json and recipe.resolved.toml of the
/// folder and writes results.json and report.html into it (each by temporary file and rename).
/// Works on a run that is still going on: arms without a "final" line are marked unfinished. Errors
/// Error(kIo) if the folder cannot be read or written, Error(kBadInput) with file and
///           line for a line that is not a flat JSON object; the last line may be torn (a crash)
///           and is then ignored.
void write_report(const std::filesystem::path& run_folder, const ReportText& text = {});

/// The results table as plain text, for the end of `kdtrain run`: one line per arm, mean +- half
/// interval (n); of the metrics that arms are compared by (the page has all).
std::string results_table(const std::filesystem::path& run_folder, const ReportText& text = {});

}  // namespace retort::tools
