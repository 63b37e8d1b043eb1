// Where a run came from: provenance, recipe, files.
#include <algorithm>
#include <array>
#include <cctype>

#include "engine/io/file.h"
#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

std::string value_text(const Json& value) {
  if (value.kind() == Json::Kind::kString) return escape_html(value.as_string());
  if (value.kind() != Json::Kind::kObject) return escape_html(value.dump());
  std::string out;
  for (const auto& [name, part] : value.members())
    out +=
        (out.empty() ? "" : "<br>") + escape_html(name) + " <code>" + value_text(part) + "</code>";
  return out;
}

}  // namespace

std::string link_to(const std::string& path, const std::string& text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string url;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x80 && std::isalnum(byte)) || c == '/' || c == '.' || c == '-' || c == '_') {
      url += c;
    } else {
      url += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return "<a href=\"" + url + "\">" + escape_html(text) + "</a>";
}

std::string provenance_section(const Json& provenance) {
  if (provenance.kind() != Json::Kind::kObject || provenance.members().empty()) return "";
  constexpr std::array kKnown{"version", "commit",  "started", "finished", "command", "machine",
                              "device",  "threads", "ranks",   "data",     "weights"};
  std::string rows;
  const auto row = [&](const std::string& name, const Json& value) {
    rows += "<tr><td>" + escape_html(name) + "</td><td>" + value_text(value) + "</td></tr>";
  };
  for (const char* name : kKnown)
    if (const Json* value = provenance.find(name)) row(name, *value);
  for (const auto& [name, value] : provenance.members())
    if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) row(name, value);
  return "<h2>Where it came from</h2><table class=\"text\">" + rows + "</table>";
}

std::string files_section(const fs::path& folder) {
  std::string links;
  for (const char* name : {"results.json", "metrics.jsonl", "recipe.resolved.toml"})
    if (fs::exists(folder / name)) links += (links.empty() ? "" : ", ") + link_to(name, name);
  return "<h2>Files</h2><p>" + links + "</p>";
}

std::string recipe_section(const fs::path& folder) {
  const fs::path file = folder / "recipe.resolved.toml";
  if (!fs::exists(file)) return "";
  constexpr std::uint64_t kMaxBytes = std::uint64_t{4} << 20;
  return "<h2>Recipe</h2><details><summary>Every value, with its origin</summary><pre>" +
         escape_html(read_file(file.string(), kMaxBytes)) + "</pre></details>\n";
}

}  // namespace retort::tools
