// The subcommands of distill_bench. Each takes the arguments after its name and returns the exit
// status.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "bench/harness/case.h"

namespace retort::bench {

using Arguments = std::vector<std::string>;
/// The cases of a device; smoke: at toy sizes.
using MakePlan = std::function<Plan(Device device, bool smoke)>;

/// Runs cases under Google Benchmark, prints a table, writes JSON. Not 0 if a case failed (the code
/// of its error) or gave a wrong result (kNumerics): NaN, an error above its bound, or other bits
/// when run again.
int run_command(const Arguments& arguments, const MakePlan& cases);
/// compare A.json B.json [--threshold SHARE] [--allow-missing]: ratios B / A. 1 if B is slower
/// anywhere, has a wrong result, or lacks a case of A's; else 0.
int compare_command(const Arguments& arguments);
/// roofline A.json --out FILE.svg [--device cpu|cuda]
int roofline_command(const Arguments& arguments);
/// worker --case NAME: times one case on demand, for bench/peers (protocol in its README).
int worker_command(const Arguments& arguments);
/// ptx CASES|FILE.cu [--arch 80|90] [--kernels REGEX] [--text FILE] [--html FILE] [NVCC_OPTION...]:
/// runs cases, or a program, from their PTX and reports on each kernel (tools/ptx/profile.h).
/// kNumerics if a case's result is wrong; of a program its own status.
int ptx_command(const Arguments& arguments, const MakePlan& cases);

/// Takes "--name VALUE" out of the arguments; `otherwise` if it is not there. Error(kUsage) if the
/// value is missing.
std::string take(Arguments& arguments, const std::string& name, const std::string& otherwise = "");
/// Takes "--name NUMBER" out of the arguments. Error(kUsage) unless it is a number of at least
/// `least`.
double take_number(Arguments& arguments, const std::string& name, double otherwise, double least);
/// Takes "--threads N" out of the arguments and sets it. Error(kUsage) unless it is a whole number
/// of at least 1.
void take_threads(Arguments& arguments);
/// Takes "--name" out of the arguments.
bool take_flag(Arguments& arguments, const std::string& name);
/// Error(kUsage) if anything is left.
void expect_none(const Arguments& arguments);

}  // namespace retort::bench
