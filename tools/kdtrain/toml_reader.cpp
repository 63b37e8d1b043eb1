// The only file that includes toml++. Release assertions of toml++ 3.3.0 abort on malformed input
// ('[' followed by 0x0B), so it is compiled with NDEBUG whatever the build type, and the guard
// below keeps from it what is known to break it: deep nesting (stack overflow), long dotted keys,
// non-characters (an unreachable branch). tests/fuzz/recipe_fuzz.cpp looks for more.
#if !defined(NDEBUG)
#define NDEBUG
#endif
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include "tools/kdtrain/toml_reader.h"

#include <toml++/toml.h>

#include <algorithm>
#include <new>

namespace retort::tools {
namespace {

// Decodes one code point at text[i]; returns its length, 0 if it is not valid UTF-8.
std::size_t decode(std::string_view text, std::size_t i, std::uint32_t* code) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const std::uint32_t first = byte(i);
  if (first < 0x80) return *code = first, 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || i + length > text.size()) return 0;
  std::uint32_t value = first & (0xFFu >> (length + 1));
  for (std::size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
    value = (value << 6) | (byte(i + k) & 0x3Fu);
  }
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
  return *code = value, length;
}

// Walks over the text once, knowing strings and comments. Returns false with a problem at the first
// thing that toml++ must not see.
bool guard(std::string_view text, std::vector<TomlProblem>* problems) {
  Place place{1, 1};
  const auto refuse = [&](const char* why) {
    problems->push_back({why, place});
    return false;
  };
  if (text.size() > kMaxRecipeBytes) return refuse("expected at most 1 MiB of text");
  enum class In { kBare, kBasic, kLiteral, kMultiBasic, kMultiLiteral, kComment } in = In::kBare;
  int depth = 0, dots = 0;
  const auto three = [&](std::size_t i, char quote) {
    return i + 2 < text.size() && text[i] == quote && text[i + 1] == quote && text[i + 2] == quote;
  };
  for (std::size_t i = 0; i < text.size();) {
    std::uint32_t code = 0;
    const std::size_t length = decode(text, i, &code);
    if (length == 0) return refuse("expected valid UTF-8");
    if (code == '\r' && i + 1 < text.size() && text[i + 1] == '\n') {
      ++i;
      continue;
    }
    if ((code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7F && code < 0xA0))
      return refuse("expected no control characters");
    if ((code & 0xFFFE) == 0xFFFE || (code >= 0xFDD0 && code <= 0xFDEF))
      return refuse("expected no Unicode non-characters");
    const bool quoted = in != In::kBare && in != In::kComment;
    if (code >= 0x80 && in == In::kBare)
      return refuse("expected non-ASCII characters only inside quotes or comments");
    const char c = code < 0x80 ? static_cast<char>(code) : 'x';
    std::size_t skip = length;
    if (in == In::kBare) {
      if (c == '#') {
        in = In::kComment;
      } else if (c == '"' || c == '\'') {
        const bool multi = three(i, c);
        in = c == '"' ? (multi ? In::kMultiBasic : In::kBasic)
                      : (multi ? In::kMultiLiteral : In::kLiteral);
        if (multi) skip = 3;
      } else if (c == '.') {
        if (++dots >= kMaxRecipeDepth) return refuse("expected at most 32 parts in a dotted key");
      } else if (c == '[' || c == '{') {
        if (++depth > kMaxRecipeDepth) return refuse("expected at most 32 levels of nesting");
        dots = 0;
      } else if (c == ']' || c == '}') {
        depth = std::max(0, depth - 1);
        dots = 0;
      } else if (c == '=' || c == ',' || c == '\n') {
        dots = 0;
      }
    } else if (quoted && c == '\\' && (in == In::kBasic || in == In::kMultiBasic)) {
      if (i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) skip = 2;
    } else if ((in == In::kBasic && c == '"') || (in == In::kLiteral && c == '\'')) {
      in = In::kBare;
    } else if ((in == In::kMultiBasic && three(i, '"')) ||
               (in == In::kMultiLiteral && three(i, '\''))) {
      skip = 3;
      // Up to two quotes may stand before the closing three: """a""""" ends after the fifth.
      while (skip < 5 && i + skip < text.size() && text[i + skip] == c) ++skip;
      in = In::kBare;
    } else if (c == '\n' && (in == In::kBasic || in == In::kLiteral)) {
      return refuse("expected a closing quote before the end of the line");
    } else if (c == '\n' && in == In::kComment) {
      in = In::kBare;
      dots = 0;
    }
    for (std::size_t k = 0; k < skip; ++k)
      if (static_cast<unsigned char>(text[i + k]) < 0x80 ||
          static_cast<unsigned char>(text[i + k]) >= 0xC0)
        ++place.column;
    i += skip;
    if (c == '\n') ++place.line, place.column = 1;
  }
  return true;
}

Place place_of(const toml::source_region& region) {
  return {static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

class Flattener {
 public:
  explicit Flattener(TomlResult* result) : result_(result) {}

  void table(const toml::table& table, std::vector<std::string>& path) {
    for (const auto& [key, node] : table) {
      path.emplace_back(key.str());
      const Place place = place_of(key.source());
      if (const toml::table* inner = node.as_table()) {
        if (inner->empty() && inner->is_inline())
          problem("expected keys in this table, got none", place);
        this->table(*inner, path);
      } else if (const toml::array* array = node.as_array();
                 array && !array->empty() && array->is_array_of_tables()) {
        for (std::size_t i = 0; i < array->size(); ++i) {
          path.push_back("#" + std::to_string(i));
          if (path.size() == 2) element_ = i;
          if ((*array)[i].as_table()->empty())
            problem("expected keys in this table, got none", place);
          this->table(*(*array)[i].as_table(), path);
          if (path.size() == 2) element_.reset();
          path.pop_back();
        }
      } else {
        RawEntry entry{path, {}, place, element_};
        if (value(node, &entry.value)) result_->entries.push_back(std::move(entry));
      }
      path.pop_back();
    }
  }

 private:
  void problem(const char* message, Place place) { result_->problems.push_back({message, place}); }

  std::optional<std::size_t> element_;  // of an array of tables at the top

  bool value(const toml::node& node, RawValue* out) {
    out->place = place_of(node.source());
    if (const auto* boolean = node.as_boolean()) {
      out->value = boolean->get();
    } else if (const auto* integer = node.as_integer()) {
      out->value = integer->get();
    } else if (const auto* floating = node.as_floating_point()) {
      out->value = floating->get();
    } else if (const auto* string = node.as_string()) {
      out->value = string->get();
    } else if (const auto* array = node.as_array()) {
      RawValue::List list;
      for (const toml::node& element : *array) {
        list.emplace_back();
        if (!value(element, &list.back())) return false;
      }
      out->value = std::move(list);
    } else {
      problem("expected a boolean, number, string or list", out->place);
      return false;
    }
    return true;
  }

  TomlResult* result_;
};

}  // namespace

TomlResult read_toml(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // some editors write one
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  TomlResult result;
  if (!guard(text, &result.problems)) return result;
  try {
    const toml::table root = toml::parse(text);
    std::vector<std::string> path;
    Flattener(&result).table(root, path);
  } catch (const toml::parse_error& error) {
    result.problems.push_back({std::string(error.description()), place_of(error.source())});
  } catch (const std::bad_alloc&) {  // no fault of the recipe
    throw;
  } catch (const std::exception& error) {
    result.problems.push_back({error.what(), {1, 1}});
  }
  const auto before = [](const auto& a, const auto& b) {
    return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
  };
  std::stable_sort(result.entries.begin(), result.entries.end(), before);
  std::stable_sort(result.problems.begin(), result.problems.end(), before);
  if (result.entries.size() > kMaxRecipeKeys) {
    result.problems.push_back({"expected at most 10,000 keys", {1, 1}});
    result.entries.clear();
  }
  return result;
}

TomlResult read_toml_value(std::string_view text) {
  if (text.find('\n') != std::string_view::npos)
    return {{}, {{"expected one value on one line", {1, 1}}}};
  TomlResult result = read_toml("v = " + std::string(text));
  if (result.problems.empty() &&
      (result.entries.size() != 1 || result.entries[0].path != std::vector<std::string>{"v"}))
    result.problems.push_back({"expected one value", {1, 1}});
  return result;
}

}  // namespace retort::tools
