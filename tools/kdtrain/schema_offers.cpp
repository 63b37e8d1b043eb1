// What models, data, losses and curricula offer to recipes. Each of these functions is the one
// place that reads its registry for the table of keys.
#include <algorithm>

#include "curriculum/options.h"
#include "curriculum/schedules/reliance.h"
#include "distill/losses/divergence.h"
#include "distill/terms/projection_target.h"
#include "distill/terms/registry.h"
#include "kernels/common/check.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/curricula.h"
#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {
namespace {

std::string joined(const nn::Strings& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : "|") + word;
  return all;
}

// One row that accepts what either accepts; the first one's fallback and sentence.
void widen(KeySpec* row, const KeySpec& other) {
  RETORT_CHECK(row->type == other.type, "[schema] two rows of one registry give the option '",
               row->key, "' different types: ", expectation(*row), "; ", expectation(other));
  nn::Strings words = split(row->choices, '|');
  for (std::string& word : split(other.choices, '|'))
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  row->choices = joined(words);
  row->least = std::min(row->least, other.least);
  row->most = std::max(row->most, other.most);
  row->may_be_empty |= other.may_be_empty;
  row->in_arm &= other.in_arm;
  row->effects |= other.effects;
}

// The options of all rows of a registry, each key once.
template <class Kind>
std::vector<KeySpec> options_of_all(const nn::Registry<Kind>& kinds,
                                    std::vector<KeySpec> Kind::*options) {
  std::vector<KeySpec> all;
  for (const auto& kind : kinds.rows())
    for (const KeySpec& spec : (*kind).*options) {
      const auto same = std::find_if(all.begin(), all.end(),
                                     [&](const KeySpec& row) { return row.key == spec.key; });
      if (same == all.end())
        all.push_back(spec);
      else
        widen(&*same, spec);
    }
  return all;
}

}  // namespace

std::vector<KeySpec> data_options() {
  return options_of_all(nn::data_kinds(), &nn::DataKind::options);
}
std::vector<KeySpec> treatment_options() {
  return options_of_all(nn::data_kinds(), &nn::DataKind::treatment);
}
std::vector<KeySpec> reading_options() {
  return options_of_all(nn::data_kinds(), &nn::DataKind::reading);
}
std::vector<KeySpec> model_options() {
  return options_of_all(nn::model_kinds(), &nn::ModelKind::options);
}
std::string architectures() { return joined(nn::model_kinds().names()); }
std::string data_formats() { return joined(nn::data_kinds().names()); }

std::string schedules() { return joined(nn::schedule_names()); }

std::string projection_variants() {
  nn::Strings names;
  for (const auto variant : distill::kProjectionVariants) names.push_back(name_of(variant));
  return joined(names);
}

std::vector<KeySpec> divergence_options() {
  std::string doc = "D(p, q) between the teacher's p and the student's q";
  double most = 1;
  bool first = true;
  for (const auto& kind : distill::divergence_kinds().rows()) {
    doc += (first ? ": " : "; ") + kind->describe();
    first = false;
    if (kind->facts().role != nullptr) most = std::max(most, kind->facts().most);
  }
  return {nn::choice_option("divergence", "forward_kl", joined(distill::divergence_kinds().names()),
                            doc + ".")
              .with(nn::kChangesCost),
          nn::number_option("parameter", -1, -1, most, "",
                            "k of the divergence, in its range; -1: its default."),
          nn::count_option("tau_power", -1, -1, 2, "",
                           "Power n of the temperature in tau^n D(p, q); -1: the divergence's own, "
                           "2 unless it says otherwise.")};
}

std::vector<KeySpec> term_options() {
  std::vector<KeySpec> all;
  for (const auto& kind : distill::term_kinds().rows())
    for (KeySpec& spec : distill::options_of(*kind)) {
      spec.key = kind->names.front() + "." + spec.key;
      all.push_back(std::move(spec));
    }
  return all;
}

std::vector<KeySpec> curriculum_options() {
  return curriculum::curriculum_options({kScorerTeacher, kScorerStudent, kScorerModels});
}

std::vector<KeySpec> reliance_options() { return curriculum::reliance_options(); }

}  // namespace retort::tools
