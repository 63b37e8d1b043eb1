// One value of a recipe against its line of the schema.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

std::optional<double> number_of(const RawValue& raw) {
  if (const auto* i = std::get_if<std::int64_t>(&raw.value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&raw.value)) return *d;
  return std::nullopt;
}

template <class T>
std::optional<T> item_of(const RawValue& raw) {
  if constexpr (std::is_same_v<T, double>) return number_of(raw);
  if (const auto* item = std::get_if<T>(&raw.value)) return *item;
  return std::nullopt;
}

// A list of one kind; a single item is a list of one.
template <class T>
std::optional<Value> list_as(const RawValue& raw) {
  const auto* const list = std::get_if<RawValue::List>(&raw.value);
  const RawValue::List one{raw};
  std::vector<T> items;
  for (const RawValue& element : list != nullptr ? *list : one) {
    const std::optional<T> item = item_of<T>(element);
    if (!item) return std::nullopt;
    items.push_back(*item);
  }
  return Value(std::move(items));
}

// [mean, std], [[means], [deviations]], or both lists in one, as to_toml() writes them.
std::optional<Value> normalization(const RawValue& raw, const RawValue::List& parts) {
  std::optional<Value> flat = list_as<double>(raw);
  if (!flat) {
    if (parts.size() != 2) return std::nullopt;
    const std::optional<Value> means = list_as<double>(parts[0]);
    const std::optional<Value> deviations = list_as<double>(parts[1]);
    if (!means || !deviations) return std::nullopt;
    auto numbers = std::get<nn::Floats>(*means);
    const auto& more = std::get<nn::Floats>(*deviations);
    if (numbers.size() != more.size()) return std::nullopt;
    numbers.insert(numbers.end(), more.begin(), more.end());
    flat = std::move(numbers);
  }
  const auto& numbers = std::get<nn::Floats>(*flat);
  const bool finite = std::all_of(numbers.begin(), numbers.end(),
                                  [](double number) { return std::isfinite(number); });
  return finite ? flat : std::nullopt;
}

// As a value of the row's type, its range not yet looked at.
std::optional<Value> typed(Type type, const RawValue& raw) {
  const auto* const list = std::get_if<RawValue::List>(&raw.value);
  switch (type) {
    case Type::kInts: return list_as<std::int64_t>(raw);
    case Type::kFloats: return list_as<double>(raw);
    case Type::kStrings: return list_as<std::string>(raw);
    default: break;
  }
  if (list != nullptr) return type == Type::kNormalize ? normalization(raw, *list) : std::nullopt;
  return std::visit(
      [](const auto& plain) -> std::optional<Value> {
        if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, RawValue::List>)
          return std::nullopt;
        else
          return Value(plain);
      },
      raw.value);
}

}  // namespace

std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += '?';
    else
      out += c;
  }
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80 &&
         text.size() > 80)
    out.pop_back();
  return text.size() > 80 ? out + "..." : out;
}

bool valid_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.';
  });
}

std::string describe(const RawValue& raw) {
  struct Visitor {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return to_toml(Value(v)); }
    std::string operator()(const std::string& v) const { return "string \"" + shown(v) + "\""; }
    std::string operator()(const RawValue::List& v) const {
      return "a list of " + std::to_string(v.size());
    }
  };
  return std::visit(Visitor{}, raw.value);
}

namespace {

// What does not fit, where it is one entry of a list that is at fault and not their number.
std::string describe(const KeySpec& spec, const RawValue& raw) {
  const auto* const list = std::get_if<RawValue::List>(&raw.value);
  if (list != nullptr && spec.type != Type::kNormalize)
    for (std::size_t i = 0; i < list->size(); ++i) {
      RawValue one = raw;
      one.value = RawValue::List{(*list)[i]};
      const std::optional<Value> value = typed(spec.type, one);
      if (!value || !nn::fitting(spec, *value))
        return describe((*list)[i]) + " in place " + std::to_string(i + 1) + " of " + describe(raw);
    }
  return describe(raw);
}

}  // namespace

std::string convert(const KeySpec& spec, const RawValue& raw, Value* out) {
  const std::optional<Value> value = typed(spec.type, raw);
  std::optional<Value> fit = value ? nn::fitting(spec, *value) : std::nullopt;
  if (fit) {
    if (const auto* numbers = std::get_if<nn::Floats>(&*fit);
        spec.type == Type::kNormalize && numbers)
      for (std::size_t i = numbers->size() / 2; i < numbers->size(); ++i)
        if (!((*numbers)[i] > 0))
          return "expected deviations > 0, found " + to_toml(Value((*numbers)[i]));
    *out = std::move(*fit);
    return "";
  }
  const auto* const word = std::get_if<std::string>(&raw.value);
  const bool a_choice = spec.type == Type::kChoice || spec.type == Type::kNormalize;
  const std::string near = word && a_choice ? nearest_word(*word, split(spec.choices, '|')) : "";
  return "expected " + expectation(spec) + ", found " + describe(spec, raw) +
         (near.empty() ? "" : "; did you mean '" + near + "'?");
}

std::optional<StopRule> parse_stop_rule(std::string_view text) {
  const auto trimmed = [](std::string_view part) {
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    return part;
  };
  const auto sign = text.find_first_of("<>");
  if (sign == std::string_view::npos || sign + 1 >= text.size() || text[sign + 1] != '=')
    return std::nullopt;
  StopRule rule;
  rule.at_least = text[sign] == '>';
  rule.metric = trimmed(text.substr(0, sign));
  const bool a_word = !rule.metric.empty() &&
                      std::all_of(rule.metric.begin(), rule.metric.end(),
                                  [](unsigned char c) { return std::isalnum(c) || c == '_'; });
  const std::string_view number = trimmed(text.substr(sign + 2));
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), rule.value);
  if (!a_word || error != std::errc() || end != number.data() + number.size() ||
      !std::isfinite(rule.value))
    return std::nullopt;
  return rule;
}

}  // namespace retort::tools
