// Pacing functions: how much of the ordered data a step may draw from.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "curriculum/names.h"
#include "nn/registry.h"

namespace retort::curriculum {

/// A pacing function g: one row of the registry. Functions get complete options.
struct PacingKind {
  std::vector<std::string> names;
  std::vector<nn::OptionSpec> options = {};  // curriculum.<key>
  std::string doc = {};                      // the formula
  bool of_run = false;                       // reads total_steps, which must be >= 1 then
  /// g(i) in (0, 1] at step i >= 0. Null: no pacing, batches come as the order is fed.
  std::function<double(const nn::Options&, std::int64_t step, std::int64_t total_steps)> fraction =
      {};
  /// What is wrong with values that are each in range. Null: nothing ever is.
  std::function<Mistake(const nn::Options&)> check = {};
};

/// The rows; pacing_kinds().add(kind) from outside. See nn/registry.h. Their formulas, with i the
/// step from 0, T the steps of the run, s0, b and c0 options' "start", inc "increase", a "full_at":
/// in the rows of pacing.cpp.
///
/// Source    Hacohen, Weinshall 2019, arXiv:1904.03626 (exponentials, single step); Wu, Dyer,
///           Neyshabur 2021, arXiv:2012.03107 (the six of t = i / (a T)); Platanios et al. 2019,
///           arXiv:1903.09848 (competence).
nn::Registry<PacingKind>& pacing_kinds();

/// What the rows read, each key once. Rows that share a key share its spec: start_option(), say.
/// Errors    kUsage for a key that two rows want with another type, fallback or range.
std::vector<nn::OptionSpec> pacing_options();

nn::OptionSpec start_option();         // share of the data at step 0
nn::OptionSpec increase_option();      // factor of the exponentials
nn::OptionSpec pacing_steps_option();  // lengths between increases
nn::OptionSpec full_at_option();       // share of the run after which all data is in use

/// A pacing function with its options.
class Pacing {
 public:
  Pacing() = default;  // no pacing
  /// Errors    kUsage for an unknown name, an option that the row does not read, a value out of
  ///           range, or total_steps < 1 where the row needs it.
  explicit Pacing(const std::string& name, const nn::Options& options = {},
                  std::int64_t total_steps = 0);

  /// False: all data is in use from the first step, and the order is fed as it is.
  bool paces() const { return kind_ != nullptr && kind_->fraction != nullptr; }
  /// g(i) in (0, 1]. Errors    kUsage for a step < 0; kNumerics for a g outside (0, 1].
  double fraction(std::int64_t step) const;
  /// Samples of the order in use: ceil(g(i) n), at least `at_least` (a batch) and at most n.
  std::int64_t prefix_size(std::int64_t step, std::int64_t n, std::int64_t at_least = 1) const;

 private:
  const PacingKind* kind_ = nullptr;
  nn::Options options_;
  std::int64_t total_steps_ = 0;
};

}  // namespace retort::curriculum
