// The profile as one page: a summary, then every kernel with its accesses and its source, line by
// line. Numbers of sources that this machine does not have stay a table.
#include <algorithm>
#include <fstream>
#include <iomanip>
#include <map>
#include <ostream>
#include <sstream>

#include "tools/ptx/profile.h"

namespace retort::ptx {
namespace {
constexpr const char* kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kernels</title><style>
body{font:14px/1.45 system-ui,sans-serif;max-width:76rem;margin:1.5rem auto;padding:0 1rem;color:#222}
h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:.8rem}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.1rem .7rem;text-align:right;border-bottom:1px solid #eee;vertical-align:top}
td.t,th.t{text-align:left}code,pre,td.c{font:12px/1.4 ui-monospace,monospace;text-align:left;white-space:pre-wrap}
.bad{background:#fbdcd7}.warn{background:#fdf2cf}.off{color:#999}.hazard{background:#fbdcd7;padding:.3rem .6rem}
.bar{display:flex;height:1rem;max-width:60rem}.bar span{display:block}
</style></head><body>
)";
constexpr const char* kColours[] = {"#4c78a8", "#72b7b2", "#54a24b", "#9ecae9", "#b279a2",
                                    "#ff9da6", "#e45756", "#bab0ac", "#d8d0cb", "#9d755d",
                                    "#f58518", "#eeca3b", "#2f6f4f", "#6b8e23", "#8172b3",
                                    "#ccb974", "#64b5cd", "#c44e52", "#333333", "#dddddd"};
static_assert(std::size(kColours) == kClasses);

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}
double per(u64 part, u64 whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}
const char* mark(double excess) {
  return excess > 2 ? " class=bad" : excess > 1.1 ? " class=warn" : "";
}
// Worst excess of a kernel's global or shared accesses together.
double excess_of(const KernelProfile& k, bool shared) {
  u64 units = 0, least = 0;
  for (const AccessProfile& a : k.accesses)
    if (a.shared() == shared) units += a.traffic.units, least += a.traffic.least;
  return per(units, least);
}

void summary(std::ostream& out, const std::vector<KernelProfile>& kernels) {
  out << "<table><tr><th class=t>kernel<th>launches<th>blocks<th>instructions of warps<th>lanes of "
         "32<th>coverage<th>sectors / least<th>bank passes / least<th>hazards</tr>\n";
  for (std::size_t n = 0; n < kernels.size(); ++n) {
    const KernelProfile& k = kernels[n];
    const double global = excess_of(k, false), shared = excess_of(k, true);
    out << "<tr><td class=t><a href=\"#k" << n << "\"><code>" << escaped(k.name)
        << "</code></a><td>" << k.launches << "<td>" << k.blocks << "<td>" << k.warp_instructions
        << "<td>" << std::setprecision(1) << k.lanes() << "<td>" << 100 * per(k.ran, k.instructions)
        << " %" << std::setprecision(2) << "<td" << mark(global) << ">" << global << "<td"
        << mark(shared) << ">" << shared << "<td" << (k.hazards.empty() ? "" : " class=bad") << ">"
        << k.hazards.size() << "</tr>\n";
  }
  out << "</table>\n";
}

void classes(std::ostream& out, const KernelProfile& k) {
  out << "<div class=bar>";
  for (u32 c = 0; c < kClasses; ++c)
    if (k.by_class[c] > 0)
      out << "<span style=\"width:" << 100 * per(k.by_class[c], k.warp_instructions)
          << "%;background:" << kColours[c] << "\" title=\"" << name_of(static_cast<Class>(c))
          << "\"></span>";
  out << "</div><p>";
  for (u32 c = 0; c < kClasses; ++c)
    if (k.by_class[c] > 0)
      out << "<span style=\"color:" << kColours[c] << "\">&#9632;</span> "
          << name_of(static_cast<Class>(c)) << " " << std::setprecision(1)
          << 100 * per(k.by_class[c], k.warp_instructions) << " % &nbsp; ";
  out << std::setprecision(2) << "</p>\n";
}

void accesses(std::ostream& out, const KernelProfile& k) {
  if (k.accesses.empty()) return;
  out << "<table><tr><th class=t>access<th class=t>source<th>requests<th>sectors or "
         "passes<th>least<th>excess<th class=t>PTX</tr>\n";
  for (const AccessProfile& a : k.accesses)
    out << "<tr><td class=t>" << name_of(a.kind) << "<td class=c>" << escaped(a.source) << "<td>"
        << a.traffic.requests << "<td>" << a.traffic.units << "<td>" << a.traffic.least << "<td"
        << mark(a.excess()) << ">" << a.excess() << "<td class=c>" << a.line << ": "
        << escaped(a.text) << "</tr>\n";
  out << "</table>\n";
}

// The source from the first line that became instructions to the last.
void source(std::ostream& out, const std::vector<LineProfile>& lines) {
  std::ifstream in(lines.front().file);
  u32 least = ~0u, most = 0;
  std::map<u32, const LineProfile*> known;
  for (const LineProfile& line : lines) {
    least = std::min(least, line.line), most = std::max(most, line.line);
    known[line.line] = &line;
  }
  out << "<details" << (in ? " open" : "") << "><summary><code>" << escaped(lines.front().file)
      << "</code></summary><table><tr><th>line<th>warps<th>sectors<th>/ least<th>passes<th>/ "
         "least<th class=t></tr>\n";
  std::string text;
  for (u32 n = 1; n <= most; ++n) {
    if (!std::getline(in, text)) text.clear();
    if (n < least) continue;
    const auto it = known.find(n);
    if (it == known.end()) {
      if (in && most - least < 2000)
        out << "<tr class=off><td>" << n << "<td><td><td><td><td><td class=c>" << escaped(text)
            << "</tr>\n";
      continue;
    }
    const LineProfile& line = *it->second;
    const double global = per(line.global.units, line.global.least),
                 shared = per(line.shared.units, line.shared.least);
    out << "<tr" << (line.ran == 0 ? " class=bad" : "") << "><td>" << n << "<td>" << line.warps;
    for (const auto& [t, excess] : {std::pair{&line.global, global}, {&line.shared, shared}}) {
      if (t->requests == 0)
        out << "<td><td>";
      else
        out << "<td>" << t->units << "<td" << mark(excess) << ">" << excess;
    }
    out << "<td class=c>" << escaped(text) << "</tr>\n";
  }
  out << "</table></details>\n";
}
}  // namespace

void write_html(std::ostream& out, const std::string& title,
                const std::vector<KernelProfile>& kernels) {
  out << std::fixed << std::setprecision(2) << kHead << "<h1>" << escaped(title) << "</h1>\n";
  summary(out, kernels);
  for (std::size_t n = 0; n < kernels.size(); ++n) {
    const KernelProfile& k = kernels[n];
    out << "<h2 id=k" << n << "><code>" << escaped(k.name) << "</code></h2>\n";
    for (const std::string& hazard : k.hazards)
      out << "<pre class=hazard>" << escaped(hazard) << "</pre>\n";
    classes(out, k);
    accesses(out, k);
    std::vector<LineProfile> file;
    for (std::size_t at = 0; at < k.lines.size(); ++at) {
      file.push_back(k.lines[at]);
      if (at + 1 == k.lines.size() || k.lines[at + 1].file != file.front().file)
        source(out, file), file.clear();
    }
  }
  out << "<p>Made by running the PTX that nvcc left, without a GPU: counts, no times. Pink rows of "
         "a source never ran.</p></body></html>\n";
}
}  // namespace retort::ptx
