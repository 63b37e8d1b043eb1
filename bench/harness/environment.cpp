// What a result is stamped with.
#include <link.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>

#include "bench/build_commit.h"
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

// A program built without git may be told where it comes from.
std::string commit() {
  const std::string built = RETORT_BUILT_COMMIT;
  const char* const given = std::getenv("RETORT_COMMIT");
  return built == "unknown" && given ? given : built;
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
  j.set("build", RETORT_BUILD_TYPE);
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
