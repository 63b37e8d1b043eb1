#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_choice.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/machine.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/schema.h"

namespace retort::tools {
namespace {

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

constexpr std::size_t kExchangeBytes = std::size_t{64} << 20;

// What a launcher's ranks are, and how long they take for an exchange. Collective.
template <class Row>
void describe_ranks(Communicator& ranks, const Row& row, Json& facts) {
  const double ms = exchange_ms(ranks, kExchangeBytes);
  const std::int32_t mine = thread_count();
  std::vector<std::int32_t> threads(static_cast<std::size_t>(ranks.size()));
  ranks.gather(&mine, threads.data(), sizeof mine);
  const auto many = [](std::int64_t n, const char* what) {
    return join(n, " ", what, n == 1 ? "" : "s");
  };
  row("ranks", join(ranks.size(), " on ", many(ranks.nodes(), "node"), ", ", ranks.library()),
      "ranks", ranks.size());
  facts.set("nodes", ranks.nodes());
  facts.set("mpi", ranks.library());
  Json each = Json::array();
  for (int r = 0; r < ranks.size(); ++r) {
    const RankInfo& info = ranks.of(r);
    const std::int32_t n = threads[static_cast<std::size_t>(r)];
    Json one = Json::object();
    one.set("host", info.host);
    one.set("pid", info.pid);
    one.set("node", info.node);
    one.set("cores", info.cores);
    one.set("threads", n);
    each.push(std::move(one));
    row(join("rank ", r).c_str(),
        join(info.host, ", pid ", info.pid, ", may use ", many(info.cores, "core"), ", ",
             many(n, "thread")),
        nullptr, {});
  }
  facts.set("each_rank", std::move(each));
  row("64 MiB exchange", join(std::llround(ms * 10) / 10.0, " ms"), "exchange_64_mib_ms", ms);
}

int examine(const CommandLine& line, Communicator* ranks) {
  // Lines for people, and the same for programs: keys that stay, values with types.
  std::vector<std::pair<std::string, std::string>> rows;
  Json facts = Json::object();
  const auto row = [&](const char* label, const std::string& text, const char* key, Json value) {
    rows.emplace_back(label, text);
    if (key != nullptr) facts.set(key, std::move(value));
  };
  if (ranks != nullptr) describe_ranks(*ranks, row, facts);
  if (ranks != nullptr && ranks->rank() != 0) return 0;  // rank 0 prints
  const auto text_row = [&](const char* label, const char* key, const std::string& text) {
    row(label, text, key, text);
  };
  text_row("version", "version", version_text());
  utsname name{};
  uname(&name);
  text_row("system", "system", std::string(name.sysname) + " " + name.release + " " + name.machine);
  text_row("cpu", "cpu", first_match("/proc/cpuinfo", "model name"));
  Json features = Json::array();
  for (const std::string& feature : split(cpu_features(), ' ')) features.push(feature);
  row("cpu features", cpu_features(), "cpu_features", std::move(features));
  const std::int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  row("threads", std::to_string(thread_count()) + " of " + std::to_string(cores) + " cores",
      "threads", thread_count());
  facts.set("cores", cores);
  const std::int64_t memory = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  row("memory", mib(static_cast<double>(memory)), "memory_bytes", memory);
#if defined(RETORT_WITH_ONEDNN)
  row("oneDNN", "yes", "onednn", true);
#else
  row("oneDNN", "no (Eigen instead)", "onednn", false);
#endif
  const char* library = std::getenv("RETORT_CUDA_LIBRARY");
  text_row("CUDA plug-in", "cuda_plugin",
           library != nullptr && *library != '\0' ? std::string(library) + " (RETORT_CUDA_LIBRARY)"
                                                  : "libretort_cuda.so beside libretort");
  const bool usable = cuda_available();
  if (usable) {
    const DeviceInfo info = cuda_device_info();
    row("CUDA", info.emulated ? "emulated on the CPU (tests)" : "usable", "cuda", true);
    facts.set("cuda_emulated", info.emulated);
    text_row("device", "device", info.name);
    text_row("compute capability", "compute_capability",
             std::to_string(info.capability / 10) + "." + std::to_string(info.capability % 10));
    row("device memory",
        mib(static_cast<double>(info.memory_bytes)) + ", " +
            mib(static_cast<double>(info.free_bytes)) + " free",
        "device_memory_bytes", static_cast<std::int64_t>(info.memory_bytes));
    facts.set("device_free_bytes", static_cast<std::int64_t>(info.free_bytes));
    const auto dotted = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    text_row("driver", "driver", dotted(info.driver_version));
    text_row("CUDA runtime", "cuda_runtime", dotted(info.runtime_version));
    text_row("libraries", "libraries", info.libraries);
  } else {
    row("CUDA", "not usable: " + cuda_unavailable_reason(), "cuda", false);
  }
  facts.set("cuda_reason", cuda_unavailable_reason());
  text_row("device used by auto", "auto_device", usable ? "cuda" : "cpu");
  text_row("RETORT_DATA", "retort_data", data_state());
  std::string choices;
  text_row("convolution choices", "convolution_choices", convolution_choices(choices));
  if (line.json) {
    std::printf("%s\n", facts.dump().c_str());
  } else {
    for (const auto& [label, text] : rows) std::printf("%-20s %s\n", label.c_str(), text.c_str());
    std::printf("%s", choices.c_str());
  }
  return 0;
}

}  // namespace

int doctor_command(const CommandLine& line) {
  if (line.threads > 0) set_thread_count(line.threads);
  if (!launched_together()) return examine(line, nullptr);
  return with_ranks(
      line, [&](Communicator& ranks) { return examine(line, &ranks); }, true);
}

}  // namespace retort::tools
