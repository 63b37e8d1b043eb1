// kdtrain: parses the command line, runs a command, turns every failure into one clear line and a
// documented exit status.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/extensions.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/ranks_launch.h"
#include "tools/kdtrain/signals.h"

namespace {

using retort::ErrorCode;
using retort::tools::CommandLine;

constexpr ErrorCode kInternal{1};  // a fault of kdtrain itself

int dispatch(const CommandLine& line, int argc, char** argv) {
  using namespace retort::tools;
  if (const int status = launch_ranks(line, argc, argv); status >= 0) return status;
  if (const int status = refuse_ranks(line); status >= 0) return status;
  if (const int status = compare_commands(line); status >= 0) return status;
  if (line.threads > 0) retort::set_thread_count(line.threads);
  load_extensions(line.load);  // before anyone asks for the table of keys
  if (line.command == "run") return run_command(line);
  if (line.command == "sweep") return sweep_command(line);
  if (line.command == "plan") return plan_command(line);
  if (line.command == "score") return score_command(line);
  if (line.command == "eval") return eval_command(line);
  if (line.command == "tokenize") return tokenize_command(line);
  if (line.command == "report") return report_command(line);
  if (line.command == "doctor") return doctor_command(line);
  if (line.command == "selftest") return selftest_command(line);
  if (line.command == "ls") return list_command(line);
  if (line.command == "show") return show_command(line);
  if (line.command == "cp") return copy_command(line);
  if (line.command == "explain") return explain_command(line);
  if (line.command == "compare") return compare_command(line);
  if (line.command == "validate") return validate_command(line);
  if (line.command == "schema") return schema_command(line);
  retort::fail(retort::ErrorCode::kUsage, line.command, " is not in this version");
}

// A program that is started with a standard stream closed would give its number to the next file,
// and what it prints would go there.
void open_standard_streams() {
  for (int descriptor = 0; descriptor <= STDERR_FILENO;) {
    descriptor = open("/dev/null", O_RDWR);  // the lowest number that is free
    if (descriptor > STDERR_FILENO) close(descriptor);
    if (descriptor < 0) return;
  }
}

int say(const char* kind, const char* what, ErrorCode code) {
  std::fprintf(stderr, "kdtrain: %s%s[%s]: %s\n", retort::tools::rank_prefix(), kind,
               retort::tools::error_row(code, *what != '\0' ? what : kind).code, what);
  return static_cast<int>(code);
}

int say_out_of_memory(const char* what) {
  const int status = say("error", what, ErrorCode::kMemory);
  std::fputs(
      "to need less: a smaller train.batch or train.evaluate_batch, train.precision = \"bf16\",\n"
      "train.jobs = 1, fewer --threads; `kdtrain plan RECIPE` says what a run takes\n",
      stderr);
  return status;
}

// Rows of a library that was loaded run within kdtrain: what they throw may be theirs.
int say_internal(const char* what) {
  std::string libraries;
  for (const std::string& library : retort::tools::loaded_extensions())
    libraries.append(libraries.empty() ? "" : ", ").append(library, 0, library.rfind(' '));
  if (libraries.empty()) return say("internal error, please report it", what, kInternal);
  return say(retort::join("internal error, of ", libraries, " or of kdtrain").c_str(), what,
             kInternal);
}

// One clear line for the exception that is being handled; its exit status. Takes no memory where
// there may be none.
int tell_failure() noexcept {
  std::fflush(stdout);
  try {
    throw;
  } catch (const retort::Error& e) {
    if (e.code() == ErrorCode::kMemory) return say_out_of_memory(e.what());
    if (e.code() != retort::kStopped) return say("error", e.what(), e.code());
    const int signal = retort::tools::stop_requested();
    std::fprintf(stderr, "kdtrain: %s: %s\n", retort::tools::signal_name(signal), e.what());
    return retort::tools::exit_code_of(signal);
  } catch (const std::bad_alloc&) {
    return say_out_of_memory("out of memory");
  } catch (const std::length_error&) {  // of a container: more than there can be
    return say_out_of_memory("out of memory");
  } catch (const std::system_error& e) {  // a thread that could not be made, a file system's
    const auto condition = e.code().default_error_condition();
    return condition == std::errc::resource_unavailable_try_again ||
                   condition == std::errc::not_enough_memory
               ? say_out_of_memory(e.what())
               : say("error", e.what(), ErrorCode::kIo);
  } catch (const std::exception& e) {
    return say_internal(e.what());
  } catch (...) {
    return say_internal("");
  }
}

// Where an exception cannot get out, such as out of a destructor: no signal, but the same line.
[[noreturn]] void on_terminate() {
  if (std::current_exception() != nullptr) _exit(tell_failure());
  std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  std::set_terminate(on_terminate);
  try {
    CommandLine line;
    if (const int status = retort::tools::parse_command_line(argc, argv, &line); status >= 0)
      return status;
    int status = dispatch(line, argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      say("error", "writing to standard output failed", ErrorCode::kIo);
      status = status == 0 ? static_cast<int>(ErrorCode::kIo) : status;
    }
    return status;
  } catch (...) {
    return tell_failure();
  }
}
