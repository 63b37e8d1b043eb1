// Collects a KernelProfile, and writes it as text. profile_html.cpp writes the page.
#include "tools/ptx/profile.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <map>
#include <ostream>

namespace retort::ptx {
namespace {
void erase_all(std::string& s, const std::string& what) {
  for (std::size_t at; (at = s.find(what)) != std::string::npos;) s.erase(at, what.size());
}
// "axpy_kernel<float, 4>" of the mangled name.
std::string short_name(const std::string& mangled) {
  int status = 0;
  char* const text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : mangled;
  std::free(text);
  if (name.starts_with("void ")) name.erase(0, 5);
  for (const char* const part :
       {"retort::", "kernels::", "simt_on_cuda::", "(anonymous namespace)::", "(bool)", "(int)"})
    erase_all(name, part);
  int depth = 0;
  for (std::size_t k = 0; k < name.size(); ++k) {
    depth += name[k] == '<' ? 1 : name[k] == '>' ? -1 : 0;
    if (name[k] == '(' && depth == 0) return name.substr(0, k);
  }
  return name;
}
std::string trimmed(const std::string& line) {
  const std::size_t first = line.find_first_not_of(" \t");
  return first == std::string::npos ? "" : line.substr(first);
}
void add(Traffic& to, const Traffic& t) {
  to.requests += t.requests, to.units += t.units, to.least += t.least;
}
double share(u64 part, u64 whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

bool more(const AccessProfile& a, const AccessProfile& b) {  // above what it must be
  const auto above = [](const Traffic& t) { return t.units > t.least ? t.units - t.least : 0; };
  return above(a.traffic) > above(b.traffic);
}

// Accesses of one line and opcode as one: what unrolling made of them.
std::vector<AccessProfile> by_source(const std::vector<AccessProfile>& accesses) {
  std::vector<AccessProfile> merged;
  std::vector<u32> counts;
  const auto opcode = [](const std::string& text) {
    const std::string rest =
        text.starts_with("@") ? text.substr(text.find_first_of(" \t") + 1) : text;
    return rest.substr(0, rest.find_first_of(" \t"));
  };
  for (const AccessProfile& a : accesses) {
    const auto same = std::find_if(merged.begin(), merged.end(), [&](const AccessProfile& m) {
      return !a.source.empty() && m.source == a.source && m.text == opcode(a.text);
    });
    if (same == merged.end()) {
      merged.push_back(a);
      if (!a.source.empty()) merged.back().text = opcode(a.text);
      counts.push_back(1);
    } else {
      add(same->traffic, a.traffic);
      ++counts[static_cast<std::size_t>(same - merged.begin())];
    }
  }
  for (std::size_t k = 0; k < merged.size(); ++k)
    if (counts[k] > 1) merged[k].text += " (" + std::to_string(counts[k]) + " of them)";
  std::stable_sort(merged.begin(), merged.end(), more);
  return merged;
}

KernelProfile profile_of(const Machine& machine, const Module& module, const Function& f) {
  KernelProfile k;
  k.name = short_name(f.name);
  k.launches = f.launches, k.blocks = f.blocks, k.lane_instructions = f.lane_instructions;
  std::map<std::pair<std::string, u32>, LineProfile> lines;
  const std::size_t count = f.code.empty() ? 0 : f.code.size() - 1;  // without the end
  k.instructions = static_cast<u32>(count);
  for (std::size_t n = 0; n < count; ++n) {
    const u64 warps = f.executed[n];
    k.warp_instructions += warps;
    k.ran += warps > 0;
    k.by_class[static_cast<u32>(f.classes[n])] += warps;
    const Source& source = f.sources[n];
    const Traffic& t = f.traffic[n];
    if (t.requests > 0)
      k.accesses.push_back({f.classes[n], f.code[n].line, describe(module, source),
                            trimmed(module.lines[f.code[n].line]), t});
    const auto file = module.files.find(source.at.file);
    if (file == module.files.end()) continue;
    LineProfile& line = lines[{file->second, source.at.line}];
    line.file = file->second, line.line = source.at.line;
    ++line.instructions, line.ran += warps > 0, line.warps += warps;
    add(k.accesses.empty() || t.requests == 0 || !k.accesses.back().shared() ? line.global
                                                                             : line.shared,
        t);
  }
  for (auto& [place, line] : lines) k.lines.push_back(std::move(line));
  std::stable_sort(k.accesses.begin(), k.accesses.end(), more);
  for (const auto& [where, hazard] : machine.hazards)
    if (where.first == &f)
      k.hazards.push_back(
          hazard.what + (hazard.count > 1 ? " (" + std::to_string(hazard.count) + " times)" : ""));
  return k;
}
}  // namespace

double AccessProfile::excess() const {
  return traffic.least == 0
             ? 0
             : static_cast<double>(traffic.units) / static_cast<double>(traffic.least);
}
double KernelProfile::lanes() const {
  return warp_instructions == 0
             ? 0
             : static_cast<double>(lane_instructions) / static_cast<double>(warp_instructions);
}

const char* name_of(Class c) {
  constexpr const char* kNames[] = {
      "integer",          "f32",           "f64",         "f16/bf16",     "convert",
      "special function", "matrix",        "compare",     "move",         "branch",
      "barrier",          "warp exchange", "global load", "global store", "shared load",
      "shared store",     "async copy",    "atomic",      "local",        "parameter"};
  static_assert(std::size(kNames) == kClasses);
  return kNames[static_cast<u32>(c)];
}

std::vector<KernelProfile> profile(const Machine& machine, const Module& module) {
  std::vector<KernelProfile> kernels;
  for (const auto& [name, f] : module.functions)
    if (f->launches > 0) kernels.push_back(profile_of(machine, module, *f));
  return kernels;
}

void write_text(std::ostream& out, const std::string& title,
                const std::vector<KernelProfile>& kernels) {
  out << title << "\n" << std::fixed;
  for (const KernelProfile& k : kernels) {
    out << "\n"
        << k.name << "\n"
        << "  ran           " << k.launches << " launches, " << k.blocks << " blocks, "
        << k.warp_instructions << " instructions of warps, " << std::setprecision(1) << k.lanes()
        << " of 32 lanes active\n";
    std::vector<u32> order;
    for (u32 c = 0; c < kClasses; ++c)
      if (k.by_class[c] > 0) order.push_back(c);
    std::stable_sort(order.begin(), order.end(),
                     [&](u32 a, u32 b) { return k.by_class[a] > k.by_class[b]; });
    out << "  instructions ";
    for (const u32 c : order)
      out << " " << name_of(static_cast<Class>(c)) << " "
          << share(k.by_class[c], k.warp_instructions) << " %" << (c == order.back() ? "" : ",");
    out << "\n  coverage      " << k.ran << " of " << k.instructions << " instructions";
    std::string missed;
    for (const LineProfile& line : k.lines)
      if (line.ran == 0)
        missed += (missed.empty() ? "" : ", ") + line.file.substr(line.file.rfind('/') + 1) + ":" +
                  std::to_string(line.line);
    if (!missed.empty()) out << "; lines that never ran: " << missed;
    out << "\n";
    if (!k.accesses.empty()) out << "  memory        requests      units      least   excess\n";
    for (const AccessProfile& a : by_source(k.accesses))
      out << "  " << std::left << std::setw(13) << name_of(a.kind) << std::right << std::setw(9)
          << a.traffic.requests << std::setw(11) << a.traffic.units << std::setw(11)
          << a.traffic.least << std::setw(8) << std::setprecision(2) << a.excess()
          << (a.shared() ? "x passes   " : "x sectors  ")
          << (a.source.empty() ? "PTX line " + std::to_string(a.line) : a.source) << "  " << a.text
          << "\n";
    if (k.hazards.empty()) out << "  hazards       none\n";
    for (const std::string& hazard : k.hazards) out << "  HAZARD        " << hazard << "\n";
  }
}
}  // namespace retort::ptx
