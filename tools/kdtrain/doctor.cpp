#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/io/file.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_choice.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/schema.h"

namespace retort::tools {
namespace {

std::string first_match(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key))
      if (const auto colon = line.find(':'); colon != std::string::npos) {
        const auto start = line.find_first_not_of(" \t", colon + 1);
        return start == std::string::npos ? "" : line.substr(start);
      }
  return "";
}

std::string cpu_features() {
  std::string out;
#if defined(__x86_64__)
  const auto have = [&](const char* name, bool yes) {
    if (yes) out += (out.empty() ? "" : " ") + std::string(name);
  };
  __builtin_cpu_init();
  have("sse4.2", __builtin_cpu_supports("sse4.2"));
  have("avx2", __builtin_cpu_supports("avx2"));
  have("fma", __builtin_cpu_supports("fma"));
  have("avx512f", __builtin_cpu_supports("avx512f"));
  have("avx512vnni", __builtin_cpu_supports("avx512vnni"));
  const std::string flags = " " + first_match("/proc/cpuinfo", "flags") + " ";
  have("avx512_bf16", flags.find(" avx512_bf16 ") != std::string::npos);
  have("amx_bf16", flags.find(" amx_bf16 ") != std::string::npos);
#endif
  return out.empty() ? "baseline" : out;
}

std::string mib(double bytes) {
  return std::to_string(static_cast<long long>(bytes / 1048576)) + " MiB";
}

std::string data_state() {
  const char* folder = std::getenv("RETORT_DATA");
  if (folder == nullptr || *folder == '\0') return "not set (data.root=DIR names the data)";
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error))
    return std::string(folder) + ": no such folder";
  std::string found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.is_directory(error))
      found += (found.empty() ? "" : ", ") + entry.path().filename().string();
  return std::string(folder) + " (" + (found.empty() ? "empty" : found) + ")";
}

// What the cache folder remembers of convolutions: a line in words, and in `details` every choice.
std::string convolution_choices(std::string& details) {
  const std::string folder = kernels::conv2d_cache_folder();
  if (folder.empty()) return "not kept (RETORT_CACHE=DIR names a folder)";
  std::vector<std::string> notes;
  std::string line = escaped(folder, 512);
  std::size_t count = 0;
  for (const auto& file : kernels::read_conv2d_cache(folder, &notes)) {
    count += file.choices.size();
    details += kernels::write_conv2d_choices(file);
  }
  line += ": " + (count == 0 ? std::string("none yet") : std::to_string(count) + " measured");
  for (const std::string& note : notes) line += "; " + escaped(note, 1024);
  return line;
}

}  // namespace

int doctor_command(const CommandLine& line) {
  if (line.threads > 0) set_thread_count(line.threads);
  std::vector<std::pair<std::string, std::string>> rows;
  rows.emplace_back("version", version_text());
  utsname name{};
  uname(&name);
  rows.emplace_back("system", std::string(name.sysname) + " " + name.release + " " + name.machine);
  rows.emplace_back("cpu", first_match("/proc/cpuinfo", "model name"));
  rows.emplace_back("cpu features", cpu_features());
  rows.emplace_back("threads", std::to_string(thread_count()) + " of " +
                                   std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " cores");
  rows.emplace_back("memory", mib(static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
                                  static_cast<double>(sysconf(_SC_PAGESIZE))));
#if defined(RETORT_WITH_ONEDNN)
  rows.emplace_back("oneDNN", "yes");
#else
  rows.emplace_back("oneDNN", "no (Eigen instead)");
#endif
  const char* library = std::getenv("RETORT_CUDA_LIBRARY");
  rows.emplace_back("CUDA plug-in", library != nullptr && *library != '\0'
                                        ? std::string(library) + " (RETORT_CUDA_LIBRARY)"
                                        : "libretort_cuda.so beside libretort");
  if (cuda_available()) {
    const DeviceInfo info = cuda_device_info();
    rows.emplace_back("CUDA", info.emulated ? "emulated on the CPU (tests)" : "usable");
    rows.emplace_back("device", info.name);
    rows.emplace_back("compute capability", std::to_string(info.capability / 10) + "." +
                                                std::to_string(info.capability % 10));
    rows.emplace_back("device memory", mib(static_cast<double>(info.memory_bytes)) + ", " +
                                           mib(static_cast<double>(info.free_bytes)) + " free");
    const auto dotted = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    rows.emplace_back("driver", dotted(info.driver_version));
    rows.emplace_back("CUDA runtime", dotted(info.runtime_version));
    rows.emplace_back("libraries", info.libraries);
  } else {
    rows.emplace_back("CUDA", "not usable: " + cuda_unavailable_reason());
  }
  rows.emplace_back("device used by auto", cuda_available() ? "cuda" : "cpu");
  rows.emplace_back("RETORT_DATA", data_state());
  std::string choices;
  rows.emplace_back("convolution choices", convolution_choices(choices));
  if (line.json) {
    std::string out = "{";
    for (const auto& [key, value] : rows)
      out += (out.size() > 1 ? ", " : "") + to_toml(Value(key)) + ": " + to_toml(Value(value));
    std::printf("%s}\n", out.c_str());
  } else {
    for (const auto& [key, value] : rows) std::printf("%-20s %s\n", key.c_str(), value.c_str());
    std::printf("%s", choices.c_str());
  }
  return 0;
}

}  // namespace retort::tools
