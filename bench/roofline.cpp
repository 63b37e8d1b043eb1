// distill_bench roofline: every case as a point, operations per byte against operations per second,
// under the roofs measured in the same run. A picture of one device in SVG.
//
// Source    Williams, Waterman, Patterson 2009, Roofline: an insightful visual performance model.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "bench/harness/commands.h"
#include "bench/harness/record.h"
#include "engine/io/file.h"

namespace retort::bench {
namespace {

// Words stay readable over points.
#define RETORT_HALO "stroke=\"white\" stroke-width=\"3\" paint-order=\"stroke\""

constexpr double kWidth = 1080, kHeight = 660, kLeft = 70, kRight = 250, kTop = 46, kBottom = 54;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

// Colour-blind safe (Okabe, Ito), one per family of ops.
struct Family {
  const char* name;
  const char* colour;
  std::vector<const char*> prefixes;
};
const std::vector<Family>& families() {
  static const std::vector<Family> list{
      {"distillation loss", "#d55e00", {"distill_loss"}},
      {"convolution", "#0072b2", {"conv2d"}},
      {"gemm", "#56b4e9", {"gemm"}},
      {"batch norm, pooling, images",
       "#009e73",
       {"batch_norm", "max_pool", "average_pool", "global_", "shortcut", "image_"}},
      {"softmax, rows",
       "#cc79a7",
       {"softmax", "log_softmax", "sum", "column_sum", "bias", "mse", "scale_rows"}},
      {"optimizer", "#e69f00", {"sgd", "adamw", "grad_norm"}},
      {"elementwise", "#999999", {""}}};  // the rest
  return list;
}
const Family& family_of(const Record& r) {
  for (const Family& f : families())
    for (const char* prefix : f.prefixes)
      if (r.name.rfind(prefix, 0) == 0) return f;
  return families().back();
}

std::string escaped_xml(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

template <class... A>
std::string format(const char* pattern, A... a) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, a...);
  return text;
}

// A logarithmic axis over whole decades.
struct Axis {
  int low = 0, high = 1;  // powers of ten
  double begin, length;   // pixels; a negative length grows upwards

  void include(double value) {
    if (!(value > 0) || !std::isfinite(value)) return;
    low = first ? static_cast<int>(std::floor(std::log10(value)))
                : std::min(low, static_cast<int>(std::floor(std::log10(value))));
    high = first ? static_cast<int>(std::ceil(std::log10(value)))
                 : std::max(high, static_cast<int>(std::ceil(std::log10(value))));
    if (high == low) ++high;
    first = false;
  }
  double at(double value) const {
    return begin + length * (std::log10(value) - low) / (high - low);
  }
  bool first = true;
};

std::string power_label(int power) {
  if (power >= 0 && power <= 4) return format("%.0f", std::pow(10, power));
  if (power < 0 && power >= -3) return format("%g", std::pow(10, power));
  return format("1e%d", power);
}

class Picture {
 public:
  Picture(const Report& report, const std::string& device)
      : roofs_(device == "cuda" ? report.cuda : report.cpu) {
    for (const Record& r : report.records)
      if (r.device == device && r.flops > 0 && r.bytes > 0) points_.push_back(&r);
    RETORT_CHECK(!points_.empty(), "distill_bench roofline: no case on ", device,
                 " has both operations and bytes");
    RETORT_CHECK(roofs_.copy_gb_per_s > 0,
                 "distill_bench roofline: the run measured no ceilings on ", device);
    for (const Record* r : points_) {
      x_.include(r->flops / r->bytes);
      y_.include(r->gflop_per_s());
    }
    y_.include(top());
    x_.include(top() / roofs_.copy_gb_per_s);
    const Json* name = report.environment.find(device == "cuda" ? "gpu" : "processor");
    title_ = name ? name->as_string() : device;
    const Json* threads = report.environment.find("threads");
    if (device == "cpu" && threads) title_ += ", " + threads->dump() + " threads";
  }

  std::string svg() {
    out_ = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
        "height=\"%g\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
        "fill=\"white\"/>\n",
        kWidth, kHeight, kWidth, kHeight);
    text(kLeft, 24, "Roofline: " + title_, "font-size=\"16\"");
    grid();
    roofs();
    for (const Record* r : points_) point(*r);
    names();
    legend();
    return out_ + "</svg>\n";
  }

 private:
  double top() const {
    return std::max({roofs_.gemm_f32_gflop_per_s, roofs_.gemm_bf16_gflop_per_s,
                     roofs_.fma_f32_gflop_per_s, roofs_.dot_bf16_gflop_per_s});
  }

  void text(double x, double y, const std::string& words, const char* more = "") {
    out_ +=
        format("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, more) + escaped_xml(words) + "</text>\n";
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    out_ += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
                   style);
  }

  void grid() {
    for (int p = x_.low; p <= x_.high; ++p) {
      const double x = x_.at(std::pow(10, p));
      line(x, kTop, x, kTop + kPlotHeight, "stroke=\"#e5e5e5\"");
      text(x, kTop + kPlotHeight + 18, power_label(p), "text-anchor=\"middle\"");
    }
    for (int p = y_.low; p <= y_.high; ++p) {
      const double y = y_.at(std::pow(10, p));
      line(kLeft, y, kLeft + kPlotWidth, y, "stroke=\"#e5e5e5\"");
      text(kLeft - 8, y + 4, power_label(p), "text-anchor=\"end\"");
    }
    text(kLeft + kPlotWidth / 2, kHeight - 12, "operations per byte (by formula)",
         "text-anchor=\"middle\"");
    text(-(kTop + kPlotHeight / 2), 18, "billions of operations per second",
         "text-anchor=\"middle\" transform=\"rotate(-90)\"");
  }

  // Flat until it meets the memory roof, which it does at rate / bandwidth.
  void flat_roof(double rate, const std::string& words, const char* style) {
    if (!(rate > 0)) return;
    const double from = std::max(rate / roofs_.copy_gb_per_s, std::pow(10, x_.low));
    line(x_.at(from), y_.at(rate), kLeft + kPlotWidth, y_.at(rate), style);
    labels_.push_back({y_.at(rate), words + format(" %.0f", rate)});
  }

  void roofs() {
    // The slope, clipped to the plot.
    double low = std::pow(10, x_.low);
    low = std::max(low, std::pow(10, y_.low) / roofs_.copy_gb_per_s);
    const double high = top() / roofs_.copy_gb_per_s;
    line(x_.at(low), y_.at(low * roofs_.copy_gb_per_s), x_.at(high), y_.at(top()),
         "stroke=\"black\" stroke-width=\"1.5\"");
    const double middle = std::pow(low, 0.85) * std::pow(high, 0.15);  // where few cases lie
    const double slope =
        std::atan2((y_.at(10 * middle) - y_.at(middle)), (x_.at(10 * middle) - x_.at(middle))) *
        180 / 3.14159265358979;
    out_ += format("<text transform=\"translate(%.1f %.1f) rotate(%.1f)\" " RETORT_HALO
                   " text-anchor=\"middle\">copy %.1f "
                   "GB/s</text>\n",
                   x_.at(middle) - 6, y_.at(middle * roofs_.copy_gb_per_s) - 8, slope,
                   roofs_.copy_gb_per_s);
    flat_roof(roofs_.gemm_f32_gflop_per_s, "gemm f32", "stroke=\"black\" stroke-width=\"1.5\"");
    flat_roof(roofs_.gemm_bf16_gflop_per_s, "gemm bf16", "stroke=\"black\" stroke-width=\"1.5\"");
    flat_roof(roofs_.fma_f32_gflop_per_s, "registers f32",
              "stroke=\"#777\" stroke-dasharray=\"5 4\"");
    flat_roof(roofs_.dot_bf16_gflop_per_s, "registers bf16",
              "stroke=\"#777\" stroke-dasharray=\"5 4\"");
    std::sort(labels_.begin(), labels_.end());
    double below = -1e9;
    for (auto& [y, words] : labels_) {  // pushed down where they would overlap
      below = std::max(y + 4, below + 14);
      text(kLeft + kPlotWidth + 6, below, words);
    }
  }

  void point(const Record& r) {
    const double x = x_.at(r.flops / r.bytes), y = y_.at(r.gflop_per_s());
    const char* const colour = family_of(r).colour;
    const std::string shape =
        r.dtype == "bf16"
            ? format(
                  "<rect x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\" fill=\"none\" "
                  "stroke=\"%s\" stroke-width=\"1.6\">",
                  x - 3.5, y - 3.5, colour)
            : format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\" fill-opacity=\"0.75\">",
                     x, y, colour);
    const Bound b = r.bound(roofs_);
    const double share = b.share;
    out_ += shape + "<title>" +
            escaped_xml(join(r.name, "/", r.dtype,
                             format(": %.4g ms, %.4g GB/s, %.4g GFLOP/s", r.median_ms(),
                                    r.gb_per_s(), r.gflop_per_s()),
                             share == share
                                 ? format(", %.0f %% of %s", share * 100, b.gemm ? "gemm" : "copy")
                                 : "")) +
            "</title>" + (r.dtype == "bf16" ? "</rect>\n" : "</circle>\n");
  }

  // Names the fastest and the slowest case of each family in f32, where there is room.
  void names() {
    std::vector<std::array<double, 2>> taken;
    for (const Family& f : families()) {
      const Record *best = nullptr, *worst = nullptr;
      for (const Record* r : points_) {
        if (&family_of(*r) != &f || r->dtype != "f32" || !(r->share(roofs_) > 0)) continue;
        if (!best || r->share(roofs_) > best->share(roofs_)) best = r;
        if (!worst || r->share(roofs_) < worst->share(roofs_)) worst = r;
      }
      for (const Record* r : {best, worst}) {
        if (!r || (r == worst && worst == best)) continue;
        const double x = x_.at(r->flops / r->bytes), y = y_.at(r->gflop_per_s());
        const bool clear = std::none_of(taken.begin(), taken.end(), [&](const auto& t) {
          return std::abs(t[1] - y) < 13 && std::abs(t[0] - x) < 190;
        });
        if (!clear) continue;
        taken.push_back({x, y});
        const bool left = x > kLeft + kPlotWidth - 190;
        text(left ? x - 8 : x + 8, y + 4, r->name + format(" %.0f %%", r->share(roofs_) * 100),
             left ? RETORT_HALO " font-size=\"10\" fill=\"#444\" text-anchor=\"end\""
                  : RETORT_HALO " font-size=\"10\" fill=\"#444\"");
      }
    }
  }

  void legend() {
    const double x = kLeft + kPlotWidth + 18;
    double y = kTop + kPlotHeight - 200;
    for (const Family& f : families()) {
      out_ += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\"/>\n", x, y, f.colour);
      text(x + 12, y + 4, f.name);
      y += 20;
    }
    y += 6;
    out_ += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"#444\"/>\n", x, y);
    text(x + 12, y + 4, "f32");
    out_ += format(
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\" fill=\"none\" stroke=\"#444\" "
        "stroke-width=\"1.6\"/>\n",
        x + 56, y - 3.5);
    text(x + 70, y + 4, "bf16");
    text(x - 6, y + 24, "% of copy bandwidth,", "font-size=\"10\" fill=\"#444\"");
    text(x - 6, y + 37, "of gemm where it is matrix work", "font-size=\"10\" fill=\"#444\"");
  }

  Ceilings roofs_;
  std::vector<const Record*> points_;
  Axis x_{0, 1, kLeft, kPlotWidth}, y_{0, 1, kTop + kPlotHeight, -kPlotHeight};
  std::string title_, out_;
  std::vector<std::pair<double, std::string>> labels_;
};

}  // namespace

int roofline_command(const Arguments& given) {
  Arguments arguments = given;
  const std::string out = take(arguments, "--out"), device = take(arguments, "--device", "cpu");
  RETORT_CHECK(arguments.size() == 1 && arguments[0][0] != '-' && !out.empty() &&
                   (device == "cpu" || device == "cuda"),
               "distill_bench roofline: expected A.json --out FILE.svg [--device cpu|cuda]");
  const Report report = read_report(arguments[0]);
  write_file_atomically(out, Picture(report, device).svg());
  return 0;
}

}  // namespace retort::bench
