// What the tests of recipes share.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

inline RecipeResult parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_recipe("r.toml", text, overrides);
}
inline constexpr const char* kSmall = "train.epochs = 3\nteacher.train.epochs = 2\n";

inline bool mentions(const RecipeResult& result, const std::string& text) {
  return std::any_of(result.problems.begin(), result.problems.end(), [&](const RecipeProblem& p) {
    return (p.message + " " + p.hint).find(text) != std::string::npos;
  });
}

// A model and data from outside, as a loaded library would add them: before the table is made.
inline const bool registered = [] {
  nn::ModelKind model;
  model.names = {"reader"};
  model.reads = nn::Reads::kTokens;
  model.options = {
      nn::count_option("heads", 4, 1, 64, "", "Attention heads.").with(nn::kChangesCost),
      nn::choice_option("shortcut", "auto", "auto|C", "Not the first sentence.")};
  model.check = [](const nn::Options& options) -> std::optional<nn::OptionFault> {
    if (options.integer("heads") % 2 == 0) return std::nullopt;
    return nn::OptionFault{"heads", "expected an even number"};
  };
  model.hidden_layers = [](const nn::ModelConfig&) { return std::int64_t{0}; };
  nn::model_kinds().add(model);
  nn::DataKind data;
  data.names = {"letters"};
  data.gives = nn::Reads::kTokens;
  data.options = {nn::count_option("length", 128, 1, 512, "tokens", "Longest text.").not_in_arm()};
  data.treatment = {nn::number_option("masked", 0.15, 0, 1, "fraction", "Tokens to guess.")};
  nn::data_kinds().add(data);
  return true;
}();

}  // namespace retort::tools
