// What the arms cost: throughput, shares of the step, memory.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "distill/phase_timer.h"
#include "engine/runtime/allocator.h"
#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

template <class Enum>
std::vector<std::string> names_of(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(name_of(static_cast<Enum>(i)));
  return names;
}

// "12 %", of a share.
std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, share < 0.0995 ? "%.1f %%" : "%.0f %%", 100 * share);
  return text;
}

}  // namespace

std::string costs_section(const RunResults& results) {
  std::vector<const ArmResult*> arms;
  for (const ArmResult& teacher : results.teachers) arms.push_back(&teacher);
  for (const ArmResult& arm : results.arms) arms.push_back(&arm);
  const std::vector<std::string> phases = names_of<distill::Phase>(distill::kPhases);
  std::vector<std::string> roles = names_of<MemoryRole>(kMemoryRoles);
  roles.insert(roles.begin(), "total");
  bool any_shares = false, any_memory = false;
  for (const ArmResult* arm : arms) {
    any_shares |= !arm->steps.shares.empty();
    any_memory |= !arm->memory_mib.empty();
  }
  std::string out;
  const auto table = [&](const std::string& head, const auto& cells) {
    out += "<div class=\"scroll\"><table><tr><th>arm</th>" + head + "</tr>";
    for (const ArmResult* arm : arms)
      out += "<tr><td>" + escape_html(arm->shown()) + "</td>" + cells(*arm) + "</tr>";
    out += "</table></div>";
  };
  const auto cell = [](const std::map<std::string, double>& values, const std::string& key,
                       const auto& text) {
    const auto at = values.find(key);
    return "<td>" + (at == values.end() ? std::string("-") : text(at->second)) + "</td>";
  };
  if (any_shares) {
    std::string head = "<th>samples/s</th>";
    for (const std::string& phase : phases) head += "<th>" + phase + "</th>";
    table(head + "<th>rest</th>", [&](const ArmResult& arm) {
      std::string row =
          "<td>" +
          (arm.steps.samples_per_s > 0 ? short_number(std::round(arm.steps.samples_per_s)) : "-") +
          "</td>";
      double sum = 0;
      for (const std::string& phase : phases) row += cell(arm.steps.shares, phase, percent);
      for (const auto& [phase, share] : arm.steps.shares) sum += share;
      return row + "<td>" + (arm.steps.shares.empty() ? "-" : percent(std::max(0.0, 1 - sum))) +
             "</td>";
    });
    out +=
        "<p class=\"soft\">Training steps of all seeds: throughput of one job, and the share of "
        "its "
        "time in each phase.</p>";
  }
  if (any_memory) {
    std::string head;
    for (const std::string& role : roles) head += "<th>" + role + "</th>";
    table(head, [&](const ArmResult& arm) {
      std::string row;
      for (const std::string& role : roles)
        row += cell(arm.memory_mib, role, [](double mib) { return short_number(mib); });
      return row;
    });
    out +=
        "<p class=\"soft\">Peak memory of the whole process until the arm ended, in MiB: of all "
        "tensors, and of each role by itself. Jobs that run side by side are added.</p>";
  }
  return out.empty() ? out : "<h2>Time and memory</h2>" + out;
}

}  // namespace retort::tools
