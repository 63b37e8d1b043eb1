#include "tools/report/metric_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace retort::tools {
namespace {

std::string printed(const char* pattern, double value) {
  char text[96];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

std::string with_spaces(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

// "0.99" -> "99 %": steps are counted to a share. Anything else stays.
std::string share_text(const std::string& text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool share =
      status == std::errc() && end == text.data() + text.size() && value > 0 && value <= 1;
  return share ? printed("%.4g %%", 100 * value) : with_spaces(text);
}

std::string label_of(const distill::MetricName& name) {
  if (!name.kind) return with_spaces(name.rest);
  const std::string own =
      name.kind->label.empty() ? with_spaces(name.kind->name) : name.kind->label;
  if (name.rest.empty()) return own;
  return own + " " +
         (name.kind->unit == distill::Unit::kSteps ? share_text(name.rest)
                                                   : with_spaces(name.rest));
}

}  // namespace

MetricText::MetricText(const std::string& metric) : name(metric) {
  const distill::MetricName parts = distill::parse_metric_name(metric);
  set = parts.set;
  label = (set.empty() ? "" : set + " ") + label_of(parts);
  if (parts.kind) {
    kind = *parts.kind;
  } else {
    kind.name = parts.rest;
  }
  const auto kinds = distill::metric_kinds();
  place =
      static_cast<std::size_t>(std::find(kinds.begin(), kinds.end(), parts.kind) - kinds.begin());
}

std::string MetricText::number(double value) const {
  const double v = shown(value);
  if (!std::isfinite(v) || std::abs(v) >= 1e7) return short_number(v);  // a model that ran away
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", std::abs(v) >= 1000 && !is_share() ? 0 : kind.digits, v);
  return text;
}

std::string MetricText::difference(double value) const {
  const std::string text = number(std::abs(value));
  return (value < 0 ? "-" : "+") + text;
}

std::string MetricText::title() const {
  return label.find(unit()) == std::string::npos ? label + ", " + unit() : label;
}

std::string short_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value != 0 && std::abs(value) >= 10000 && std::fmod(value, 100) == 0)
    return printed(std::abs(value) >= 1e6 ? "%.4gM" : "%.4gk",
                   std::abs(value) >= 1e6 ? value / 1e6 : value / 1e3);
  if (std::floor(value) == value && std::abs(value) < 1e7) return printed("%.0f", value);
  return printed("%.4g", value);
}

std::string capital(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z')
    text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

}  // namespace retort::tools
