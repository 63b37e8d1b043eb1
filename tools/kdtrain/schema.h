// The one table of recipe keys. Parser, validation, recipe.resolved.toml, `kdtrain schema` and the
// help all read it. A key of the program itself is one line in schema_keys.cpp; a key of a model,
// of data, of a loss term or of a curriculum is an option of that one's row in its registry.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "nn/options.h"

namespace retort::tools {

using KeySpec = nn::OptionSpec;
using Type = nn::OptionType;
using Value = nn::OptionValue;
using nn::expectation;
using nn::nearest_word;
using nn::split;
using nn::to_toml;

/// All keys, grouped by section in the order of the documentation. Made on first use from the rows
/// that the registries hold then: whoever loads a library with rows of its own does it before.
/// Errors    kUsage, on first use, if two rows give one key different types, or two kinds of rows
///           give the same key.
const std::vector<KeySpec>& schema();

/// The key's line of the table, or null.
const KeySpec* find_key(std::string_view key);

/// The nearest key by Damerau-Levenshtein distance (at most 2, or a third of the length), "" if
/// none; a key with the same last part in another table counts as near.
std::string nearest_key(std::string_view key);

/// `kdtrain schema`: the whole table as text or JSON. section = "" for everything.
std::string schema_as_text(std::string_view section);
std::string schema_as_json(std::string_view section);

}  // namespace retort::tools
