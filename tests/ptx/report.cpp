// What ran and what it cost, appended at exit so that several programs make one report:
//   RETORT_PTX_STATS=1        counts and times, to stderr
//   RETORT_PTX_COVERAGE=FILE  of each kernel of a file that was used: kernel, instructions that
//   ran,
//                             instructions; 0 and 0 for one that was never launched
//   RETORT_PTX_TRAFFIC=FILE   of each load and store that ran: kernel, line, requests, 32-byte
//                             sectors or passes over the banks, the least possible, text
// Columns are separated by tabs.
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/ptx/runtime.h"

namespace retort::ptx {
namespace {
void write_coverage(std::ostream& out, const Function& f) {
  std::size_t ran = 0;
  for (const u64 n : f.executed) ran += n > 0;
  out << f.name << "\t" << ran << "\t" << f.executed.size() << "\n";
}
void write_traffic(std::ostream& out, const Module& module, const Function& f) {
  for (std::size_t k = 0; k < f.traffic.size(); ++k) {
    const Traffic& t = f.traffic[k];
    if (t.requests == 0) continue;
    const std::string& line = module.lines[f.code[k].line];
    out << f.name << "\t" << f.code[k].line << "\t" << t.requests << "\t" << t.units << "\t"
        << t.least << "\t" << line.substr(line.find_first_not_of(" \t")) << "\n";
  }
}
}  // namespace

void write_reports() {
  Runtime& r = runtime();
  if (std::getenv("RETORT_PTX_STATS")) {
    const Stats& s = r.machine.stats;
    std::fprintf(stderr,
                 "ptx: %llu launches, %llu blocks, %.3g warp instructions, %.3g lane instructions, "
                 "%.2f s\n",
                 static_cast<unsigned long long>(s.launches),
                 static_cast<unsigned long long>(s.blocks),
                 static_cast<double>(s.warp_instructions), static_cast<double>(s.lane_instructions),
                 s.seconds);
  }
  const auto each_function = [&](const char* variable, std::ios::openmode mode, auto&& write) {
    const char* const file = std::getenv(variable);
    if (file == nullptr) return;
    std::ofstream out(file, mode);
    for (const auto& image : r.images)
      if (image->module)
        for (const auto& [name, f] : image->module->functions) write(out, *image->module, *f);
  };
  if (std::getenv("RETORT_PTX_COVERAGE"))
    for (const auto& image : r.images) parse_image(*image);
  each_function(
      "RETORT_PTX_COVERAGE", std::ios::trunc,
      [](std::ostream& out, const Module&, const Function& f) { write_coverage(out, f); });
  each_function("RETORT_PTX_TRAFFIC", std::ios::app, write_traffic);
}
}  // namespace retort::ptx
