#include "tools/report/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace retort::tools {
namespace {

constexpr double kWidth = 640, kHeight = 330, kLeft = 62, kRight = 14, kTop = 14, kBottom = 44;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

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

std::string short_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value != 0 && std::abs(value) >= 10000 && std::fmod(value, 100) == 0)
    return format(std::abs(value) >= 1e6 ? "%.4gM" : "%.4gk",
                  std::abs(value) >= 1e6 ? value / 1e6 : value / 1e3);
  if (std::floor(value) == value && std::abs(value) < 1e7) return format("%.0f", value);
  return format("%.4g", value);
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
  std::string out = "<figure><figcaption>" + escape_html(options.title) + "</figcaption>";
  if (xr.empty() || yr.empty())
    return out + "<p class=\"none\">nothing recorded yet</p></figure>\n";
  if (options.zero_based) yr.include(0);
  constexpr double kLargest = 1e300;  // beyond it the arithmetic below overflows
  for (const double v : {xr.low, xr.high, yr.low, yr.high})
    if (std::abs(v) > kLargest) return out + "<p class=\"none\">too large to draw</p></figure>\n";
  if (xr.low == xr.high) xr.low -= 0.5, xr.high += 0.5;
  widen(&xr);
  if (!widen(&yr)) {
    const double pad = 0.04 * (yr.high - yr.low);
    if (!options.zero_based || yr.low < 0) yr.low -= pad;
    yr.high += pad;
  }
  const auto px = [&](double x) { return kLeft + (x - xr.low) / (xr.high - xr.low) * kPlotWidth; };
  const auto py = [&](double y) { return kTop + (yr.high - y) / (yr.high - yr.low) * kPlotHeight; };

  out += "<svg viewBox=\"0 0 640 330\" role=\"img\" aria-label=\"" + escape_html(options.title) +
         "\">";
  for (const double t : ticks(yr, 5))
    out += format("<line class=\"grid\" x1=\"62\" x2=\"626\" y1=\"%.1f\" y2=\"%.1f\"/>", py(t),
                  py(t)) +
           format("<text class=\"tick\" x=\"56\" y=\"%.1f\" text-anchor=\"end\">", py(t) + 4) +
           short_number(std::abs(t) < 1e-12 ? 0 : t) + "</text>";
  for (const double t : ticks(xr, 7, 1))  // ranks, steps and epochs are counted
    out += format("<text class=\"tick\" x=\"%.1f\" y=\"304\" text-anchor=\"middle\">", px(t)) +
           short_number(std::abs(t) < 1e-12 ? 0 : t) + "</text>";
  out += "<line class=\"axis\" x1=\"62\" x2=\"626\" y1=\"286\" y2=\"286\"/>";
  out += "<text class=\"label\" x=\"344\" y=\"324\" text-anchor=\"middle\">" +
         escape_html(options.x_label) + "</text>";
  out +=
      "<text class=\"label\" transform=\"translate(14 150) rotate(-90)\" text-anchor=\"middle\">" +
      escape_html(options.y_label) + "</text>";

  for (const Series& s : series) {
    const std::string colour = "c" + std::to_string(s.colour % 10);
    const std::vector<std::size_t> keep = thinned(s, xr);
    if (!s.low.empty() && s.low.size() == s.x.size()) {
      std::string path;
      for (std::size_t i = 0; i < s.x.size(); ++i)
        if (std::isfinite(s.high[i])) path += format("%.1f,%.1f ", px(s.x[i]), py(s.high[i]));
      for (std::size_t i = s.x.size(); i-- > 0;)
        if (std::isfinite(s.low[i])) path += format("%.1f,%.1f ", px(s.x[i]), py(s.low[i]));
      out += "<polygon class=\"band " + colour + "\" points=\"" + path + "\"/>";
    }
    if (options.scatter) {
      std::string path;
      for (const std::size_t i : keep)
        if (std::isfinite(s.y[i])) path += format("M%.1f,%.1fh0", px(s.x[i]), py(s.y[i]));
      out += "<path class=\"dots " + colour + "\" d=\"" + path + "\"><title>" +
             escape_html(s.name) + "</title></path>";
      continue;
    }
    std::string path, alone;  // a point without neighbours is no line
    const auto is_gap = [&](std::size_t k) {
      return k >= keep.size() || !std::isfinite(s.y[keep[k]]);
    };
    for (std::size_t k = 0; k < keep.size(); ++k)
      if (!is_gap(k) && is_gap(k + 1) && (k == 0 || is_gap(k - 1)))
        alone += format("M%.1f,%.1fh0", px(s.x[keep[k]]), py(s.y[keep[k]]));
    if (!alone.empty()) out += "<path class=\"point " + colour + "\" d=\"" + alone + "\"/>";
    bool pen_down = false;
    double last_y = 0;
    for (const std::size_t i : keep) {
      if (!std::isfinite(s.y[i])) {
        pen_down = false;
        continue;
      }
      if (pen_down && options.step_line) path += format("L%.1f,%.1f", px(s.x[i]), last_y);
      path += (pen_down ? "L" : "M") + format("%.1f,%.1f", px(s.x[i]), py(s.y[i]));
      last_y = py(s.y[i]);
      pen_down = true;
    }
    out += "<path class=\"line " + colour + "\" d=\"" + path + "\"><title>" + escape_html(s.name) +
           "</title></path>";
  }
  out += "</svg><ul class=\"legend\">";
  for (const Series& s : series)
    out += "<li><i class=\"c" + std::to_string(s.colour % 10) + "\"></i>" + escape_html(s.name) +
           "</li>";
  return out + "</ul></figure>\n";
}

}  // namespace retort::tools
