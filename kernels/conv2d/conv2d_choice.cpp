#include "kernels/conv2d/conv2d_choice.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>

namespace retort::kernels {

bool Conv2dProblem::operator<(const Conv2dProblem& o) const {
  const auto key = [](const Conv2dProblem& p) {
    const Conv2dShape& s = p.shape;
    return std::tuple(p.pass, s.batch, s.height, s.width, s.channels, s.filters, s.filter_height,
                      s.filter_width, s.stride, s.padding, p.dtype, p.weight_dtype, p.tf32,
                      p.aligned, p.extra);
  };
  return key(*this) < key(o);
}

void Conv2dChoices::open(const std::string& environment) {
  const std::lock_guard lock(mutex_);
  std::string name = environment.substr(0, 500);
  for (char& c : name)
    if (c < ' ' || c > '~') c = '?';
  if (name == environment_) return;
  environment_ = name;
  measured_.clear();
  if (folder_.empty()) return;
  for (Conv2dChoiceFile& file : read_conv2d_cache(folder_, &notes_))
    if (file.environment == environment_) measured_.merge(file.choices);
}

std::optional<Conv2dChoice> Conv2dChoices::find(const Conv2dProblem& problem) {
  const std::lock_guard lock(mutex_);
  for (const Conv2dChoiceMap* map : {&pinned_, &measured_})
    if (const auto found = map->find(problem); found != map->end()) {
      used_[problem] = found->second;
      return found->second;
    }
  return std::nullopt;
}

void Conv2dChoices::add(const Conv2dProblem& problem, const Conv2dChoice& choice) {
  const std::lock_guard lock(mutex_);
  // A pinned choice that could not be kept must not come back.
  pinned_.erase(problem);
  measured_[problem] = used_[problem] = choice;
  if (!folder_.empty()) write_file();
}

std::string Conv2dChoices::used() const {
  const std::lock_guard lock(mutex_);
  return used_.empty() ? "" : write_conv2d_choices({environment_, used_});
}

void Conv2dChoices::pin(const std::string& text) {
  Conv2dChoiceFile file = parse_conv2d_choices(text);
  const std::lock_guard lock(mutex_);
  pinned_ = std::move(file.choices);
  ++generation_;
}

void Conv2dChoices::note(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  if (notes_.size() < 64) notes_.push_back(sentence);
}

std::vector<std::string> Conv2dChoices::notes() const {
  const std::lock_guard lock(mutex_);
  return notes_;
}

Conv2dChoices& conv2d_choices() {
  static auto* const choices = new Conv2dChoices(conv2d_cache_folder());  // outlives the plug-in
  return *choices;
}

bool conv2d_results_agree(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i + 1 < a.size(); i += 2) {
    // Rounding to bf16 moves a value by 2^-9 of itself; sums that cancel move by a little of the
    // magnitudes that went into them, which the output does not show: hence the generous share.
    const double size = std::max(std::abs(double{a[i + 1]}), std::abs(double{b[i + 1]}));
    if (!(std::abs(double{a[i]} - double{b[i]}) <= 0.02 * size + 1e-30)) return false;
    if (!(std::abs(double{a[i + 1]} - double{b[i + 1]}) <= 0.02 * size + 1e-30)) return false;
  }
  return true;
}

namespace {

std::string name_of(const Conv2dChoice& c) {
  return c.provider == "cudnn" ? join("cudnn:", c.algorithm) : c.provider;
}

}  // namespace

std::size_t choose_conv2d(const Conv2dProblem& problem, std::span<const Conv2dCandidate> candidates,
                          Conv2dChoices& choices, const Conv2dBench* bench) {
  RETORT_CHECK(!candidates.empty(), "[conv2d] expected at least one candidate, got none");
  const Conv2dShape& s = problem.shape;
  const std::string what =
      join("[conv2d] ", s.batch, "x", s.height, "x", s.width, "x", s.channels, " by ", s.filters,
           " filters ", s.filter_height, "x", s.filter_width, ": ");
  if (const auto known = choices.find(problem)) {
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (candidates[i].choice.same_as(*known)) return i;
    choices.note(what + name_of(*known) + ", chosen before, is not there now; measured again");
  }
  if (bench == nullptr) return 0;
  std::size_t best = 0;
  double best_time = -1;
  std::vector<float> reference;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const double microseconds = bench->time(candidates[i].run);
    if (microseconds < 0) {
      RETORT_CHECK(i != 0, what, "the hand-written kernel refused to run");
      continue;
    }
    std::vector<float> result = bench->fingerprint();
    if (i == 0) {
      reference = std::move(result);
      if (!conv2d_results_agree(reference, reference)) {  // a diverged run must not decide
        choices.note(what + "the result holds no numbers; nothing was chosen");
        return 0;
      }
    } else if (!conv2d_results_agree(result, reference)) {
      choices.note(what + name_of(candidates[i].choice) + " gives other numbers; not used");
      continue;
    }
    if (best_time < 0 || microseconds < best_time) best = i, best_time = microseconds;
  }
  Conv2dChoice chosen = candidates[best].choice;
  chosen.microseconds = best_time;
  choices.add(problem, chosen);
  return best;
}

}  // namespace retort::kernels
