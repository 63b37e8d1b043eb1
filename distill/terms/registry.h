// Terms by the names that recipes use.
#pragma once
#include <functional>
#include <optional>

#include "distill/terms/term.h"
#include "nn/registry.h"

namespace retort::distill {

/// What a term is made from: complete options of its row, and a key for what it draws.
struct TermConfig {
  nn::Options options = {};
  std::uint64_t seed = 0;
};

/// A term that a recipe may put beside the soft targets: distill.<name>.weight > 0. One row of the
/// registry.
struct TermKind {
  std::vector<std::string> names;
  std::vector<nn::OptionSpec> options = {};  // beside "weight": distill.<name>.<key>
  std::string doc = {};                      // one sentence
  std::function<std::shared_ptr<Term>(const TermConfig&)> make = {};
  /// What of complete options does not suit a student with so many hidden layers (-1: the model's row
  /// does not say). Asked before anything starts.
  std::function<std::optional<nn::OptionFault>(const nn::Options&, std::int64_t hidden_layers)>
      check = {};
};

/// The rows; term_kinds().add(kind) from outside. See nn/registry.h.
nn::Registry<TermKind>& term_kinds();

/// The row's "weight", which every term has, and its options.
std::vector<nn::OptionSpec> options_of(const TermKind& kind);

}  // namespace retort::distill
