// The subcommands of distill_bench. Each takes the arguments after its name and returns the exit
// status.
#pragma once
#include <string>
#include <vector>

namespace retort::bench {

using Arguments = std::vector<std::string>;

/// Runs cases under Google Benchmark, prints a table, writes JSON.
int run_command(const Arguments& arguments);
/// compare A.json B.json [--threshold SHARE]: ratios B / A. 1 if B is slower anywhere, else 0.
int compare_command(const Arguments& arguments);
/// roofline A.json --out FILE.svg [--device cpu|cuda]
int roofline_command(const Arguments& arguments);
/// worker --case NAME: times one case on demand, for bench/peers (protocol in its README).
int worker_command(const Arguments& arguments);

/// Takes "--name VALUE" out of the arguments; `otherwise` if it is not there. Error(kUsage) if the
/// value is missing.
std::string take(Arguments& arguments, const std::string& name, const std::string& otherwise = "");
/// Takes "--name" out of the arguments.
bool take_flag(Arguments& arguments, const std::string& name);
/// Error(kUsage) if anything is left.
void expect_none(const Arguments& arguments);

}  // namespace retort::bench
