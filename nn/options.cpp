#include "nn/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "kernels/common/check.h"

namespace retort::nn {
namespace {

OptionSpec row(std::string key, OptionType type, OptionValue fallback, std::string doc) {
  OptionSpec spec;
  spec.key = std::move(key);
  spec.type = type;
  spec.fallback = std::move(fallback);
  spec.doc = std::move(doc);
  return spec;
}

OptionSpec ranged(std::string key, OptionType type, OptionValue fallback, double least, double most,
                  std::string unit, std::string doc) {
  OptionSpec spec = row(std::move(key), type, std::move(fallback), std::move(doc));
  spec.least = least;
  spec.most = most;
  spec.unit = std::move(unit);
  return spec;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04X", static_cast<unsigned>(c));
      out += buffer;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

bool in_range(const OptionSpec& spec, double v) { return v >= spec.least && v <= spec.most; }

bool is_word(const OptionSpec& spec, const OptionValue& value) {
  const auto* word = std::get_if<std::string>(&value);
  if (word == nullptr) return false;
  const Strings words = split(spec.choices, '|');
  return std::find(words.begin(), words.end(), *word) != words.end();
}

// A value fits the type and range of its row. Integers do as numbers, one as a list of one.
bool fits(const OptionSpec& spec, OptionValue* value) {
  if (const auto* i = std::get_if<std::int64_t>(value)) {
    if (spec.type == OptionType::kFloat) *value = static_cast<double>(*i);
    if (spec.type == OptionType::kInts) *value = Ints{*i};
  }
  switch (spec.type) {
    case OptionType::kBool: return std::holds_alternative<bool>(*value);
    case OptionType::kInt: {
      const auto* i = std::get_if<std::int64_t>(value);
      return i != nullptr && in_range(spec, static_cast<double>(*i));
    }
    case OptionType::kFloat: {
      const auto* d = std::get_if<double>(value);
      return d != nullptr && in_range(spec, *d);
    }
    case OptionType::kString: return std::holds_alternative<std::string>(*value);
    case OptionType::kChoice: return is_word(spec, *value);
    case OptionType::kInts: {
      const auto* list = std::get_if<Ints>(value);
      return list != nullptr && (spec.may_be_empty || !list->empty()) &&
             std::all_of(list->begin(), list->end(),
                         [&](std::int64_t i) { return in_range(spec, static_cast<double>(i)); });
    }
    case OptionType::kFloats: {
      const auto* list = std::get_if<Floats>(value);
      return list != nullptr && (spec.may_be_empty || !list->empty()) &&
             std::all_of(list->begin(), list->end(), [&](double d) { return in_range(spec, d); });
    }
    case OptionType::kStrings: {
      const auto* list = std::get_if<Strings>(value);
      return list != nullptr && (spec.may_be_empty || !list->empty());
    }
    case OptionType::kNormalize: {
      if (is_word(spec, *value)) return true;
      const auto* list = std::get_if<Floats>(value);
      return list != nullptr && !list->empty() && list->size() % 2 == 0;
    }
  }
  return false;
}

}  // namespace

OptionSpec flag_option(std::string key, bool fallback, std::string doc) {
  return row(std::move(key), OptionType::kBool, fallback, std::move(doc));
}

OptionSpec count_option(std::string key, std::int64_t fallback, double least, double most,
                        std::string unit, std::string doc) {
  return ranged(std::move(key), OptionType::kInt, fallback, least, most, std::move(unit),
                std::move(doc));
}

OptionSpec number_option(std::string key, double fallback, double least, double most,
                         std::string unit, std::string doc) {
  return ranged(std::move(key), OptionType::kFloat, fallback, least, most, std::move(unit),
                std::move(doc));
}

OptionSpec text_option(std::string key, std::string fallback, std::string doc) {
  return row(std::move(key), OptionType::kString, std::move(fallback), std::move(doc));
}

OptionSpec choice_option(std::string key, std::string fallback, std::string choices,
                         std::string doc) {
  OptionSpec spec = row(std::move(key), OptionType::kChoice, std::move(fallback), std::move(doc));
  spec.choices = std::move(choices);
  return spec;
}

OptionSpec ints_option(std::string key, Ints fallback, double least, double most, std::string unit,
                       std::string doc) {
  return ranged(std::move(key), OptionType::kInts, std::move(fallback), least, most,
                std::move(unit), std::move(doc));
}

OptionSpec floats_option(std::string key, Floats fallback, double least, double most,
                         std::string unit, std::string doc) {
  return ranged(std::move(key), OptionType::kFloats, std::move(fallback), least, most,
                std::move(unit), std::move(doc));
}

OptionSpec strings_option(std::string key, Strings fallback, std::string doc) {
  return row(std::move(key), OptionType::kStrings, std::move(fallback), std::move(doc));
}

OptionSpec normalize_option(std::string key, std::string fallback, std::string doc) {
  OptionSpec spec = ranged(std::move(key), OptionType::kNormalize, std::move(fallback), -1e6, 1e6,
                           "", std::move(doc));
  spec.choices = "cifar|imagenet|none";
  return spec;
}

Strings split(std::string_view text, char separator) {
  Strings parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return parts;
}

std::string expectation(const OptionSpec& spec) {
  const std::string range = " in [" + bound_text(spec.least) + ", " + bound_text(spec.most) + "]";
  const std::string list = spec.may_be_empty ? "a list of " : "a list of at least one of ";
  std::string words;
  for (const std::string& word : split(spec.choices, '|'))
    words += (words.empty() ? "" : ", ") + word;
  switch (spec.type) {
    case OptionType::kBool: return "true or false";
    case OptionType::kInt: return "an integer" + range;
    case OptionType::kFloat: return "a number" + range;
    case OptionType::kString: return "a string";
    case OptionType::kChoice: return "one of " + words;
    case OptionType::kInts: return list + "integers" + range;
    case OptionType::kFloats: return list + "numbers" + range;
    case OptionType::kStrings: return list + "strings";
    case OptionType::kNormalize:
      return "one of " + words + ", [mean, std] or [[r, g, b], [r, g, b]]";
  }
  return "";
}

std::string to_toml(const OptionValue& value) {
  const auto list = [](const auto& items, auto&& text) {
    std::string out = "[";
    for (const auto& item : items) out += (out.size() > 1 ? ", " : "") + text(item);
    return out + "]";
  };
  struct Visitor {
    decltype(list)& list_of;
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return number_text(v); }
    std::string operator()(const std::string& v) const { return quoted(v); }
    std::string operator()(const Ints& v) const {
      return list_of(v, [](std::int64_t x) { return std::to_string(x); });
    }
    std::string operator()(const Floats& v) const { return list_of(v, number_text); }
    std::string operator()(const Strings& v) const { return list_of(v, quoted); }
  };
  return std::visit(Visitor{list}, value);
}

std::string bound_text(double value) {
  if (std::abs(value) < 1e15 && std::floor(value) == value)
    return std::to_string(static_cast<long long>(value));
  std::string text = number_text(value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string nearest_word(std::string_view word, const Strings& words) {
  std::string best;
  int least = std::max(2, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : words) {
    if (candidate.size() > word.size() + 8 || word.size() > 64) continue;
    const int d = edit_distance(word, candidate);
    if (d < least && d < static_cast<int>(std::max(word.size(), candidate.size())))
      least = d, best = candidate;
  }
  return best;
}

const OptionValue& Options::value(std::string_view key) const {
  const auto at = values_.find(key);
  if (at == values_.end()) throw std::logic_error("no such option: " + std::string(key));
  return at->second;
}

template <class T>
const T& Options::get(std::string_view key) const {
  const T* const found = std::get_if<T>(&value(key));
  if (found == nullptr) throw std::logic_error("option of another type: " + std::string(key));
  return *found;
}
template const bool& Options::get(std::string_view) const;
template const std::int64_t& Options::get(std::string_view) const;
template const double& Options::get(std::string_view) const;
template const std::string& Options::get(std::string_view) const;
template const Ints& Options::get(std::string_view) const;
template const Floats& Options::get(std::string_view) const;
template const Strings& Options::get(std::string_view) const;

std::optional<OptionValue> fitting(const OptionSpec& spec, const OptionValue& value) {
  OptionValue same = value;
  if (!fits(spec, &same)) return std::nullopt;
  return same;
}

Options complete(std::string_view who, std::span<const OptionSpec> specs, const Options& given) {
  Options all;
  for (const OptionSpec& spec : specs) all.set(spec.key, spec.fallback);
  for (const auto& [key, value] : given) {
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&key = key](const OptionSpec& s) { return s.key == key; });
    if (spec == specs.end()) {
      Strings keys;
      std::string known;
      for (const OptionSpec& s : specs) {
        keys.push_back(s.key);
        known += (known.empty() ? "" : ", ") + s.key;
      }
      const std::string near = nearest_word(key, keys);
      fail(ErrorCode::kUsage, "[", who, "] does not read '", key, "'; it reads ",
           known.empty() ? "no options" : known,
           near.empty() ? "" : "; did you mean '" + near + "'?");
    }
    std::optional<OptionValue> own = fitting(*spec, value);
    RETORT_CHECK(own.has_value(), "[", who, "] ", key, ": expected ", expectation(*spec), ", got ",
                 to_toml(value));
    all.set(key, std::move(*own));
  }
  return all;
}

}  // namespace retort::nn
