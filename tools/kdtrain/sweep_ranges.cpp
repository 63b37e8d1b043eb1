#include "tools/kdtrain/sweep_ranges.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "kernels/common/philox.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/schema.h"

namespace retort::tools {
namespace {

constexpr const char* kNames[] = {"log", "uniform", "integers", "choice"};

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

[[noreturn]] void refuse(const std::string& line, const std::string& why) {
  fail(ErrorCode::kUsage, "sweep.ranges: ", why, ", found \"", escaped(line), "\"");
}

double number_in(const std::string& line, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    refuse(line, "expected numbers as ends");
  return value;
}

std::string typed(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// Four digits where that stays within the range, else all.
std::string typed_within(double value, double low, double high) {
  const std::string text = typed(value, "%.4g");
  const double read = std::stod(text);
  return read >= low && read <= high ? text : typed(std::clamp(value, low, high), "%.17g");
}

}  // namespace

SweepRange parse_sweep_range(const std::string& line) {
  constexpr const char* kForm =
      "expected KEY = log(LOW, HIGH), uniform(LOW, HIGH), integers(LOW, HIGH) or choice(A, B)";
  const auto equals = line.find('='), open = line.find('(');
  if (equals == std::string::npos || open == std::string::npos || open < equals ||
      trimmed(line).back() != ')')
    refuse(line, kForm);
  SweepRange range;
  range.key = trimmed(line.substr(0, equals));
  const std::string name = trimmed(line.substr(equals + 1, open - equals - 1));
  const auto kind = std::find(std::begin(kNames), std::end(kNames), name);
  if (range.key.empty() || kind == std::end(kNames)) refuse(line, kForm);
  range.kind = static_cast<SweepRange::Kind>(kind - std::begin(kNames));
  std::vector<std::string> ends = split(line.substr(open + 1, line.rfind(')') - open - 1), ',');
  for (std::string& end : ends) end = trimmed(end);
  if (range.kind == SweepRange::Kind::kChoice) {
    if (ends.size() < 2 || std::count(ends.begin(), ends.end(), "") > 0)
      refuse(line, "expected at least two values to choose from");
    range.choices = ends;
  } else {
    if (ends.size() != 2) refuse(line, kForm);
    range.low = number_in(line, ends[0]);
    range.high = number_in(line, ends[1]);
    if (range.low >= range.high) refuse(line, "expected LOW < HIGH");
    if (range.kind == SweepRange::Kind::kLog && range.low <= 0)
      refuse(line, "a logarithmic range expected LOW > 0");
    if (range.kind == SweepRange::Kind::kIntegers &&
        (range.low != std::floor(range.low) || range.high != std::floor(range.high) ||
         std::abs(range.low) > 1e9 || std::abs(range.high) > 1e9))
      refuse(line, "expected integers as ends, at most 1e9 in size");
  }
  range.text = name + "(";
  for (std::size_t i = 0; i < ends.size(); ++i) range.text += (i > 0 ? ", " : "") + ends[i];
  range.text += ")";
  return range;
}

std::string SweepRange::draw(std::int64_t seed, std::int64_t trial) const {
  const Philox4 bits = philox(derive_key(seed, ("sweep." + key).c_str()),
                              static_cast<std::uint32_t>(trial), 0, 0, 0);
  const double u = (bits.v[0] + 0.5) / 4294967296.0;  // in (0, 1)
  switch (kind) {
    case Kind::kLog:
      return typed_within(std::exp(std::log(low) + u * (std::log(high) - std::log(low))), low,
                          high);
    case Kind::kUniform: return typed_within(low + u * (high - low), low, high);
    case Kind::kIntegers: return typed(low + std::floor(u * (high - low + 1)), "%.0f");
    case Kind::kChoice: break;
  }
  return choices[static_cast<std::size_t>(u * static_cast<double>(choices.size()))];
}

std::vector<std::string> SweepRange::corners() const {
  if (kind == Kind::kChoice) return choices;
  const char* const format = kind == Kind::kIntegers ? "%.0f" : "%.17g";
  return {typed(low, format), typed(high, format)};
}

}  // namespace retort::tools
