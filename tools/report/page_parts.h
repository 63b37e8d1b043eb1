// The sections of report.html, each as HTML, "" where there is nothing to show.
#pragma once
#include <filesystem>
#include <string>

#include "tools/report/results.h"

namespace retort::tools {

/// Everything before the headline: <head> with the style, light and dark.
std::string page_head(const std::string& title);

// page_results.cpp
std::string failures_section(const RunResults& results);
std::string figures_section(const RunResults& results);
std::string results_section(const RunResults& results);
std::string differences_section(const RunResults& results);

// page_charts.cpp
std::string curves_section(const RunResults& results);
std::string curricula_section(const std::filesystem::path& folder);
std::string schedules_section(const RunResults& results);

// page_costs.cpp
std::string costs_section(const RunResults& results);

// page_origin.cpp: where the run came from, and its files.
std::string files_section(const std::filesystem::path& folder);
std::string provenance_section(const Json& provenance);
std::string recipe_section(const std::filesystem::path& folder);

/// A relative link of the run folder, its bytes escaped for a URL.
std::string link_to(const std::string& path, const std::string& text);
/// <th> of a table that scrolls: the text may break after dots and underscores.
std::string breakable(const std::string& name);
/// The place of an arm among all, teachers last: what gives it its colour in every chart.
int colour_of(const RunResults& results, const ArmResult& arm);

}  // namespace retort::tools
