// Curricula of a run: who scores the samples, in what order they are fed, under which name.
#pragma once
#include <memory>
#include <string>

#include "curriculum/curriculum.h"
#include "curriculum/options.h"
#include "distill/metrics/measure.h"
#include "tools/kdtrain/data.h"

namespace retort::tools {

/// Models that may score the samples: curriculum.scorer, beside curriculum::kScorerRandom and
/// kScorerFile.
inline constexpr const char* kScorerTeacher = "teacher";
inline constexpr const char* kScorerStudent = "student";  // as it starts
inline constexpr const char* kScorerModels = "models";    // curriculum.models

/// How often the texts of a masked LM are masked to be scored, and how.
struct Maskings {
  std::int64_t count = 1;
  bool in_turn = false;  // every word is predicted once over them; else each draws its own
  std::int64_t in_turn_of() const { return in_turn ? count : 0; }  // SourceOptions::masks_in_turn
};
Maskings maskings_of(const Settings& settings);

/// What a model says about every sample of a source: one pass of measure(), or where something is
/// drawn in each epoch (the masks of a text) the mean of `maskings` of them. Of a source that masks in
/// turn the rows of all its passes together.
/// each, ranks: as of MeasureOptions.
curriculum::SampleStatistics score_samples(
    nn::Model& model, const nn::Source& source, std::int64_t batch, std::int64_t maskings = 1,
    std::function<void(const nn::Batch&, const nn::Outputs&)> each = {},
    Communicator* ranks = nullptr);

struct NamedCurriculum {
  std::string name;  // of curriculum/<name>.csv
  curriculum::Curriculum curriculum;
};

/// The curriculum that an arm's settings ask for. statistics: of whoever scores; `seed` draws a
/// random order. A file is read from where curriculum.file says.
std::shared_ptr<const NamedCurriculum> make_curriculum(
    const Settings& settings, std::string name, const curriculum::SampleStatistics& statistics,
    const nn::Dataset& data, std::int64_t seed);

/// The options that curriculum/ reads, of an arm.
nn::Options curriculum_options_of(const Settings& settings);
/// The arm's samples are fed in the order of a curriculum, or its lambda follows the scores of one.
bool has_curriculum(const Settings& settings);
/// It would be made from the teacher's scores (random: they stand beside it, unless the score is one
/// for which no model is asked), not from others.
bool is_scored_by_teacher(const Settings& settings);
/// Both.
bool wants_teacher_scores(const Settings& settings);
/// "teacher" or [[model]]s whose scores, or the mean of them, make its curriculum; empty: others do.
std::vector<std::string> scoring_models(const Settings& settings);

}  // namespace retort::tools
