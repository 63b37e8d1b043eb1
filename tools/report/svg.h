// Charts of the page: curves and scatter plots as stretched SVG under labels of HTML, so that text
// has one size at any width; points with intervals as HTML alone. Colours and dashes come from the
// page's CSS (page_style.h).
#pragma once
#include <string>
#include <vector>

namespace retort::tools {

struct Series {
  std::string name;
  std::vector<double> x, y;       // NaN in y breaks the line
  std::vector<double> low, high;  // optional band, same length
  int colour = 0;                 // from 10 on the same colours come dashed
};

struct ChartOptions {
  std::string title, x_label;
  bool scatter = false;
  bool step_line = false;
  std::string foot = {};  // HTML under the legend
};

/// Text safe inside HTML and SVG.
std::string escape_html(const std::string& text);
/// "<figure>" and its caption.
std::string figure_head(const std::string& title);
/// CSS classes of a colour: "c3", "c3 d1" for the 14th.
std::string colour_class(int colour);
/// A <figure>. Series of more than 1,500 points are thinned to the extremes per pixel column. With
/// more than ten series, each line's end bears its number in the legend.
std::string chart(const ChartOptions& options, const std::vector<Series>& series);

/// One line of an interval plot.
struct PlotRow {
  std::string name, text;    // text: the value as read
  std::vector<double> dots;  // single seeds
  double point = 0;          // their mean; NaN: none
  double low = 0, high = 0;  // of the interval; NaN: none
  int colour = 0;
};

/// A <figure>: rows over one axis. foot: HTML under it.
std::string interval_plot(const std::string& title, const std::vector<PlotRow>& rows,
                          const std::string& foot);

}  // namespace retort::tools
