// distill_bench run: every case is a Google Benchmark of one iteration, in which a block of samples
// is taken; --benchmark_repetitions=N gives N blocks, and with
// --benchmark_enable_random_interleaving=true they lie apart in time.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <regex>

#include "bench/harness/ceilings.h"
#include "bench/harness/commands.h"
#include "bench/harness/console.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"

namespace retort::bench {
namespace {

struct Options {
  std::string device = "auto", json;
  double seconds = 0.3;  // of samples per block
  double budget = 0;     // seconds for the whole run, after which cases are left out; 0: none
  bool smoke = false, steps = false, list = false;
};

constexpr std::size_t kLeastOfChain = 3;   // samples, however slow it is
constexpr std::size_t kMostSamples = 400;  // per block: more adds size to the file, not knowledge

void print_ceilings(const char* device, const Ceilings& c) {
  std::printf("%s: copy %.1f GB/s, gemm f32 %.0f, bf16 %.0f GFLOP/s", device, c.copy_gb_per_s,
              c.gemm_f32_gflop_per_s, c.gemm_bf16_gflop_per_s);
  if (c.fma_f32_gflop_per_s > 0)
    std::printf("; registers only: fma f32 %.0f, dot bf16 %.0f", c.fma_f32_gflop_per_s,
                c.dot_bf16_gflop_per_s);
  std::printf("\n");
}

std::string partial_path(const std::string& json) { return json + ".partial"; }

// What a run that is cut off leaves: a line a case and repetition, each with all samples of its
// case so far. Opened before anything is measured, so that a folder that cannot be written to is
// found out first.
std::ofstream open_partial(const std::string& json) {
  RETORT_CHECK_AS(kIo, !std::filesystem::is_directory(json), "distill_bench: cannot write ", json,
                  ": it is a folder");
  std::ofstream file(partial_path(json), std::ios::trunc);
  RETORT_CHECK_AS(kIo, file.is_open(), "distill_bench: cannot write ", partial_path(json));
  return file;
}

// Google Benchmark's rule, applied to names of cases: it would add "/iterations:1/manual_time" to
// them, and "f32$" would match none. A leading minus keeps what does not match.
class Filter {
 public:
  explicit Filter(std::string text) : keep_(text.empty() || text[0] != '-') {
    if (!keep_) text.erase(0, 1);
    if (text.empty() || text == "all") text = ".";
    try {
      pattern_ = std::regex(text, std::regex::extended);
    } catch (const std::regex_error& e) {
      fail(ErrorCode::kUsage, "distill_bench: --benchmark_filter: '", text,
           "' is not a regular expression: ", e.what());
    }
  }
  bool operator()(const std::string& name) const {
    return std::regex_search(name, pattern_) == keep_;
  }

 private:
  bool keep_;
  std::regex pattern_;
};

class Runner {
 public:
  explicit Runner(const Options& options) : options_(options) {
    if (!options.json.empty()) partial_ = open_partial(options.json);
  }

  void add(const Plan& plan) {
    for (const Case& c : plan.cases)
      benchmark::RegisterBenchmark(c.full_name().c_str(),
                                   [this, c](benchmark::State& state) { run(c, state); })
          ->Iterations(1)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
  }

  /// Called before the cases and after them; the higher counts.
  void measure_roofs(Device device) {
    session_.reset();
    Ceilings& roofs = device == Device::kCpu ? report.cpu : report.cuda;
    roofs = higher(roofs, measure_ceilings(device, options_.smoke));
    print_ceilings(name_of(device), roofs);
  }

  /// Says on stderr what went wrong. The exit status: that of the first failure.
  int finish() const {
    if (left_out_ > 0)
      std::fprintf(stderr, "distill_bench: %d cases left out, the budget of %g s was used up\n",
                   left_out_, options_.budget);
    for (const std::string& failure : failures_)
      std::fprintf(stderr, "distill_bench: FAILED %s\n", failure.c_str());
    return static_cast<int>(status_);
  }

  Report report;

 private:
  void run(const Case& c, benchmark::State& state) try {
    if (options_.budget > 0 && now_ms() - start_ > 1e3 * options_.budget) {
      ++left_out_;
      state.SkipWithError("left out: the budget is used up");
      return;
    }
    if (!session_ || session_->bench_case().full_name() != c.full_name()) {
      session_.reset();  // before the next one is made: both may not fit
      session_ = std::make_unique<Session>(c, options_.smoke);
    }
    Record* record = found(c);
    const bool is_new = record == nullptr;
    Record made = is_new ? make_record(c) : Record{};
    for (auto _ : state) {
      Block samples, composed;
      take_samples(c, samples, composed);
      state.SetIterationTime(median(samples) / 1e3);
      // Only now does the report have it: a case that failed has no record without samples.
      if (is_new) {
        report.records.push_back(std::move(made));
        record = &report.records.back();
      }
      record->samples_ms.push_back(samples);
      if (!composed.empty()) record->composed_ms.push_back(composed);
      record->composed_graphed = session_->composed_graphed();
    }
    show(*record, state);
    if (partial_.is_open()) partial_ << line_of(*record, report.ceilings(*record)) << std::endl;
    if (const std::string complaint = record->complaint(); !complaint.empty()) {
      state.SetLabel("WRONG: " + complaint);
      if (is_new) note(ErrorCode::kNumerics, c, complaint);
    }
  } catch (const Error& e) {
    note(e.code(), c, e.what());
    state.SkipWithError(e.what());
  } catch (const std::bad_alloc&) {
    note(ErrorCode::kMemory, c, "out of memory");
    state.SkipWithError("out of memory");
  }

  void note(ErrorCode code, const Case& c, const std::string& what) {
    if (status_ == ErrorCode::kOk) status_ = code;
    failures_.push_back(c.full_name() + ": " + what);
  }

  Record* found(const Case& c) {
    for (Record& r : report.records)
      if (r.full_name() == c.full_name()) return &r;
    return nullptr;
  }

  Record make_record(const Case& c) {
    Record r;
    r.name = c.name;
    r.device = name_of(c.device);
    r.dtype = name_of(c.dtype);
    r.bytes = c.bytes;
    r.flops = session_->bench_case().flops;
    r.matrix = c.matrix;
    r.calls_per_sample = session_->calls_per_sample();
    r.works = session_->works();
    r.cold = session_->cold();
    r.graphed = session_->graphed();
    const Facts facts = session_->facts();
    r.workspace_bytes = facts.workspace_bytes;
    r.launches = facts.launches;
    if (session_->work().error) r.max_error = facts.max_error;
    r.error_bound = c.bound();
    r.hash = facts.hash;
    r.hashed_bytes = facts.hashed_bytes;
    r.hash_equal = facts.hash_equal;
    return r;
  }

  // The chain takes its turn after a sample whenever it has used no more time than the kernel, so
  // that both see the same drift of the machine.
  void take_samples(const Case& c, Block& samples, Block& composed) {
    session_->prepare_composed();
    const double budget = options_.smoke ? 0 : options_.seconds * 1e3 * (c.step ? 5 : 1);
    const std::size_t least = options_.smoke ? 2 : c.step ? 3 : 7;
    const double end = now_ms() + budget;
    double fused_ms = 0, composed_ms = 0;
    while (samples.size() < least || (now_ms() < end && samples.size() < kMostSamples)) {
      samples.push_back(session_->sample());
      RETORT_CHECK_AS(kDevice, samples.back() > 0, "the clock says a call took ", samples.back(),
                      " ms");
      fused_ms += samples.back() * session_->calls_per_sample();
      const bool turn = composed.size() < kLeastOfChain || composed_ms < fused_ms;
      if (session_->has_composed() && turn && (!options_.smoke || composed.empty())) {
        composed.push_back(session_->sample_composed());
        composed_ms += composed.back() * session_->calls_per_sample();
      }
    }
  }

  void show(const Record& r, benchmark::State& state) {
    const Ceilings& ceilings = report.ceilings(r);
    auto& counters = state.counters;
    const std::vector<double> all = joined(r.samples_ms);
    counters["median_ms"] = median(all);
    counters["mad_ms"] = median_absolute_deviation(all);
    if (r.bytes > 0) counters["GB/s"] = r.gb_per_s();
    if (r.flops > 0) counters["GFLOP/s"] = r.gflop_per_s();
    if (const Bound bound = r.bound(ceilings); bound.share == bound.share)
      counters[bound.gemm ? "of_gemm" : "of_copy"] = bound.share;
    if (r.max_error) counters["err"] = *r.max_error;
    if (r.launches == r.launches) counters["launches"] = r.launches;
    counters["ws_MiB"] = r.workspace_bytes / 1048576;
    if (!r.composed_ms.empty()) {
      counters["chain/fused"] = median(joined(r.composed_ms)) / r.median_ms();
      if (r.graphed && !r.composed_graphed) counters["chain_eager"] = 1;
    }
    counters["same_bits"] = r.hash_equal ? 1 : 0;
    if (!r.cold) counters["warm"] = 1;
    if (r.graphed) counters["graphed"] = 1;
  }

  Options options_;
  std::unique_ptr<Session> session_;

  double start_ = now_ms();
  std::ofstream partial_;
  std::vector<std::string> failures_;
  ErrorCode status_ = ErrorCode::kOk;  // of the first failure
  int left_out_ = 0;
};

Options options_of(Arguments& arguments) {
  Options options;
  options.device = take(arguments, "--device", "auto");
  RETORT_CHECK(options.device == "auto" || options.device == "cpu" || options.device == "cuda",
               "distill_bench: --device expects auto, cpu or cuda, got '", options.device, "'");
  options.json = take(arguments, "--json");
  options.seconds = take_number(arguments, "--seconds", 0.3, 0);
  options.budget = take_number(arguments, "--budget", 0, 0);
  options.smoke = take_flag(arguments, "--smoke");
  options.steps = take_flag(arguments, "--steps");
  for (const char* flag : {"--benchmark_list_tests", "--benchmark_list_tests=true"})
    options.list = take_flag(arguments, flag) || options.list;
  take_threads(arguments);
  return options;
}

// The cases of each device that are asked for.
std::vector<Plan> plans_of(const Options& options, const MakePlan& cases, const Filter& filter,
                           bool cuda) {
  std::vector<Plan> plans;
  std::size_t count = 0;
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    if (device == Device::kCpu ? options.device == "cuda" : !cuda) continue;
    Plan plan = cases(device, options.smoke);
    std::erase_if(plan.cases, [&](const Case& c) {
      return (options.steps && !c.step) || !filter(c.full_name());
    });
    count += plan.cases.size();
    if (!plan.cases.empty()) plans.push_back(std::move(plan));
  }
  RETORT_CHECK(count > 0, "distill_bench: no case matches the filter");
  return plans;
}

}  // namespace

int run_command(const Arguments& given, const MakePlan& cases) {
  Arguments arguments = given;
  const Options options = options_of(arguments);
  // Whoever asks for one of Google Benchmark's forms of output gets that.
  const bool own_table = std::none_of(arguments.begin(), arguments.end(), [](const auto& a) {
    return a.rfind("--benchmark_format", 0) == 0 || a.rfind("--benchmark_counters_tabular", 0) == 0;
  });
  std::vector<char*> rest{const_cast<char*>("distill_bench")};
  for (std::string& a : arguments) rest.push_back(a.data());
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  const Filter filter(benchmark::GetBenchmarkFilter());

  // The emulator stands in for a GPU at toy sizes only: its times mean nothing.
  const bool cuda = options.device != "cpu" && cuda_available() &&
                    (options.smoke || !cuda_device_info().emulated);
  if (options.device == "cuda" && !cuda)
    fail(ErrorCode::kDevice, "distill_bench: no GPU here: ", cuda_unavailable_reason());
  const std::vector<Plan> plans = plans_of(options, cases, filter, cuda);
  if (options.list) {
    for (const Plan& plan : plans)
      for (const Case& c : plan.cases) std::printf("%s\n", c.full_name().c_str());
    return 0;
  }

  Runner runner(options);
  runner.report.environment = environment(cuda);
  benchmark::ClearRegisteredBenchmarks();
  for (const Plan& plan : plans) {
    runner.measure_roofs(plan.device);
    runner.add(plan);
  }
  std::fflush(stdout);
  Console console;
  benchmark::RunSpecifiedBenchmarks(own_table ? &console : nullptr, ".");
  benchmark::Shutdown();
  for (const Plan& plan : plans) runner.measure_roofs(plan.device);
  if (!options.json.empty()) {
    write_report(runner.report, options.json);
    std::filesystem::remove(partial_path(options.json));
  }
  return runner.finish();
}

}  // namespace retort::bench
