#include "tools/report/svg.h"

#include <algorithm>
#include <cmath>

#include "tools/report/axis.h"

namespace retort::tools {
namespace {

// Units of the drawing, which the page stretches to what room there is.
constexpr double kPlotWidth = 600, kPlotHeight = 260;

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

// The drawing of one chart: series to paths, in its own units.
class Drawing {
 public:
  Drawing(const Range& x, const Range& y, const ChartOptions& options)
      : x_(x), y_(y), options_(options) {}

  double px(double x) const { return x_.percent(x) / 100 * kPlotWidth; }
  double py(double y) const { return (1 - y_.percent(y) / 100) * kPlotHeight; }

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

std::string figure_head(const std::string& title) {
  return "<figure><figcaption>" + escape_html(title) + "</figcaption>";
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
  std::string out = figure_head(options.title);
  if (xr.empty() || yr.empty())
    return out + "<p class=\"none\">nothing recorded yet</p></figure>\n";
  if (!xr.is_drawable() || !yr.is_drawable())
    return out + "<p class=\"none\">too large to draw</p></figure>\n";
  if (xr.low == xr.high) xr.low -= 0.5, xr.high += 0.5;
  xr.widen(0);
  yr.widen(0.04);
  const Drawing drawing(xr, yr, options);
  std::string grid, labels;
  for (const double t : ticks(yr, 5)) {
    grid += format("<path class=\"grid\" d=\"M0,%.1fH600\"/>", drawing.py(t));
    labels += format("<i class=\"yt\" style=\"top:%.2f%%\">", 100 - yr.percent(t)) +
              tick_text(t, yr) + "</i>";
  }
  for (const double t : ticks(xr, 6, 1))  // ranks, steps and epochs are counted
    labels +=
        format("<i class=\"xt\" style=\"left:%.2f%%\">", xr.percent(t)) + tick_text(t, xr) + "</i>";
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

}  // namespace retort::tools
