// Measures every hand-written kernel and whole training steps. See README.md.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>

#include "bench/cases/cases.h"
#include "bench/harness/commands.h"
#include "kernels/common/check.h"

namespace {

constexpr const char* kUsage =
    R"(distill_bench [run] [OPTION...]      every kernel and whole steps, as a table and as JSON
distill_bench steps [OPTION...]      whole steps only
  --device auto|cpu|cuda   auto: the CPU, and the GPU where there is one
  --json FILE              raw samples in blocks and all figures
  --seconds S              of samples per block (0.3)
  --budget S               for the whole run, after which cases are left out (0: none)
  --threads N              of the CPU
  --smoke                  toy sizes: correctness only
  --benchmark_filter=REGEX cases whose name (device/op/shape/dtype, as printed) has a match;
                           '^cpu/gemm.*/f32$' works, '-REGEX' keeps the others
  --benchmark_list_tests   names only
  --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
                           five blocks per case that lie apart: what compare needs (3 at least)
distill_bench compare A.json B.json [--threshold SHARE] [--allow-missing]
                           B / A; 1 if B is slower by more than SHARE (0.05), wrong, or lacks cases
distill_bench roofline A.json --out FILE.svg [--device cpu|cuda]
distill_bench ptx CASES|FILE.cu      no GPU needed: every kernel that the cases (a pattern of names)
                           launch, or your own program of one CUDA file, run from its PTX:
                           instructions by class, coverage, sectors and bank passes of each load
                           and store, hazards of shared memory, by line of source
  --html FILE              the same as a page
  --arch 80|90             whose PTX (90)
  --kernels REGEX          only these in the report
  anything else            is given to nvcc, for a FILE.cu (-I., -DTILE=64)
distill_bench worker --case NAME     one case on demand, for bench/peers

run ends with 6 if a result is NaN, further from its definition than its bound, or not the same
bits twice; with 2 to 8 as the other tools do if a case fails.
)";

void print_usage() {
  std::printf("%s\nOptions of Google Benchmark, for run and steps:\n\n", kUsage);
  benchmark::PrintDefaultHelp();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace retort::bench;
  Arguments arguments(argv + 1, argv + argc);
  if (std::any_of(arguments.begin(), arguments.end(),
                  [](const std::string& a) { return a == "--help" || a == "-h"; })) {
    print_usage();
    return 0;
  }
  try {
    const std::string command =
        arguments.empty() || arguments[0].rfind("-", 0) == 0 ? "run" : arguments[0];
    if (!arguments.empty() && arguments[0] == command) arguments.erase(arguments.begin());
    if (command == "run") return run_command(arguments, all_cases);
    if (command == "steps") {
      arguments.push_back("--steps");
      return run_command(arguments, all_cases);
    }
    if (command == "compare") return compare_command(arguments);
    if (command == "roofline") return roofline_command(arguments);
    if (command == "ptx") return ptx_command(arguments, all_cases);
    if (command == "worker") return worker_command(arguments);
    retort::fail(retort::ErrorCode::kUsage, "distill_bench: no command '", command,
                 "': run, steps, compare, roofline, ptx, worker");
  } catch (const retort::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "distill_bench: %s\n", e.what());
    return 2;
  }
}
