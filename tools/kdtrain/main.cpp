// kdtrain: parses the command line, runs a command, turns every failure into one clear line and a
// documented exit status.
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>

#include "kernels/common/check.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/extensions.h"

namespace {

using retort::tools::CommandLine;

int dispatch(const CommandLine& line) {
  using namespace retort::tools;
  if (line.threads > 0) retort::set_thread_count(line.threads);
  load_extensions(line.load);  // before anyone asks for the table of keys
  if (line.command == "run") return run_command(line);
  if (line.command == "plan") return plan_command(line);
  if (line.command == "score") return score_command(line);
  if (line.command == "eval") return eval_command(line);
  if (line.command == "report") return report_command(line);
  if (line.command == "doctor") return doctor_command(line);
  if (line.command == "selftest") return selftest_command(line);
  if (line.command == "ls") return list_command(line);
  if (line.command == "validate") return validate_command(line);
  if (line.command == "schema") return schema_command(line);
  retort::fail(retort::ErrorCode::kUsage, line.command, " is not in this version");
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine line;
  try {
    if (const int status = retort::tools::parse_command_line(argc, argv, &line); status >= 0)
      return status;
    int status = dispatch(line);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      std::fputs("kdtrain: error: writing to standard output failed\n", stderr);
      status = status == 0 ? static_cast<int>(retort::ErrorCode::kIo) : status;
    }
    return status;
  } catch (const retort::Error& e) {
    std::fflush(stdout);
    std::cerr << "kdtrain: error: " << e.what() << "\n";
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    std::cerr << "kdtrain: error: out of memory\n";
    return static_cast<int>(retort::ErrorCode::kMemory);
  } catch (const std::exception& e) {
    std::cerr << "kdtrain: internal error: " << e.what() << "\n";
    return 1;
  }
}
