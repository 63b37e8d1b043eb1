// One value of a recipe against its line of the schema.
#include <algorithm>
#include <cmath>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

bool as_number(const RawValue& raw, double* out) {
  if (const auto* i = std::get_if<std::int64_t>(&raw.value))
    return *out = static_cast<double>(*i), true;
  if (const auto* d = std::get_if<double>(&raw.value)) return *out = *d, true;
  return false;
}

bool in_range(const KeySpec& spec, double v) { return v >= spec.least && v <= spec.most; }

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

std::string convert(const KeySpec& spec, const RawValue& raw, Value* out) {
  const std::string mismatch = "expected " + expectation(spec) + ", found " + describe(raw);
  const auto* list = std::get_if<RawValue::List>(&raw.value);
  const auto* string = std::get_if<std::string>(&raw.value);
  double number = 0;
  switch (spec.type) {
    case Type::kBool:
      if (const auto* b = std::get_if<bool>(&raw.value)) return *out = *b, "";
      return mismatch;
    case Type::kInt: {
      const auto* i = std::get_if<std::int64_t>(&raw.value);
      if (i == nullptr || !in_range(spec, static_cast<double>(*i))) return mismatch;
      return *out = *i, "";
    }
    case Type::kFloat:
      if (!as_number(raw, &number) || !in_range(spec, number)) return mismatch;
      return *out = number, "";
    case Type::kString:
      if (string == nullptr) return mismatch;
      return *out = *string, "";
    case Type::kChoice: {
      const auto words = split(spec.choices, '|');
      if (string == nullptr) return mismatch;
      if (std::find(words.begin(), words.end(), *string) == words.end()) {
        const std::string near = nearest_word(*string, words);
        return mismatch + (near.empty() ? "" : "; did you mean '" + near + "'?");
      }
      return *out = *string, "";
    }
    case Type::kInts: {
      std::vector<std::int64_t> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        const auto* i = std::get_if<std::int64_t>(&element.value);
        if (i == nullptr || !in_range(spec, static_cast<double>(*i))) return mismatch;
        values.push_back(*i);
      }
      return *out = std::move(values), "";
    }
    case Type::kFloats: {
      std::vector<double> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        if (!as_number(element, &number) || !in_range(spec, number)) return mismatch;
        values.push_back(number);
      }
      return *out = std::move(values), "";
    }
    case Type::kStrings: {
      std::vector<std::string> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        const auto* s = std::get_if<std::string>(&element.value);
        if (s == nullptr) return mismatch;
        values.push_back(*s);
      }
      return *out = std::move(values), "";
    }
    case Type::kNormalize: {
      const auto words = split(spec.choices, '|');
      if (string != nullptr) {
        if (std::find(words.begin(), words.end(), *string) == words.end()) return mismatch;
        return *out = *string, "";
      }
      if (list == nullptr) return mismatch;
      std::vector<double> values;
      for (const RawValue& part : *list) {
        const auto* inner = std::get_if<RawValue::List>(&part.value);
        const RawValue::List one{part};
        for (const RawValue& element : inner ? *inner : one) {
          if (!as_number(element, &number) || !std::isfinite(number)) return mismatch;
          values.push_back(number);
        }
      }
      if (values.size() != 2 && values.size() != 6) return mismatch;
      for (std::size_t i = values.size() / 2; i < values.size(); ++i)
        if (!(values[i] > 0)) return "expected deviations > 0, found " + to_toml(Value(values[i]));
      return *out = std::move(values), "";
    }
  }
  return mismatch;
}

}  // namespace retort::tools
