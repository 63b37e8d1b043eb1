// The result of one case, and the JSON file that holds them all.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "bench/harness/statistics.h"
#include "engine/io/json.h"

namespace retort::bench {

/// Rates measured in the same run, by this program; 0 where there is none.
struct Ceilings {
  double copy_gb_per_s = 0;          // read + written, the faster of plain and streaming stores
  double gemm_f32_gflop_per_s = 0;   // 2048^3 (CUDA: 8192^3) with the engine's own gemm
  double gemm_bf16_gflop_per_s = 0;  //
  double fma_f32_gflop_per_s = 0;    // registers only, all threads: what no kernel can pass (CPU)
  double dot_bf16_gflop_per_s = 0;   // the same with bf16 dot products
};

/// How near a case comes to the rate that bounds it.
struct Bound {
  double share = std::numeric_limits<double>::quiet_NaN();  // NaN without a formula or a ceiling
  bool gemm = false;                                        // else the copy
};

struct Record {
  std::string name, dtype, device;
  Blocks samples_ms;  // per call
  Blocks composed_ms;
  int calls_per_sample = 1, works = 1;
  bool cold = true, matrix = false;
  bool graphed = false;  // a sample is one graph of its calls
  bool composed_graphed = false;
  double bytes = 0, flops = 0;
  double workspace_bytes = 0;
  double launches = std::numeric_limits<double>::quiet_NaN();
  std::optional<double> max_error;  // NaN is one; none where the case has no definition to meet
  double error_bound = 0;           // what max_error may be
  std::string hash;
  double hashed_bytes = 0;
  bool hash_equal = true;

  std::string full_name() const { return device + "/" + name + "/" + dtype; }
  double median_ms() const { return median(joined(samples_ms)); }
  double gb_per_s() const { return bytes / (median_ms() * 1e6); }
  double gflop_per_s() const { return flops / (median_ms() * 1e6); }
  /// The larger of bytes at the copy's rate and flops at gemm's (bf16's for matrix work in bf16),
  /// over the time. Which of the two it is follows from shape and machine, not from the op.
  Bound bound(const Ceilings& c) const;
  double share(const Ceilings& c) const { return bound(c).share; }
  /// What is wrong with the result; empty if nothing is.
  std::string complaint() const;
};

/// Everything one run knows.
struct Report {
  Json environment;  // processor, threads, commit, build, libraries, date
  Ceilings cpu, cuda;
  std::vector<Record> records;

  const Ceilings& ceilings(const Record& r) const { return r.device == "cuda" ? cuda : cpu; }
  const Record* find(const std::string& full_name) const;
};

/// Processor, cache, threads, load, commit and build (both of this program, not of the folder it
/// is run in), libraries and, where present, the GPU.
Json environment(bool cuda);

/// The record as one line of JSON, as the report will have it.
std::string line_of(const Record& record, const Ceilings& ceilings);

void write_report(const Report& report, const std::string& path);
/// A file without error bounds, as written before there were any, gets a wide one.
///
/// Errors    Error(kBadInput) naming the file and what is missing or cannot be: a case without
///           samples, a time that is not above 0.
Report read_report(const std::string& path);

}  // namespace retort::bench
