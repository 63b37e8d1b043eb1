// The one table of recipe keys. Parser, validation, recipe.resolved.toml, `kdtrain schema` and the
// help all read it; a new key is one line in schema.cpp.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace retort::tools {

enum class Type {
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

/// A checked value. kNormalize holds a word, or 2 or 6 numbers (means, then deviations).
using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                           std::vector<double>, std::vector<std::string>>;

struct KeySpec {
  std::string key;  // dotted
  Type type;
  std::string fallback;  // default, as TOML
  std::string choices;   // "a|b|c" for kChoice and kNormalize
  double least;          // inclusive range of a number, and of each number in a list
  double most;
  std::string unit;  // "" = none
  std::string doc;   // one sentence
  bool in_arm;       // an [[arm]] may override it
};

/// All keys, grouped by section in the order of the documentation.
const std::vector<KeySpec>& schema();

/// The key's line of the table, or null.
const KeySpec* find_key(std::string_view key);

/// "integer in [1, 65536]", "one of sgd, adamw": for messages and help.
std::string expectation(const KeySpec& spec);

/// The value as TOML.
std::string to_toml(const Value& value);

/// The nearest key by Damerau-Levenshtein distance (at most 2, or a third of the length), "" if
/// none; a key with the same last part in another table counts as near.
std::string nearest_key(std::string_view key);

/// The nearest of some words, "" if none is near.
std::string nearest_word(std::string_view word, const std::vector<std::string>& words);

/// `kdtrain schema`: the whole table as text or JSON. section = "" for everything.
std::string schema_as_text(std::string_view section);
std::string schema_as_json(std::string_view section);

/// Splits "a|b|c".
std::vector<std::string> split(std::string_view text, char separator);

}  // namespace retort::tools
