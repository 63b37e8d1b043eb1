// distill_bench ptx: what kernels do, instruction by instruction, on a machine without a GPU. The
// PTX that nvcc made of them runs in an interpreter (tools/ptx): of our ops through the plug-in
// that it is linked into, of a user's program through a CUDA runtime that is the interpreter.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "bench/harness/commands.h"
#include "engine/runtime/device.h"
#include "kernels/common/check.h"

namespace retort::bench {
namespace {
namespace fs = std::filesystem;

// Of the build or the install that this program is in.
fs::path library(const char* name) {
  const fs::path path = fs::canonical("/proc/self/exe").parent_path().parent_path() / "lib" / name;
  RETORT_CHECK_AS(kUsage, fs::exists(path), "distill_bench ptx: there is no ", path.string(),
                  ": it is built where nvcc is (cmake --build ... --target ",
                  path.stem().string().substr(3), ")");
  return path;
}

void set(const char* variable, const std::string& value) { ::setenv(variable, value.c_str(), 1); }

#ifdef RETORT_NVCC
/// The exit status of a command, whose output goes where ours does.
int status_of(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::fflush(stdout);
  const pid_t child = ::fork();
  RETORT_CHECK_AS(kIo, child >= 0, "distill_bench ptx: cannot start ", command[0]);
  if (child == 0) {
    ::execvp(words[0], words.data());
    std::perror(words[0]);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct Folder {  // gone with its program
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "distill_bench_ptx_XXXXXX").string();
    RETORT_CHECK_AS(kIo, ::mkdtemp(name.data()) != nullptr, "distill_bench ptx: cannot make ",
                    name);
    path = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};
#endif

int run_program(const std::string& source, const std::string& arch, const Arguments& nvcc_options) {
#ifdef RETORT_NVCC
  const char* const named = std::getenv("CUDACXX");
  const std::string virtual_arch = "compute_" + (arch == "90" ? "90a" : arch);
  const fs::path runtime = library("libretort_cudart_interpreted.so");
  const Folder folder;
  const std::string program = (folder.path / "program").string();
  std::vector<std::string> build{named && *named ? named : RETORT_NVCC,
                                 "-std=c++20",
                                 "-lineinfo",
                                 "--no-compress",
                                 "-gencode=arch=" + virtual_arch + ",code=" + virtual_arch,
                                 "-cudart=none",
                                 source,
                                 "-o",
                                 program,
                                 "-L" + runtime.parent_path().string(),
                                 "-lretort_cudart_interpreted",
                                 "-Xlinker=-rpath=" + runtime.parent_path().string()};
  build.insert(build.end(), nvcc_options.begin(), nvcc_options.end());
  const int built = status_of(build);
  RETORT_CHECK_AS(kUsage, built == 0, "distill_bench ptx: nvcc could not build ", source, " (",
                  built, ")");
  return status_of({program});
#else
  fail(ErrorCode::kUsage, "distill_bench ptx: this was built without nvcc, which ", source,
       " needs (", arch, nvcc_options.empty() ? "" : ", options", ")");
#endif
}

int run_cases(const std::string& filter, const MakePlan& cases) {
  std::regex pattern;
  try {
    pattern = std::regex(filter, std::regex::extended);
  } catch (const std::regex_error& e) {
    fail(ErrorCode::kUsage, "distill_bench ptx: '", filter,
         "' is not a regular expression: ", e.what());
  }
  set("RETORT_CUDA_LIBRARY", library("libretort_cuda_interpreted.so").string());
  RETORT_CHECK_AS(kUsage, cuda_available(), "distill_bench ptx: ", cuda_unavailable_reason());
  int ran = 0, wrong = 0;
  for (const Case& c : cases(Device::kCuda, true).cases) {
    if (!std::regex_search(c.full_name(), pattern)) continue;
    const Work work = c.make(c);
    work.run();
    synchronize(Device::kCuda);
    const double error = work.error ? work.error() : 0;
    const bool right = error <= c.bound();  // false for NaN
    wrong += !right, ++ran;
    std::printf("%-60s %s, error %.2g\n", c.full_name().c_str(), right ? "right" : "WRONG", error);
  }
  RETORT_CHECK_AS(kUsage, ran > 0, "distill_bench ptx: no case's name has a match of '", filter,
                  "': --benchmark_list_tests lists them");
  return wrong > 0 ? static_cast<int>(ErrorCode::kNumerics) : 0;
}
}  // namespace

int ptx_command(const Arguments& given, const MakePlan& cases) {
  Arguments arguments = given;
  const std::string arch = take(arguments, "--arch", "90"), page = take(arguments, "--html"),
                    kernels = take(arguments, "--kernels"), text = take(arguments, "--text", "-");
  RETORT_CHECK_AS(kUsage, arch == "80" || arch == "90",
                  "distill_bench ptx: --arch: expected 80 or 90, got ", arch);
  RETORT_CHECK_AS(kUsage, !arguments.empty(),
                  "distill_bench ptx: expected a pattern of cases or a file.cu");
  const std::string what = arguments[0];
  arguments.erase(arguments.begin());
  set("RETORT_PTX_ARCH", arch);
  set("RETORT_PTX_REPORT", text);
  set("RETORT_PTX_TELL", "1");  // one hazard does not hide the next
  if (!page.empty()) set("RETORT_PTX_HTML", page);
  if (!kernels.empty()) set("RETORT_PTX_KERNELS", kernels);
  if (what.ends_with(".cu")) return run_program(what, arch, arguments);
  expect_none(arguments);
  return run_cases(what, cases);
}
}  // namespace retort::bench
