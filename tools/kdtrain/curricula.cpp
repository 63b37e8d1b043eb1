#include "tools/kdtrain/curricula.h"

#include "curriculum/ordering/order_file.h"
#include "engine/io/file.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {

namespace {

curriculum::SampleStatistics statistics_of(const distill::Measurement& m, std::int64_t samples) {
  using namespace kernels;
  std::vector<std::uint8_t> correct;
  for (std::size_t i = 0; i < m.targets.size(); ++i)
    correct.push_back(m.targets[i] == m.predictions[i] ? 1 : 0);
  std::vector<std::int32_t> sample_of_row(m.sample_of_row.begin(), m.sample_of_row.end());
  const auto row = [&](RowStatistic which) {
    return std::span<const float>(m.statistics[static_cast<std::size_t>(which)]);
  };
  curriculum::RowStatistics rows;
  rows.max_logit = row(kStatTeacherMaxLogit);
  rows.log_confidence = row(kStatTeacherLogConfidence);
  rows.confidence = row(kStatTeacherConfidence);
  rows.margin = row(kStatTeacherMargin);
  rows.entropy = row(kStatTeacherEntropy);
  rows.log_p_true = row(kStatTeacherLogPTrue);
  rows.p_true = row(kStatTeacherPTrue);
  rows.correct = correct;
  rows.sample_of_row = sample_of_row;
  return curriculum::statistics_of_rows(rows, samples);
}

// Rows of another pass behind those that are there.
void append(const distill::Measurement& more, distill::Measurement* all) {
  const auto join_on = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  join_on(all->targets, more.targets);
  join_on(all->predictions, more.predictions);
  join_on(all->sample_of_row, more.sample_of_row);
  for (std::size_t k = 0; k < all->statistics.size(); ++k)
    join_on(all->statistics[k], more.statistics[k]);
}

const curriculum::ScoreKind& score_of(const Settings& settings) {
  return curriculum::score_kinds().at(settings.text("curriculum.score"));
}

}  // namespace

curriculum::SampleStatistics score_samples(
    nn::Model& model, const nn::Source& source, std::int64_t batch, std::int64_t maskings,
    std::function<void(const nn::Batch&, const nn::Outputs&)> each, Communicator* ranks) {
  const std::int64_t in_turn = source.facts().redrawn ? source.options().masks_in_turn : 0,
                     passes = in_turn > 0              ? in_turn
                              : source.facts().redrawn ? maskings
                                                       : 1;
  std::vector<curriculum::SampleStatistics> all;
  distill::Measurement together;
  for (std::int64_t k = 0; k < passes; ++k) {
    const distill::Measurement m = distill::measure(model, source,
                                                    {.batch = batch,
                                                     .epoch = static_cast<std::uint32_t>(k),
                                                     .statistics = true,
                                                     .each = each,
                                                     .ranks = ranks});
    if (in_turn > 0)
      append(m, &together);
    else
      all.push_back(statistics_of(m, source.facts().size));
  }
  // In turn, a text has as many rows as positions, and its mean is over those.
  return in_turn > 0 ? statistics_of(together, source.facts().size) : curriculum::mean_of(all);
}

Maskings maskings_of(const Settings& settings) {
  return {settings.integer("curriculum.maskings"), settings.text("curriculum.masks") == "in_turn"};
}

nn::Options curriculum_options_of(const Settings& settings) {
  return options_of(settings, "curriculum", curriculum_options());
}

bool has_curriculum(const Settings& settings) {
  return settings.text("train.order") == "curriculum" ||
         settings.text("distill.reliance.mode") != "off";
}

bool is_scored_by_teacher(const Settings& settings) {
  const std::string& scorer = settings.text("curriculum.scorer");
  return scorer != curriculum::kScorerFile && scorer != curriculum::kScorerData &&
         scorer != kScorerStudent && scorer != kScorerModels && !score_of(settings).of_data;
}

std::vector<std::string> scoring_models(const Settings& settings) {
  const bool by_models = has_curriculum(settings) &&
                         settings.text("curriculum.scorer") == kScorerModels &&
                         !score_of(settings).of_data;
  return by_models ? settings.texts("curriculum.models") : std::vector<std::string>();
}

bool wants_teacher_scores(const Settings& settings) {
  return has_curriculum(settings) && is_scored_by_teacher(settings);
}

std::shared_ptr<const NamedCurriculum> make_curriculum(
    const Settings& settings, std::string name, const curriculum::SampleStatistics& statistics,
    const nn::Dataset& data, std::int64_t seed) {
  auto made = std::make_shared<NamedCurriculum>();
  made->name = std::move(name);
  nn::Options options = curriculum_options_of(settings);
  const std::vector<std::int32_t> labels = data.labels();
  if (labels.empty()) options.set("stratify", false);  // there are no classes to take turns
  // A text that is nothing but special tokens is no mistake of the data's.
  if (data.facts().gives == nn::Reads::kTokens && settings.is_default("curriculum.nan"))
    options.set("nan", std::string(curriculum::name_of(curriculum::NanRule::kDrop)));
  if (options.text("scorer") == curriculum::kScorerFile) {
    const std::string& file = options.text("file");
    constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
    made->curriculum = curriculum::make_curriculum(
        options, curriculum::read_order_csv(read_file(file, kMostBytes), file, data.size()),
        labels);
  } else {
    curriculum::SampleStatistics own;
    const curriculum::ScoreKind& score = score_of(settings);
    if (score.of_data) own.of_data[score.name()] = data.measured(score.name());
    made->curriculum = curriculum::make_curriculum(options, score.of_data ? own : statistics,
                                                   labels, derive_key(seed, "curriculum.random"));
  }
  return made;
}

}  // namespace retort::tools
