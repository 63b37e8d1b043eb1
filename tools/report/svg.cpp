#include "tools/report/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "tools/report/metric_text.h"

namespace retort::tools {
namespace {

// Units of the drawing, which the page stretches to what room there is.
constexpr double kPlotWidth = 600, kPlotHeight = 260;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void include(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

// Gives width to a range of one value, or of values that only rounding tells apart. False if it has
// enough.
bool widen(Range* range) {
  const double size = std::max(std::abs(range->low), std::abs(range->high));
  if (range->high - range->low > 1e-9 * size && size > 1e-30) return false;
  const double pad = size > 1e-30 ? 0.05 * size : 0.5;
  range->low -= pad, range->high += pad;
  return true;
}

// Ticks at 1, 2 or 5 times a power of ten, about `wanted` of them.
std::vector<double> ticks(const Range& range, int wanted, double least_unit = 0) {
  const double raw = (range.high - range.low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double unit = std::max(least_unit, power * (raw / power < 1.5   ? 1
                                                    : raw / power < 3.5 ? 2
                                                    : raw / power < 7.5 ? 5
                                                                        : 10));
  std::vector<double> at;
  const double first = std::ceil(range.low / unit - 1e-9);
  for (int k = 0; k < 64 && (first + k) * unit <= range.high + 1e-9 * unit; ++k)
    at.push_back((first + k) * unit);
  return at;
}

std::string format(const char* pattern, double a, double b = 0) {
  char text[96];
  std::snprintf(text, sizeof text, pattern, a, b);
  return text;
}

// Keeps the first, lowest, highest and last point of every pixel column.
std::vector<std::size_t> thinned(const Series& s, const Range& x) {
  std::vector<std::size_t> keep;
  if (s.x.size() <= 1500) {
    for (std::size_t i = 0; i < s.x.size(); ++i) keep.push_back(i);
    return keep;
  }
  const double scale = kPlotWidth / (x.high - x.low);
  for (std::size_t begin = 0; begin < s.x.size();) {
    const auto column = [&](std::size_t i) { return std::floor((s.x[i] - x.low) * scale); };
    std::size_t end = begin, low = begin, high = begin;
    for (; end < s.x.size() && column(end) == column(begin); ++end) {
      if (s.y[end] < s.y[low]) low = end;
      if (s.y[end] > s.y[high]) high = end;
    }
    std::vector<std::size_t> four{begin, low, high, end - 1};
    std::sort(four.begin(), four.end());
    four.erase(std::unique(four.begin(), four.end()), four.end());
    keep.insert(keep.end(), four.begin(), four.end());
    begin = end;
  }
  return keep;
}

// The label of a tick; -0 and what rounding left of 0 are 0.
std::string tick_text(double t, const Range& range) {
  return short_number(std::abs(t) < 1e-9 * (range.high - range.low) ? 0 : t);
}

bool is_drawable(const Range& range) {
  constexpr double kLargest = 1e300;  // beyond it the arithmetic of ticks overflows
  return std::abs(range.low) <= kLargest && std::abs(range.high) <= kLargest;
}

// The drawing of one chart: series to paths, in its own units.
class Drawing {
 public:
  Drawing(const Range& x, const Range& y, const ChartOptions& options)
      : x_(x), y_(y), options_(options) {}

  double px(double x) const { return (x - x_.low) / (x_.high - x_.low) * kPlotWidth; }
  double py(double y) const { return (y_.high - y) / (y_.high - y_.low) * kPlotHeight; }

  std::string series(const Series& s) const {
    const std::vector<std::size_t> keep = thinned(s, x_);
    return options_.scatter ? dots(s, keep) : band(s) + lonely_points(s, keep) + line(s, keep);
  }

 private:
  std::string path(const Series& s, const char* kind, const std::string& d) const {
    return "<path class=\"" + std::string(kind) + " " + colour_class(s.colour) + "\" d=\"" + d +
           "\"><title>" + escape_html(s.name) + "</title></path>";
  }
  std::string dots(const Series& s, const std::vector<std::size_t>& keep) const {
    std::string d;
    for (const std::size_t i : keep)
      if (std::isfinite(s.y[i])) d += format("M%.1f,%.1fh0", px(s.x[i]), py(s.y[i]));
    return path(s, "dots", d);
  }
  std::string band(const Series& s) const {
    if (s.low.empty() || s.low.size() != s.x.size()) return "";
    std::string points;
    for (std::size_t i = 0; i < s.x.size(); ++i)
      if (std::isfinite(s.high[i])) points += format("%.1f,%.1f ", px(s.x[i]), py(s.high[i]));
    for (std::size_t i = s.x.size(); i-- > 0;)
      if (std::isfinite(s.low[i])) points += format("%.1f,%.1f ", px(s.x[i]), py(s.low[i]));
    return "<polygon class=\"band " + colour_class(s.colour) + "\" points=\"" + points + "\"/>";
  }
  // A point between two gaps is no line.
  std::string lonely_points(const Series& s, const std::vector<std::size_t>& keep) const {
    const auto is_gap = [&](std::size_t k) {
      return k >= keep.size() || !std::isfinite(s.y[keep[k]]);
    };
    std::string d;
    for (std::size_t k = 0; k < keep.size(); ++k)
      if (!is_gap(k) && is_gap(k + 1) && (k == 0 || is_gap(k - 1)))
        d += format("M%.1f,%.1fh0", px(s.x[keep[k]]), py(s.y[keep[k]]));
    return d.empty() ? "" : path(s, "point", d);
  }
  std::string line(const Series& s, const std::vector<std::size_t>& keep) const {
    std::string d;
    bool pen_down = false;
    double last_y = 0;
    for (const std::size_t i : keep) {
      if (!std::isfinite(s.y[i])) {
        pen_down = false;
        continue;
      }
      if (pen_down && options_.step_line) d += format("L%.1f,%.1f", px(s.x[i]), last_y);
      d += (pen_down ? "L" : "M") + format("%.1f,%.1f", px(s.x[i]), py(s.y[i]));
      last_y = py(s.y[i]);
      pen_down = true;
    }
    return path(s, "line", d);
  }

  const Range &x_, &y_;
  const ChartOptions& options_;
};

// Beside each line's end its number, moved down where it would cover the one above.
std::string end_numbers(const std::vector<Series>& series, const Drawing& drawing) {
  struct End {
    double top;  // in percent
    std::size_t number;
  };
  std::vector<End> ends;
  for (std::size_t k = 0; k < series.size(); ++k) {
    const auto last = std::find_if(series[k].y.rbegin(), series[k].y.rend(),
                                   [](double v) { return std::isfinite(v); });
    if (last != series[k].y.rend()) ends.push_back({100 * drawing.py(*last) / kPlotHeight, k});
  }
  std::stable_sort(ends.begin(), ends.end(),
                   [](const End& a, const End& b) { return a.top < b.top; });
  constexpr double kApart = 4.6;  // percent: a line of small text
  std::string out;
  double free_from = -kApart;
  for (const End& end : ends) {
    const double top = std::max(end.top, free_from);
    free_from = top + kApart;
    out += format("<b style=\"top:%.1f%%\">", top) + std::to_string(end.number + 1) + "</b>";
  }
  return "<div class=\"ends\">" + out + "</div>";
}

std::string legend(const std::vector<Series>& series, bool scatter, bool numbered) {
  std::string out = "<ul class=\"legend\">";
  for (std::size_t k = 0; k < series.size(); ++k) {
    const char* const mark = scatter ? "<path class=\"point " : "<path class=\"line ";
    const char* const d = scatter ? "M12,5h0" : "M1,5H23";
    out += "<li><svg class=\"key\" viewBox=\"0 0 24 10\">" + std::string(mark) +
           colour_class(series[k].colour) + "\" d=\"" + d + "\"/></svg>" +
           (numbered ? "<b>" + std::to_string(k + 1) + "</b> " : "") + escape_html(series[k].name) +
           "</li>";
  }
  return out + "</ul>";
}

std::string head(const std::string& title) {
  return "<figure><figcaption>" + escape_html(title) + "</figcaption>";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return out;
}

std::string colour_class(int colour) {
  const int dash = colour / 10 % 4;
  return "c" + std::to_string(colour % 10) + (dash ? " d" + std::to_string(dash) : "");
}

std::string chart(const ChartOptions& options, const std::vector<Series>& series) {
  Range xr, yr;
  for (const Series& s : series)
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      xr.include(s.x[i]);
      yr.include(s.y[i]);
      if (i < s.low.size()) yr.include(s.low[i]);
      if (i < s.high.size()) yr.include(s.high[i]);
    }
  std::string out = head(options.title);
  if (xr.empty() || yr.empty())
    return out + "<p class=\"none\">nothing recorded yet</p></figure>\n";
  if (!is_drawable(xr) || !is_drawable(yr))
    return out + "<p class=\"none\">too large to draw</p></figure>\n";
  if (xr.low == xr.high) xr.low -= 0.5, xr.high += 0.5;
  widen(&xr);
  if (!widen(&yr)) {
    const double pad = 0.04 * (yr.high - yr.low);
    yr.low -= pad, yr.high += pad;
  }
  const Drawing drawing(xr, yr, options);
  const std::vector<double> y_ticks = ticks(yr, 5);
  std::string grid, labels;
  for (const double t : y_ticks) {
    grid += format("<path class=\"grid\" d=\"M0,%.1fH600\"/>", drawing.py(t));
    labels += format("<i class=\"yt\" style=\"top:%.2f%%\">", 100 * drawing.py(t) / kPlotHeight) +
              tick_text(t, yr) + "</i>";
  }
  for (const double t : ticks(xr, 6, 1))  // ranks, steps and epochs are counted
    labels += format("<i class=\"xt\" style=\"left:%.2f%%\">", 100 * drawing.px(t) / kPlotWidth) +
              tick_text(t, xr) + "</i>";
  std::string lines;
  for (const Series& s : series) lines += drawing.series(s);
  const bool numbered = series.size() > 10 && !options.scatter;
  out += "<div class=\"plot" + std::string(numbered ? " numbered" : "") +
         "\"><svg viewBox=\"0 0 600 260\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"" +
         escape_html(options.title) + "\">" + grid + "<path class=\"axis\" d=\"M0,260H600\"/>" +
         lines + "</svg>" + labels + (numbered ? end_numbers(series, drawing) : "") + "</div>";
  out += "<p class=\"xlabel\">" + escape_html(options.x_label) + "</p>" +
         legend(series, options.scatter, numbered) + options.foot;
  return out + "</figure>\n";
}

std::string interval_plot(const std::string& title, const std::vector<PlotRow>& rows,
                          const std::string& foot) {
  Range range;
  for (const PlotRow& row : rows) {
    for (const double v : row.dots) range.include(v);
    for (const double v : {row.point, row.low, row.high}) range.include(v);
  }
  std::string out = head(title);
  if (range.empty()) return out + "<p class=\"none\">nothing finished yet</p></figure>\n";
  if (!is_drawable(range)) return out + "<p class=\"none\">too large to draw</p></figure>\n";
  if (!widen(&range)) {
    const double pad = 0.03 * (range.high - range.low);
    range.low -= pad, range.high += pad;
  }
  const auto at = [&](double v) { return 100 * (v - range.low) / (range.high - range.low); };
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
