// Names of enumerators: one table for what is parsed, printed and offered as a choice.
#pragma once
#include <cstddef>
#include <string>

#include "kernels/common/check.h"
#include "nn/options.h"

namespace retort::curriculum {

template <class Enum>
struct Named {
  Enum value;
  const char* name;
};

/// "a|b|c" or "a, b, c".
inline std::string joined(const nn::Strings& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

template <class Enum, std::size_t N>
nn::Strings names_in(const Named<Enum> (&table)[N]) {
  nn::Strings names;
  for (const Named<Enum>& row : table) names.push_back(row.name);
  return names;
}

template <class Enum, std::size_t N>
const char* name_in(const Named<Enum> (&table)[N], Enum value) {
  for (const Named<Enum>& row : table)
    if (row.value == value) return row.name;
  return "?";
}

/// Errors    kUsage, beginning with [who], that lists the names.
template <class Enum, std::size_t N>
Enum parse_in(const Named<Enum> (&table)[N], const char* who, const std::string& text) {
  for (const Named<Enum>& row : table)
    if (text == row.name) return row.value;
  fail(ErrorCode::kUsage, "[", who, "] expected one of ", joined(names_in(table), ", "), "; got '",
       text, "'");
}

/// What is wrong with the value of an option; without a message, nothing is.
struct Mistake {
  std::string key = {}, message = {};
};

}  // namespace retort::curriculum
