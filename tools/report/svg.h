// Line charts and scatter plots as inline SVG. Colours come from the page's CSS classes (c0, c1,
// ...).
#pragma once
#include <string>
#include <vector>

namespace retort::tools {

struct Series {
  std::string name;
  std::vector<double> x, y;       // NaN in y breaks the line
  std::vector<double> low, high;  // optional band, same length
  int colour = 0;
};

struct ChartOptions {
  std::string title, x_label, y_label;
  bool scatter = false;
  bool zero_based = false;  // y axis starts at 0
  bool step_line = false;
};

/// Text safe inside HTML and SVG.
std::string escape_html(const std::string& text);
/// A number as people write it: 4 significant digits, thousands as 12k where exact.
std::string short_number(double value);
/// A <figure> with one <svg>. Series of more than 1,500 points are thinned to the extremes per
/// pixel column.
std::string chart(const ChartOptions& options, const std::vector<Series>& series);

}  // namespace retort::tools
