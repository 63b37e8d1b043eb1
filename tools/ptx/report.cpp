// What ran and what it cost, written at exit:
//   RETORT_PTX_STATS=1        counts and times, to stderr
//   RETORT_PTX_COVERAGE=FILE  of each kernel of a file that was used: kernel, instructions that
//   ran,
//                             instructions; 0 and 0 for one that was never launched
//   RETORT_PTX_TRAFFIC=FILE   of each load and store that ran: kernel, line, requests, 32-byte
//                             sectors or passes over the banks, the least possible, text
//   RETORT_PTX_REPORT=FILE, RETORT_PTX_HTML=FILE   the profile of every kernel that was launched
//                             (profile.h), as text ("-": to standard output) and as a page;
//   RETORT_PTX_KERNELS=REGEX  only of these
// Columns are separated by tabs.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <regex>
#include <sstream>

#include "tools/ptx/profile.h"
#include "tools/ptx/runtime.h"

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
void write_profile(const Runtime& r, const char* text, const char* page) {
  std::vector<KernelProfile> kernels;
  const char* const named = std::getenv("RETORT_PTX_KERNELS");
  const std::regex pattern(named ? named : "");
  for (const auto& image : r.images)
    if (image->module)
      for (KernelProfile& k : profile(r.machine, *image->module))
        if (!named || std::regex_search(k.name, pattern)) kernels.push_back(std::move(k));
  const std::string title = std::to_string(kernels.size()) + " kernels, run from their PTX of sm_" +
                            std::to_string(architecture());
  if (text && std::string_view(text) == "-") {
    write_text(std::cout, title, kernels);
    std::cout.flush();
  } else if (text) {
    std::ofstream out(text);
    write_text(out, title, kernels);
    if (!out) std::fprintf(stderr, "ptx: cannot write %s\n", text);
  }
  if (page) {
    std::ofstream out(page);
    write_html(out, title, kernels);
    if (!out) std::fprintf(stderr, "ptx: cannot write %s\n", page);
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
  const auto each_function = [&](const char* variable, auto&& write) {
    const char* const file = std::getenv(variable);
    if (file == nullptr) return;
    std::ofstream out(file);
    for (const auto& image : r.images)
      if (image->module)
        for (const auto& [name, f] : image->module->functions) write(out, *image->module, *f);
  };
  const char *const text = std::getenv("RETORT_PTX_REPORT"), *const page =
                                                                 std::getenv("RETORT_PTX_HTML");
  if (text || page) write_profile(r, text, page);
  if (std::getenv("RETORT_PTX_COVERAGE"))
    for (const auto& image : r.images) parse_image(*image);
  each_function("RETORT_PTX_COVERAGE", [](std::ostream& out, const Module&, const Function& f) {
    write_coverage(out, f);
  });
  each_function("RETORT_PTX_TRAFFIC", write_traffic);
}
}  // namespace retort::ptx
