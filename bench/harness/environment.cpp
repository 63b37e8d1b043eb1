// What a result is stamped with.
#include <link.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>

#include "bench/harness/record.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"

namespace retort::bench {
namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) return text;
  char buffer[256];
  while (std::fgets(buffer, sizeof buffer, pipe)) text += buffer;
  pclose(pipe);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// RETORT_COMMIT, else what git says about the folder the program was built from.
std::string commit() {
  if (const char* given = std::getenv("RETORT_COMMIT")) return given;
  const std::string git = "git -C '" RETORT_SOURCE_DIR "' ";
  const std::string head = output_of(git + "rev-parse HEAD 2>/dev/null");
  if (head.empty()) return "unknown";
  return output_of(git + "status --porcelain -uno 2>/dev/null").empty() ? head
                                                                        : head + " (with changes)";
}

// File names, symbolic links followed, of the libraries that do the arithmetic: libdnnl.so.2.6.
Json libraries() {
  std::set<std::string> names;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        const std::filesystem::path path = info->dlpi_name;
        for (const char* part : {"dnnl", "gomp", "omp5", "hwy", "cublas", "cudnn", "retort",
                                 "libc.so", "libstdc++", "malloc"})
          if (path.filename().string().find(part) != std::string::npos) {
            std::error_code error;
            const auto real = std::filesystem::canonical(path, error);
            static_cast<std::set<std::string>*>(to)->insert(
                (error ? path : real).filename().string());
          }
        return 0;
      },
      &names);
  Json list = Json::array();
  for (const std::string& name : names) list.push(name);
  return list;
}

}  // namespace

Json environment(bool cuda) {
  Json j = Json::object();
  j.set("processor", processor());
  j.set("cores", static_cast<std::int64_t>(sysconf(_SC_NPROCESSORS_ONLN)));
  j.set("threads", thread_count());
  j.set("last_cache_bytes", last_cache_bytes());
  double load[1] = {0};
  if (getloadavg(load, 1) == 1) j.set("load_at_start", load[0]);
  j.set("commit", commit());
  j.set("compiler", __VERSION__);
  j.set("libraries", libraries());
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  j.set("date", date);
  if (cuda) {
    const DeviceInfo gpu = cuda_device_info();
    j.set("gpu", gpu.name).set("emulated", gpu.emulated);
    j.set("driver", gpu.driver_version).set("runtime", gpu.runtime_version);
    j.set("gpu_libraries", gpu.libraries);
  }
  return j;
}

}  // namespace retort::bench
