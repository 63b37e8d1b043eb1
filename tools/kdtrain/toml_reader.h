// Reads a recipe's text into a flat list of "dotted key = value" with places. The only code that
// knows which TOML library is underneath.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace retort::tools {

/// Where something stands in a file: 1-based; line 0 = nowhere in particular.
struct Place {
  int line = 0;
  int column = 0;
};

/// A value as written. Lists may hold lists (data.normalize does).
struct RawValue {
  using List = std::vector<RawValue>;
  std::variant<bool, std::int64_t, double, std::string, List> value = false;
  Place place;
};

/// One assignment. The path of `[distill] reliance.mode = "rank"` is {distill, reliance, mode}; a
/// table in an array of tables has its index as a part: {arm, #0, distill, lambda}, and as
/// `element` where the array is at the top, since a quoted key may look like "#0".
struct RawEntry {
  std::vector<std::string> path;
  RawValue value;
  Place place;  // of the key
  std::optional<std::size_t> element = {};
};

/// A syntax error: what is wrong and where.
struct TomlProblem {
  std::string message;
  Place place;
};

struct TomlResult {
  std::vector<RawEntry> entries;      // in order of appearance
  std::vector<TomlProblem> problems;  // empty if the text is well formed
};

inline constexpr std::size_t kMaxRecipeBytes = std::size_t{1} << 20;
inline constexpr int kMaxRecipeDepth = 32;
inline constexpr std::size_t kMaxRecipeKeys = 10'000;

/// Parses TOML 1.0. Never throws on bad input and never crashes, whatever the bytes. Refused before
/// the parser sees them: more than 1 MiB, invalid UTF-8, control characters, non-characters,
/// non-ASCII outside quotes and comments, nesting or dotted keys deeper than 32. A UTF-8 byte order
/// mark at the start is skipped. Throws std::bad_alloc.
TomlResult read_toml(std::string_view text);

/// Parses a single value, as after '='.
TomlResult read_toml_value(std::string_view text);

}  // namespace retort::tools
