// What the files of the table of keys share: schema.cpp, schema_keys.cpp, schema_offers.cpp.
#pragma once
#include "tools/kdtrain/schema.h"

namespace retort::tools {

/// The table, put together from the program's own rows and those of the registries.
std::vector<KeySpec> make_schema();

// What the rooms offer to recipes by name; see schema_offers.cpp.

/// Rows of "data.", of all formats: what the data is, what training does to it, how it is read.
std::vector<KeySpec> data_options();
std::vector<KeySpec> treatment_options();
std::vector<KeySpec> reading_options();
/// Rows of "student." and "teacher.", of all architectures.
std::vector<KeySpec> model_options();
/// Rows of "curriculum." and "distill.reliance.".
std::vector<KeySpec> curriculum_options();
std::vector<KeySpec> reliance_options();
/// Rows of "distill.": "<term>.<option>" of every term of the loss beside the divergence.
std::vector<KeySpec> term_options();

/// "divergence" and "parameter" of "distill.".
std::vector<KeySpec> divergence_options();

/// Names, as choices: "a|b|c".
std::string architectures();
std::string data_formats();
std::string schedules();
std::string projection_variants();

}  // namespace retort::tools
