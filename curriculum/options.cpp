#include "curriculum/options.h"

#include <algorithm>

#include "curriculum/names.h"
#include "kernels/common/check.h"

namespace retort::curriculum {
namespace {

const ScoreKind& score_of(const nn::Options& options) {
  return score_kinds().at(options.text("score"));
}

Curriculum scored(const nn::Options& options, CleanScores clean,
                  std::span<const std::uint8_t> correct) {
  Curriculum c;
  c.confidence = confidence_of(score_of(options), clean.scores, confidence_options_of(options),
                               clean.excluded);
  c.scores = std::move(clean.scores);
  c.excluded = std::move(clean.excluded);
  c.unscored = clean.bad;
  c.correct.assign(correct.begin(), correct.end());
  if (!clean.warning.empty()) c.warnings.push_back(std::move(clean.warning));
  return c;
}

Curriculum ordered(const nn::Options& options, CleanScores clean, OrderKind order,
                   std::span<const std::uint8_t> correct, std::span<const std::int32_t> labels,
                   std::uint64_t seed) {
  const ScoreKind& kind = score_of(options);
  const std::vector<std::int64_t> kept = std::move(clean.kept);
  Curriculum c = scored(options, std::move(clean), correct);
  c.order = make_order(easiness_of(kind, c.scores), correct, labels,
                       {.kind = order,
                        .keys = default_keys(kind, !correct.empty()),
                        .stratify = options.flag("stratify"),
                        .seed = seed},
                       kept);
  c.csv = order_csv(c.order, labels, c.scores, correct);
  return c;
}

void check_labels(const OrderFile& file, std::span<const std::int32_t> labels) {
  if (file.labels.empty() || labels.empty()) return;
  for (const std::int64_t i : file.order.indices) {
    const auto k = static_cast<std::size_t>(i);
    RETORT_CHECK_AS(kBadInput, file.labels[k] == labels[k], "[curriculum] sample ", i,
                    " has label ", file.labels[k], " in curriculum.file and ", labels[k],
                    " in the data: expected a file made for these samples");
  }
}

}  // namespace

std::vector<nn::OptionSpec> curriculum_options(const nn::Strings& models) {
  using namespace nn;
  RETORT_CHECK(!models.empty(), "[curriculum] expected at least one model that scores");
  Strings scorers = models;
  scorers.insert(scorers.end(), {kScorerRandom, kScorerFile, kScorerData});
  std::vector<OptionSpec> list{
      text_option("name", "", "Name of curriculum/<name>.csv; empty: made from the settings.")
          .without(kChangesResult),
      choice_option("scorer", models.front(), joined(scorers, "|"), "Who scores the samples.")
          .with(kChangesOrder),
      choice_option("score", score_kinds().names().front(), joined(score_kinds().names(), "|"),
                    "The score of a sample.")
          .with(kChangesOrder),
      choice_option("inverse", inverse_names().front(), joined(inverse_names(), "|"),
                    "Hard samples first: the exact reverse, or the correct ones reversed and the "
                    "wrong ones still last.")
          .with(kChangesOrder),
      flag_option("stratify", true, "Classes in turn, by their shares.").with(kChangesOrder),
      text_option("file", "",
                  "The curriculum file of scorer = \"file\": one that a run or 'kdtrain score' "
                  "wrote, fed as it stands, or lines of index,score.")
          .with(kChangesOrder)};
  for (OptionSpec& spec : confidence_options()) list.push_back(std::move(spec));
  for (OptionSpec& spec : nan_options()) list.push_back(std::move(spec));
  list.push_back(choice_option("pacing", pacing_kinds().names().front(),
                               joined(pacing_kinds().names(), "|"),
                               "How the share of data in use grows."));
  for (OptionSpec& spec : pacing_options()) list.push_back(std::move(spec));
  return list;
}

std::vector<Mistake> curriculum_mistakes(const nn::Options& options) {
  std::vector<Mistake> mistakes;
  const auto add = [&](Mistake mistake) {
    if (!mistake.message.empty()) mistakes.push_back(std::move(mistake));
  };
  const bool from_file = options.text("scorer") == kScorerFile;
  if (from_file == options.text("file").empty())
    add({"file", from_file ? "expected a curriculum file for scorer = \"file\""
                           : "read by scorer = \"file\" only, got scorer = \"" +
                                 options.text("scorer") + "\""});
  const bool of_data = options.text("scorer") == kScorerData;
  if (!from_file && of_data != score_of(options).of_data)
    add({"scorer", of_data
                       ? "\"data\" needs a score that no model is asked for, such as text_length"
                       : "no model is asked for " + options.text("score") +
                             ": expected scorer = \"" + kScorerData + "\""});
  add(nan_mistake(options));
  const PacingKind& pacing = pacing_kinds().at(options.text("pacing"));
  if (pacing.check) add(pacing.check(options));
  return mistakes;
}

Pacing pacing_of(const nn::Options& options, std::int64_t total_steps) {
  nn::Options own;
  for (const nn::OptionSpec& spec : pacing_kinds().at(options.text("pacing")).options)
    own.set(spec.key, options.value(spec.key));
  return Pacing(options.text("pacing"), own, total_steps);
}

Curriculum make_curriculum(const nn::Options& options, const SampleStatistics& statistics,
                           std::span<const std::int32_t> labels, std::uint64_t seed) {
  const bool random = options.text("scorer") == kScorerRandom;
  const OrderKind order = random ? OrderKind::kRandom : parse_inverse(options.text("inverse"));
  const std::vector<float> scores = scores_of(statistics, score_of(options));
  Curriculum c = ordered(options, clean_scores(scores, nan_policy_of(options), statistics.scored),
                         order, statistics.correct, labels, seed);
  const auto right = std::count(c.correct.begin(), c.correct.end(), 1);
  if (right > 0 && right == static_cast<std::ptrdiff_t>(scores.size()))
    c.warnings.push_back(
        join("the teacher is right on all ", right, " samples it scores: did it train on them?"));
  return c;
}

Curriculum make_curriculum(const nn::Options& options, const OrderFile& file,
                           std::span<const std::int32_t> labels) {
  const NanPolicy policy = nan_policy_of(options);
  CleanScores clean = clean_scores(file.scores, policy);
  const OrderKind inverse = parse_inverse(options.text("inverse"));
  if (!file.ranked) return ordered(options, std::move(clean), inverse, file.correct, labels, 0);
  RETORT_CHECK(inverse == OrderKind::kCurriculum,
               "[curriculum] a file with ranks is fed as it stands: expected inverse = \"",
               inverse_names().front(), "\", got \"", options.text("inverse"), "\"");
  RETORT_CHECK(clean.bad == 0 || policy.rule == NanRule::kDrop, "[curriculum] ", clean.bad,
               " samples have no rank in curriculum.file: expected nan = \"",
               name_of(NanRule::kDrop), "\", got \"", name_of(policy.rule), "\"");
  check_labels(file, labels);
  Curriculum c = scored(options, std::move(clean), file.correct);
  c.order = file.order;
  c.csv = order_csv(c.order, labels.empty() ? file.labels : labels, c.scores, c.correct);
  return c;
}

}  // namespace retort::curriculum
