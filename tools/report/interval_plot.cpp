#include <cmath>

#include "tools/report/axis.h"
#include "tools/report/svg.h"

namespace retort::tools {

std::string interval_plot(const std::string& title, const std::vector<PlotRow>& rows,
                          const std::string& foot) {
  Range range;
  for (const PlotRow& row : rows) {
    for (const double v : row.dots) range.include(v);
    for (const double v : {row.point, row.low, row.high}) range.include(v);
  }
  std::string out = figure_head(title);
  if (range.empty()) return out + "<p class=\"none\">nothing finished yet</p></figure>\n";
  if (!range.is_drawable()) return out + "<p class=\"none\">too large to draw</p></figure>\n";
  range.widen(0.03);
  const auto at = [&](double v) { return range.percent(v); };
  const std::vector<double> marks = ticks(range, 5);
  std::string lines;
  for (const double t : marks)
    lines += format("<i class=\"grid\" style=\"left:%.2f%%\"></i>", at(t));
  out += "<div class=\"rows\">";
  for (const PlotRow& row : rows) {
    out += "<div class=\"row " + colour_class(row.colour) + "\"><span class=\"name\">" +
           escape_html(row.name) + "</span><span class=\"value\">" + row.text +
           "</span><span class=\"track\">" + lines;
    if (std::isfinite(row.low) && std::isfinite(row.high))
      out += format("<i class=\"bar\" style=\"left:%.2f%%;width:%.2f%%\"></i>", at(row.low),
                    at(row.high) - at(row.low));
    if (row.dots.size() > 1)
      for (const double v : row.dots)
        if (std::isfinite(v)) out += format("<i class=\"dot\" style=\"left:%.2f%%\"></i>", at(v));
    if (std::isfinite(row.point))
      out += format("<i class=\"mean\" style=\"left:%.2f%%\"></i>", at(row.point));
    out += "</span></div>";
  }
  out +=
      "<div class=\"row\"><span class=\"name\"></span><span class=\"value\"></span><span "
      "class=\"track scale\">";
  for (const double t : marks)
    out += format("<i class=\"xt\" style=\"left:%.2f%%\">", at(t)) + tick_text(t, range) + "</i>";
  return out + "</span></div></div>" + foot + "</figure>\n";
}

}  // namespace retort::tools
