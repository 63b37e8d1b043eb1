// report.html: one self-contained page, no scripts, nothing fetched.
#include "engine/io/file.h"
#include "tools/report/page_parts.h"
#include "tools/report/report.h"
#include "tools/report/results.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

RunResults results_of(const fs::path& folder, const ReportText& text) {
  RunResults results = gather_results(read_run_log(folder / "metrics.jsonl"), text);
  constexpr std::uint64_t kMaxProvenance = std::uint64_t{1} << 20;
  if (const fs::path file = folder / "provenance.json"; fs::exists(file))
    results.provenance = Json::read(file.string(), kMaxProvenance);
  return results;
}

}  // namespace

std::string breakable(const std::string& name) {
  std::string out;
  for (const char c : escape_html(name)) {
    out += c;
    if (c == '.' || c == '_') out += "<wbr>";
  }
  return out;
}

int colour_of(const RunResults& results, const ArmResult& arm) {
  int place = 0;
  for (const auto* arms : {&results.arms, &results.teachers})
    for (const ArmResult& one : *arms) {
      if (one.name == arm.name) return place;
      ++place;
    }
  return 0;
}

void write_report(const fs::path& folder, const ReportText& text) {
  const RunResults results = results_of(folder, text);
  write_file_atomically((folder / "results.json").string(), results_to_json(results));

  fs::path place = fs::absolute(folder).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // "runs/six/"
  const std::string title = text.title.empty() ? place.filename().string() : text.title;
  std::string page = page_head(title) + "<body>\n<h1>" + escape_html(title) + "</h1>";
  if (!text.description.empty()) page += "<p>" + escape_html(text.description) + "</p>";
  page += "<p class=\"soft\">Retort report of the run folder " +
          escape_html(place.filename().string()) + "</p>\n" + failures_section(results);
  for (const Note& note : results.notes)
    page += "<p class=\"note\">" + escape_html(results.note_text(note, true)) + "</p>";
  page += figures_section(results) + results_section(results) + differences_section(results) +
          curves_section(results) + curricula_section(folder) + schedules_section(results) +
          costs_section(results) + provenance_section(results.provenance) + files_section(folder) +
          recipe_section(folder);
  write_file_atomically((folder / "report.html").string(), page + "</body></html>\n");
}

std::string results_table(const fs::path& folder, const ReportText& text) {
  return results_to_text(gather_results(read_run_log(folder / "metrics.jsonl"), text));
}

}  // namespace retort::tools
