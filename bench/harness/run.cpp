// distill_bench run: every case is a Google Benchmark of one iteration, in which a block of samples
// is taken; --benchmark_repetitions=N gives N blocks, and with
// --benchmark_enable_random_interleaving=true they lie apart in time.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/harness/ceilings.h"
#include "bench/harness/commands.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"

namespace retort::bench {
namespace {

struct Options {
  std::string device = "auto", json;
  double seconds = 0.3;  // of samples per block
  double budget = 0;     // seconds for the whole run, after which cases are left out; 0: none
  bool smoke = false, steps = false;
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

class Runner {
 public:
  explicit Runner(const Options& options) : options_(options) {}

  void add(const Plan& plan) {
    for (const Case& c : plan.cases)
      if (c.step || !options_.steps)
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

  bool failed() const { return failed_; }
  int left_out() const { return left_out_; }

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
    Record& record = record_of(c);
    for (auto _ : state) {
      Block samples, composed;
      take_samples(c, samples, composed);
      state.SetIterationTime(median(samples) / 1e3);
      record.samples_ms.push_back(samples);
      if (!composed.empty()) record.composed_ms.push_back(composed);
      record.composed_graphed = session_->composed_graphed();
    }
    show(record, state);
    keep(record);
  } catch (const Error& e) {
    failed_ = true;
    state.SkipWithError(e.what());
  }

  Record& record_of(const Case& c) {
    for (Record& r : report.records)
      if (r.full_name() == c.full_name()) return r;
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
    r.max_error = facts.max_error;
    r.hash = facts.hash;
    r.hashed_bytes = facts.hashed_bytes;
    r.hash_equal = facts.hash_equal;
    report.records.push_back(std::move(r));
    return report.records.back();
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
      fused_ms += samples.back() * session_->calls_per_sample();
      const bool turn = composed.size() < kLeastOfChain || composed_ms < fused_ms;
      if (session_->has_composed() && turn && (!options_.smoke || composed.empty())) {
        composed.push_back(session_->sample_composed());
        composed_ms += composed.back() * session_->calls_per_sample();
      }
    }
  }

  // A line a case beside the report, which is written at the end: what a run that is cut off
  // leaves.
  void keep(const Record& r) {
    if (options_.json.empty()) return;
    std::ofstream(partial_path(options_.json), kept_++ == 0 ? std::ios::trunc : std::ios::app)
        << line_of(r, report.ceilings(r)) << "\n";
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
    if (r.max_error == r.max_error) counters["err"] = r.max_error;
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
  bool failed_ = false;
  int left_out_ = 0, kept_ = 0;
};

}  // namespace

int run_command(const Arguments& given) {
  Arguments arguments = given;
  Options options;
  options.device = take(arguments, "--device", "auto");
  options.json = take(arguments, "--json");
  options.seconds = std::stod(take(arguments, "--seconds", "0.3"));
  options.budget = std::stod(take(arguments, "--budget", "0"));
  options.smoke = take_flag(arguments, "--smoke");
  options.steps = take_flag(arguments, "--steps");
  if (const std::string n = take(arguments, "--threads"); !n.empty())
    set_thread_count(std::stoi(n));

  std::vector<char*> rest{const_cast<char*>("distill_bench")};
  for (std::string& a : arguments) rest.push_back(a.data());
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;

  // The emulator stands in for a GPU at toy sizes only: its times mean nothing.
  const bool cuda = options.device != "cpu" && cuda_available() &&
                    (options.smoke || !cuda_device_info().emulated);
  if (options.device == "cuda" && !cuda)
    fail(ErrorCode::kDevice, "distill_bench: no GPU here: ", cuda_unavailable_reason());

  Runner runner(options);
  runner.report.environment = environment(cuda);
  std::vector<Device> devices;
  if (options.device != "cuda") devices.push_back(Device::kCpu);
  if (cuda) devices.push_back(Device::kCuda);
  for (const Device device : devices) {
    runner.measure_roofs(device);
    runner.add(all_cases(device, options.smoke));
  }
  std::fflush(stdout);
  const std::size_t run = benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  for (const Device device : devices) runner.measure_roofs(device);
  if (run == 0) fail(ErrorCode::kUsage, "distill_bench: no case matches the filter");
  if (!options.json.empty()) {
    write_report(runner.report, options.json);
    std::remove(partial_path(options.json).c_str());
  }
  if (runner.left_out() > 0)
    std::fprintf(stderr, "distill_bench: %d cases left out, the budget of %g s was used up\n",
                 runner.left_out(), options.budget);
  return runner.failed() ? static_cast<int>(ErrorCode::kNumerics) : 0;
}

}  // namespace retort::bench
