#include "bench/harness/console.h"

#include <cstdio>
#include <ostream>
#include <string>

namespace retort::bench {
namespace {

constexpr int kNameWidth = 58;

// Without what Google Benchmark adds to the name that was registered: every case has the same.
std::string case_name(const benchmark::BenchmarkReporter::Run& run) {
  std::string name = run.benchmark_name();
  for (const char* added : {"/iterations:1", "/manual_time"})
    if (const std::size_t at = name.find(added); at != std::string::npos)
      name.erase(at, std::string(added).size());
  return name;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

}  // namespace

void Console::PrintHeader(const Run&) {
  char line[128];
  std::snprintf(line, sizeof line, "%-*s %10s  %s\n", kNameWidth, "case", "ms", "figures");
  GetOutputStream() << line;
}

void Console::PrintRunData(const Run& run) {
  char name[256];
  std::snprintf(name, sizeof name, "%-*s ", kNameWidth, case_name(run).c_str());
  std::ostream& out = GetOutputStream();
  out << name;
  if (run.error_occurred) {
    out << "ERROR: " << run.error_message << std::endl;
    return;
  }
  const bool aggregate = run.run_type == Run::RT_Aggregate,
             share = aggregate && run.aggregate_unit == benchmark::kPercentage;
  char time[32];
  std::snprintf(time, sizeof time, "%10s ",
                share ? (number(100 * run.real_accumulated_time) + "%").c_str()
                      : number(run.GetAdjustedRealTime()).c_str());
  out << time;
  // Of repetitions only the time: a deviation of 0 of "same_bits" would read as other bits.
  if (!aggregate)
    for (const auto& [figure, value] : run.counters) out << " " << figure << "=" << number(value);
  if (!run.report_label.empty()) out << "  " << run.report_label;
  out << std::endl;  // a run that is cut off leaves whole lines
}

}  // namespace retort::bench
