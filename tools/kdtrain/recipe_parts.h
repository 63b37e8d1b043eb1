// What the files of the recipe reader share: recipe_value.cpp, recipe_parser.cpp,
// recipe_checks.cpp.
#pragma once
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// Text of a file shown in a message: control characters replaced, at most 80 characters.
std::string shown(std::string_view text);

/// "string "abc"", "a list of 3", ...: a value in a message.
std::string describe(const RawValue& raw);

/// What names of arms, recipes and curricula may hold: they become names of files.
bool valid_name(std::string_view name);
inline constexpr const char* kNameRule = "a name of letters, digits, '_', '-', '.' (at most 64)";

/// Checks a raw value against its line of the schema. Returns "" and the value, or what is wrong.
std::string convert(const KeySpec& spec, const RawValue& raw, Value* out);

/// What no single line of the schema can say, of a recipe that is valid line by line: adds to the
/// problems. The place is that of the key that decides.
void check_together(RecipeResult* result);

}  // namespace retort::tools
