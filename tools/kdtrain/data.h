// What a recipe's jobs train on and are judged by.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/data/registry.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

struct EvaluationSet {
  std::string name;  // the split's name in metrics.jsonl
  std::shared_ptr<const nn::Dataset> data;
};

struct ExperimentData {
  const nn::DataKind* kind = nullptr;
  std::shared_ptr<const nn::Dataset> student, teacher;  // training samples; teacher may be null
  std::vector<EvaluationSet> evaluation;                // never empty
  // Where their samples stand among all of the training files; empty: they are all of them.
  std::vector<std::int64_t> student_origin, teacher_origin;

  const nn::DataFacts& facts() const { return student->facts(); }
  /// Samples are drawn without end: there is no order, no cache, and many short jobs.
  bool endless() const { return facts().endless(); }
  std::string describe() const;
};

/// Of everything that is trained or evaluated on.
std::string hash_of(const ExperimentData& data);
/// Of two such texts: what both name is the same. (Who learns from nobody needs no teacher's part.)
bool is_same_data(const std::string& had, const std::string& has);

/// Opens everything [data] and teacher.train.files name. Errors    those of nn::open_data.
ExperimentData open_data(const Settings& settings, bool trains_teacher);

/// One file or the standard set of a split, for `kdtrain eval`.
std::shared_ptr<const nn::Dataset> open_split(const Settings& settings, const std::string& split);

/// How models of a section ("student", "teacher") read this data: its reading keys.
nn::Reading reading_of(const Settings& settings, const std::string& section,
                       const nn::DataKind& kind, DType dtype);
/// The same in a weights file's metadata, and back: keys that the recipe sets itself stay.
/// Errors    kBadInput for text that is no value of the key.
std::map<std::string, std::string> metadata_of(const nn::Reading& reading, const nn::DataKind& kind,
                                               const nn::DataFacts& data);
void take_metadata(const std::map<std::string, std::string>& metadata, const Settings& settings,
                   const std::string& section, const nn::DataKind& kind, nn::Reading* reading);

/// Samples for evaluation and scoring: as they are stored, read in these ways.
std::shared_ptr<const nn::Source> plain_source(const nn::Dataset& data, Device device,
                                               std::vector<nn::Reading> readings,
                                               std::int64_t masks_in_turn = 0);

}  // namespace retort::tools
