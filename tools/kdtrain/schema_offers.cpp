// What models, data, losses and curricula offer to recipes. Each of these functions is the one
// place that reads its registry for the table of keys.
#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/distill_loss/distill_loss.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {
namespace {

using nn::kChangesOrder;

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

std::vector<KeySpec> term_options() { return {}; }

std::vector<KeySpec> curriculum_options() {
  using namespace nn;
  return {
      choice_option("scorer", "teacher", "teacher|student|file|random",
                    "Who scores the samples: the teacher, the student as it starts, a file; "
                    "random: nobody.")
          .with(kChangesOrder),
      text_option("file", "", "Scores or order of scorer = \"file\": what `kdtrain score` writes.")
          .with(kChangesOrder),
      choice_option("score", "logit", "logit|prob|logprob|p_true|margin|entropy|loss",
                    "The teacher's score of a sample.")
          .with(kChangesOrder),
      choice_option("inverse", "off", "off|reverse_exact|reverse_correct_only",
                    "Hard samples first: the exact reverse, or the correct ones reversed and the "
                    "wrong ones still last.")
          .with(kChangesOrder),
      flag_option("stratify", true, "Round-robin over classes.").with(kChangesOrder),
      choice_option("nan", "refuse", "refuse|drop|sentinel|quantile",
                    "Samples whose score is not finite: an error, left out, given the score "
                    "nan_value, or the quantile nan_value of the finite scores.")
          .with(kChangesOrder),
      number_option("nan_value", 0, -1e9, 1e9, "", "See nan.").with(kChangesOrder),
      choice_option("pacing", "none",
                    "none|fixed_exponential|varied_exponential|single_step|linear|quadratic|root|"
                    "exp|log|step|competence",
                    "How the share of data in use grows."),
      number_option("start", 0.2, 1e-6, 1, "fraction", "Share of the data at the start of pacing."),
      number_option("increase", 1.9, 1, 1e6, "factor",
                    "Growth at each step of exponential pacing."),
      ints_option("pacing_steps", {100}, 1, 1e9, "steps",
                  "Steps between increases (varied_exponential: a list)."),
      number_option("full_at", 0.5, 1e-6, 1, "fraction of the run",
                    "When the other pacing functions reach all data.")};
}

std::vector<KeySpec> reliance_options() {
  using namespace nn;
  return {choice_option("mode", "off", "off|minmax|rank|literal",
                        "Selective reliance: lambda of a batch from the teacher's scores; off: "
                        "distill.lambda."),
          choice_option("s", "global_easiest", "first_batch|global_easiest",
                        "literal: batch whose lambda is 0."),
          flag_option("clamp", true, "Clamp lambda to [0, 1]."),
          choice_option("per", "batch", "batch|sample",
                        "One lambda for a batch, or one for each sample.")};
}

}  // namespace retort::tools
