// One case, timed on demand by the driver in bench/peers, which runs a peer's worker beside it and
// lets them take turns. Protocol: bench/peers/README.md.
#include <cstdio>
#include <fstream>
#include <iostream>

#include "bench/cases/cases.h"
#include "bench/harness/commands.h"
#include "bench/harness/session.h"
#include "engine/io/json.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace retort::bench {
namespace {

// A worker that slept has cold threads: calls shorter than this are preceded by one that is not
// timed.
constexpr double kWakeMs = 200;

// "VmHWM" (peak) or "VmRSS" of this process in bytes; 0 where /proc does not say.
double status_bytes(const char* key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(key, 0) == 0) return 1024 * std::stod(line.substr(line.find(':') + 1));
  return 0;
}

void say(const Json& j) {
  std::fputs((j.dump() + "\n").c_str(), stdout);
  std::fflush(stdout);
}

Json list(const std::vector<double>& values) {
  Json j = Json::array();
  for (const double v : values) j.push(v);
  return j;
}

// Free memory that allocators keep goes back to the system, as the peer's does.
void give_back_unused(Device device) {
  release_cached_memory(device);
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// Steps of a toy, so that code, generated kernels and threads are there: what is loaded on first
// use is not the case's memory. The peer does the same.
void load_everything(Device device) {
  const Plan toys = all_cases(device, true);
  for (const Case& toy : toys.cases) {
    if (!toy.step || toy.dtype != DType::kF32 || toy.name.rfind("step/resnet8/", 0) != 0) continue;
    const Work w = toy.make(toy);
    for (int i = 0; i < 2; ++i) w.run();
  }
  synchronize(device);
  give_back_unused(device);
}

void list_cases(const Plan& plan) {
  for (const Case& c : plan.cases) std::printf("%s/%s\n", c.name.c_str(), name_of(c.dtype));
}

}  // namespace

int worker_command(const Arguments& given) {
  Arguments arguments = given;
  const std::string name = take(arguments, "--case"), file = take(arguments, "--export"),
                    device = take(arguments, "--device", "cpu");
  take_threads(arguments);
  const bool smoke = take_flag(arguments, "--smoke"), names = take_flag(arguments, "--list");
  expect_none(arguments);
  const Plan plan = all_cases(parse_device(device), smoke);
  if (names) {
    list_cases(plan);
    return 0;
  }
  const Case* found = nullptr;
  for (const Case& c : plan.cases)
    if (c.name + "/" + name_of(c.dtype) == name) found = &c;
  RETORT_CHECK(found, "distill_bench: no case '", name, "' (worker --list names them)");

  // For the peer: a work of its own, gone before memory is looked at.
  if (!file.empty()) {
    const Work w = found->make(*found);
    RETORT_CHECK(w.exports && w.digest, "distill_bench: ", name, " has nothing for a peer");
    write_safetensors(file, w.exports());
    w.run();
    const std::vector<double> digest = w.digest();
    say(Json::object().set("exported", file).set("digest", list(digest)));
    return 0;
  }
  load_everything(found->device);
  const double baseline = status_bytes("VmRSS");
  Session session(*found, smoke);
  say(Json::object()
          .set("ready", true)
          .set("baseline_bytes", baseline)
          .set("calls_per_sample", session.calls_per_sample())
          .set("works", session.works())
          .set("flops", session.bench_case().flops)
          .set("bytes", found->bytes)
          .set("matrix", found->matrix));
  give_back_unused(found->device);  // what only making the case needed
  double last = session.sample();
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak reported is of the steady state
  reset_peak_memory(found->device);
  for (std::string line; std::getline(std::cin, line) && line != "finish";) {
    const int n = std::stoi(line.substr(line.find(' ') + 1));
    if (last < kWakeMs) session.sample();
    std::vector<double> ms;
    for (int i = 0; i < n; ++i) ms.push_back(session.sample());
    last = ms.empty() ? last : ms.back();
    say(Json::object().set("ms", list(ms)));
  }
  const MemoryStatistics memory = memory_statistics(found->device);
  Json roles = Json::object();
  for (int r = 0; r < kMemoryRoles; ++r)
    roles.set(name_of(static_cast<MemoryRole>(r)),
              static_cast<std::uint64_t>(memory.peak_by_role[static_cast<std::size_t>(r)]));
  say(Json::object()
          .set("peak_rss_bytes", status_bytes("VmHWM"))
          .set("allocator_peak_bytes", static_cast<std::uint64_t>(memory.peak_bytes))
          .set("reserved_bytes", static_cast<std::uint64_t>(memory.reserved_bytes))
          .set("peak_by_role", roles));
  return 0;
}

}  // namespace retort::bench
