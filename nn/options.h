// Options: what models, data sets, loss terms, metrics, scores and pacing functions may be asked
// for by name. A row of a registry says which keys it reads; recipes, command lines and programs
// that embed the library speak through the same table.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace retort::nn {

using Ints = std::vector<std::int64_t>;
using Floats = std::vector<double>;
using Strings = std::vector<std::string>;

/// A checked value. kNormalize holds a word, or means and then deviations, as many of each.
using OptionValue = std::variant<bool, std::int64_t, double, std::string, Ints, Floats, Strings>;

enum class OptionType : std::uint8_t {
  kBool,
  kInt,
  kFloat,
  kString,
  kChoice,     // one word of `choices`
  kInts,       // list of integers; a single one is taken as a list of one
  kFloats,     // list of numbers
  kStrings,    // list of strings
  kNormalize,  // a word of `choices`, or [mean, std], or [[r, g, b], [r, g, b]]
};

/// What a key decides. Whoever asks "do these two cost the same?", "feed the same order?", "give
/// the same result?" reads it here and keeps no list of keys.
enum OptionEffect : unsigned {
  kChangesResult =
      1,  // weights or numbers; only what is about the machine, files or messages lacks it
  kChangesCost = 2,   // time or memory of a step, or what a step is made of
  kChangesOrder = 4,  // a curriculum: the scores or the order of samples
  kCostsOnceOn = 8,   // costs too, but every value other than the neutral one costs the same
};

struct OptionSpec {
  std::string key;  // "hidden"; as a recipe's key dotted: "student.hidden"
  OptionType type = OptionType::kBool;
  OptionValue fallback;
  std::string choices = {};  // "a|b|c" for kChoice and kNormalize
  double least = 0;          // inclusive range of a number, and of each number in a list
  double most = 0;
  std::string unit = {};     // "" = none
  std::string doc = {};      // one sentence
  bool may_be_empty = true;  // of a list
  bool in_arm = true;        // an [[arm]] of a recipe may override it
  unsigned effects = kChangesResult;
  /// The value that asks for nothing, so that it is harmless where nobody reads the key. Unset: the
  /// fallback.
  std::optional<OptionValue> neutral = {};

  OptionSpec&& with(unsigned more_effects) && { return effects |= more_effects, std::move(*this); }
  OptionSpec&& without(unsigned these) && { return effects &= ~these, std::move(*this); }
  OptionSpec&& unless(OptionValue nothing) && {
    return neutral = std::move(nothing), std::move(*this);
  }
  OptionSpec&& not_empty() && { return may_be_empty = false, std::move(*this); }
  OptionSpec&& not_in_arm() && { return in_arm = false, std::move(*this); }
};

OptionSpec flag_option(std::string key, bool fallback, std::string doc);
OptionSpec count_option(std::string key, std::int64_t fallback, double least, double most,
                        std::string unit, std::string doc);
OptionSpec number_option(std::string key, double fallback, double least, double most,
                         std::string unit, std::string doc);
OptionSpec text_option(std::string key, std::string fallback, std::string doc);
OptionSpec choice_option(std::string key, std::string fallback, std::string choices,
                         std::string doc);
OptionSpec ints_option(std::string key, Ints fallback, double least, double most, std::string unit,
                       std::string doc);
OptionSpec floats_option(std::string key, Floats fallback, double least, double most,
                         std::string unit, std::string doc);
OptionSpec strings_option(std::string key, Strings fallback, std::string doc);
OptionSpec normalize_option(std::string key, std::string fallback, std::string doc);

/// "integer in [1, 65536]", "one of sgd, adamw": for messages and help.
std::string expectation(const OptionSpec& spec);
/// Splits "a|b|c".
Strings split(std::string_view text, char separator);
/// The value as TOML.
std::string to_toml(const OptionValue& value);

/// A bound of a range as people write it: 100000, not 1e+05.
std::string bound_text(double value);

/// Damerau-Levenshtein, adjacent swaps.
int edit_distance(std::string_view a, std::string_view b);
/// The nearest of some words, "" if none is near.
std::string nearest_word(std::string_view word, const Strings& words);

/// Values by key. What a row reads is complete()d first: then every key of the row is there.
class Options {
 public:
  Options() = default;
  Options(std::initializer_list<std::pair<const std::string, OptionValue>> values)
      : values_(values) {}

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  bool empty() const { return values_.empty(); }
  void set(std::string key, OptionValue value) {
    values_.insert_or_assign(std::move(key), std::move(value));
  }
  const OptionValue& value(std::string_view key) const;

  bool flag(std::string_view key) const { return get<bool>(key); }
  std::int64_t integer(std::string_view key) const { return get<std::int64_t>(key); }
  double number(std::string_view key) const { return get<double>(key); }
  const std::string& text(std::string_view key) const { return get<std::string>(key); }
  const Ints& integers(std::string_view key) const { return get<Ints>(key); }
  const Floats& numbers(std::string_view key) const { return get<Floats>(key); }
  const Strings& texts(std::string_view key) const { return get<Strings>(key); }

  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }
  bool operator==(const Options&) const = default;

 private:
  template <class T>
  const T& get(std::string_view key) const;
  std::map<std::string, OptionValue, std::less<>> values_;
};

/// What no row by itself can say of complete options: which key is wrong, and how.
struct OptionFault {
  std::string key, message;  // "support", "expected at most bits = 40"
};

/// The value as the row has it, or nothing if it does not fit: another type, out of range, no word
/// of the choices. Integers do as numbers, one as a list of one.
std::optional<OptionValue> fitting(const OptionSpec& spec, const OptionValue& value);

/// The given values and the fallbacks of all others.
///
/// Errors    kUsage, beginning with [who]: a key that no row has (with the nearest one), a value of
///           another type or out of range.
Options complete(std::string_view who, std::span<const OptionSpec> specs, const Options& given);

}  // namespace retort::nn
