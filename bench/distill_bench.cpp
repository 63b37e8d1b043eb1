// Measures every hand-written kernel and whole training steps. See README.md.
//
//   distill_bench [run] [--device auto|cpu|cuda] [--json FILE] [--seconds S] [--threads N]
//                 [--budget S] [--smoke] [--benchmark_filter=REGEX and other google-benchmark
//                 options]
//   distill_bench steps [the same]           whole steps only
//   distill_bench compare A.json B.json [--threshold SHARE]
//   distill_bench roofline A.json --out FILE.svg [--device cpu|cuda]
//   distill_bench worker --case NAME         for bench/peers
#include <cstdio>

#include "bench/harness/commands.h"
#include "kernels/common/check.h"

int main(int argc, char** argv) {
  using namespace retort::bench;
  Arguments arguments(argv + 1, argv + argc);
  try {
    const std::string command =
        arguments.empty() || arguments[0].rfind("-", 0) == 0 ? "run" : arguments[0];
    if (!arguments.empty() && arguments[0] == command) arguments.erase(arguments.begin());
    if (command == "run") return run_command(arguments);
    if (command == "steps") {
      arguments.push_back("--steps");
      return run_command(arguments);
    }
    if (command == "compare") return compare_command(arguments);
    if (command == "roofline") return roofline_command(arguments);
    if (command == "worker") return worker_command(arguments);
    retort::fail(retort::ErrorCode::kUsage, "distill_bench: no command '", command,
                 "': run, steps, compare, roofline, worker");
  } catch (const retort::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "distill_bench: %s\n", e.what());
    return 2;
  }
}
