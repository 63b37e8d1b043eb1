#include "tools/kdtrain/schema.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {
namespace {

std::string_view last_part(std::string_view key) {
  const auto dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

bool in_section(const KeySpec& spec, std::string_view section) {
  return section.empty() || spec.key == section || spec.key.starts_with(std::string(section) + ".");
}

}  // namespace

const std::vector<KeySpec>& schema() {
  static const std::vector<KeySpec> table = make_schema();
  return table;
}

const KeySpec* find_key(std::string_view key) {
  static const std::map<std::string, const KeySpec*, std::less<>> index = [] {
    std::map<std::string, const KeySpec*, std::less<>> map;
    for (const KeySpec& spec : schema()) map.emplace(spec.key, &spec);
    return map;
  }();
  const auto at = index.find(key);
  return at == index.end() ? nullptr : at->second;
}

std::string nearest_key(std::string_view key) {
  if (key.size() > 120) return "";
  std::string moved;  // right name, wrong table
  int nearest = std::numeric_limits<int>::max();
  for (const KeySpec& spec : schema())
    if (last_part(spec.key) == last_part(key))
      if (const int d = nn::edit_distance(key, spec.key); d < nearest)
        nearest = d, moved = spec.key;
  if (!moved.empty()) return moved;
  std::vector<std::string> same_table, all;
  const auto table = key.substr(0, key.size() - last_part(key).size());
  for (const KeySpec& spec : schema()) {
    all.push_back(spec.key);
    if (spec.key.starts_with(table)) same_table.push_back(spec.key.substr(table.size()));
  }
  const std::string near = nearest_word(last_part(key), same_table);
  if (!near.empty() && !table.empty()) return std::string(table) + near;
  std::string best;
  int least = std::max(2, static_cast<int>(key.size()) / 5) + 1;
  for (const std::string& candidate : all) {
    const int d = std::min(nn::edit_distance(key, candidate),
                           nn::edit_distance(key, last_part(candidate)) + 1);
    if (d < least) least = d, best = candidate;
  }
  return best;
}

std::string schema_as_text(std::string_view section) {
  std::string out, table = "?";
  for (const KeySpec& spec : schema()) {
    if (!in_section(spec, section)) continue;
    const auto name = last_part(spec.key);
    const std::string here = spec.key.substr(0, spec.key.size() - name.size());
    if (here != table) {
      table = here;
      out += out.empty() ? "" : "\n";
      out +=
          table.empty() ? "# top of the file\n" : "[" + table.substr(0, table.size() - 1) + "]\n";
    }
    out += std::string(name) + " = " + to_toml(spec.fallback) + "\n    " + expectation(spec);
    if (!spec.unit.empty()) out += "; " + spec.unit;
    out += "\n    " + spec.doc + (spec.in_arm ? "" : " (Not in an [[arm]].)") + "\n";
  }
  return out;
}

std::string schema_as_json(std::string_view section) {
  const auto json_number = [](double v) { return std::isfinite(v) ? nn::bound_text(v) : "null"; };
  const auto json_text = [](const std::string& text) { return to_toml(Value(text)); };
  constexpr const char* kTypes[] = {"bool", "int",    "float",   "string",   "choice",
                                    "ints", "floats", "strings", "normalize"};
  std::string out = "[";
  for (const KeySpec& spec : schema()) {
    if (!in_section(spec, section)) continue;
    out += out.size() > 1 ? ",\n" : "\n";
    out += "{\"key\":" + json_text(spec.key) + ",\"type\":\"" +
           kTypes[static_cast<int>(spec.type)] +
           "\",\"default\":" + json_text(to_toml(spec.fallback));
    if (!spec.choices.empty()) out += ",\"choices\":" + to_toml(Value(split(spec.choices, '|')));
    if (spec.most > spec.least)
      out += ",\"least\":" + json_number(spec.least) + ",\"most\":" + json_number(spec.most);
    if (!spec.unit.empty()) out += ",\"unit\":" + json_text(spec.unit);
    out += ",\"arm\":" + std::string(spec.in_arm ? "true" : "false") +
           ",\"doc\":" + json_text(spec.doc) + "}";
  }
  return out + "\n]\n";
}

}  // namespace retort::tools
