// What models, data, losses and curricula offer to recipes. Each of these functions is the one
// place that reads its registry for the table of keys.
#include <algorithm>

#include "curriculum/options.h"
#include "curriculum/schedules/reliance.h"
#include "distill/terms/registry.h"
#include "kernels/common/check.h"
#include "kernels/distill_loss/distill_loss.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"
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

std::string divergences() {
  nn::Strings names;
  for (int i = 0; i < kernels::kDivergences; ++i)
    names.emplace_back(kernels::name_of(static_cast<kernels::Divergence>(i)));
  return joined(names);
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
  return curriculum::curriculum_options({kScorerTeacher, kScorerStudent});
}

std::vector<KeySpec> reliance_options() { return curriculum::reliance_options(); }

}  // namespace retort::tools
