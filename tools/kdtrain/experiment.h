// What a recipe's jobs share: data, teachers, curricula.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "curriculum/curriculum.h"
#include "distill/metrics/evaluation.h"
#include "distill/teacher/teacher.h"
#include "nn/data/dataset.h"
#include "nn/module.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {

struct EvaluationSet {
  std::string name;  // the split's name in metrics.jsonl
  std::shared_ptr<const nn::Dataset> data;
};

struct ExperimentData {
  bool parity = false;
  std::int64_t classes = 0;
  std::shared_ptr<const nn::Dataset> student, teacher;  // training samples; null for parity
  std::vector<EvaluationSet> evaluation;                // never empty
  std::vector<std::int64_t> support;                    // parity
  std::string description;
};

/// Of everything that is trained or evaluated on.
std::string hash_of(const ExperimentData& data);

/// Opens everything [data] and teacher.train.files name.
ExperimentData open_data(const Settings& settings, bool trains_teacher);

/// One file or the standard set of a split, for `kdtrain eval`.
std::shared_ptr<const nn::Dataset> open_split(const Settings& settings, const std::string& split);

/// Parity: samples without end, drawn from (key, index).
std::shared_ptr<const nn::Dataset> parity_stream(const Settings& settings, std::uint64_t key);

/// A 64-bit key for one purpose of one seed: a teacher and a student with the same seed must not
/// draw the same numbers.
std::uint64_t derive_key(std::int64_t seed, const char* purpose);

/// The model of section "teacher" or "student". `who` goes into messages.
std::shared_ptr<nn::Model> build_model(const Settings& settings, const std::string& section,
                                       const ExperimentData& data, std::uint64_t key);

nn::Normalize normalize_of(const Value& value);
/// From the text of a weights file's metadata: "cifar", "[[...], [...]]".
nn::Normalize normalize_of_text(const std::string& text);

/// A weights file by name: as given, in data.root, in RETORT_DATA. Throws Error(kIo) naming all.
std::string find_weights(const Settings& settings, const std::string& name);

struct EvaluationRequest {
  Device device = Device::kCpu;
  DType dtype = DType::kF32;  // of inputs and activations
  std::int64_t batch = 500;
  nn::Normalize normalize;
  const std::vector<Tensor>* teacher_logits = nullptr;  // by batch, as evaluate() returned them
  std::vector<Tensor>* logits = nullptr;                // filled, by batch
};
/// One pass in evaluation mode, in data order, nothing augmented. The mode is restored.
distill::EvaluationResult evaluate(nn::Model& model, const nn::Dataset& data,
                                   const EvaluationRequest& request);

/// A teacher and what was found out about it once.
struct TeacherSet {
  std::int64_t seed = 0;
  std::shared_ptr<distill::Teacher> final, untrained;
  std::map<double, std::shared_ptr<distill::Teacher>> snapshots;  // by accuracy first exceeded
  nn::Normalize normalize;
  DType dtype = DType::kF32;
  std::vector<std::string> problems;  // of `final`, which teacher.allow_untrained accepted
  std::vector<std::vector<Tensor>> evaluation_logits;  // of `final`: [set][batch]
  std::vector<distill::EvaluationResult> evaluation;   // [set]
  curriculum::SampleStatistics statistics;             // of the student's training samples
};

/// Asks the teacher about every training sample of the students; fills `statistics`.
void score_samples(TeacherSet* teacher, const nn::Dataset& data, Device device, std::int64_t batch);

struct Curriculum {
  std::string name;
  curriculum::Order order;
  std::vector<float> scores, confidence;
  std::vector<std::uint8_t> correct;
  std::vector<std::string> warnings;
  std::string csv;
};
/// The same with the teacher's seed, where there are several.
std::string curriculum_name(const Settings& settings, const TeacherSet& teacher,
                            bool several_teachers);
std::shared_ptr<const Curriculum> make_curriculum(const Settings& settings, std::string name,
                                                  const TeacherSet& teacher,
                                                  const nn::Dataset& data);

}  // namespace retort::tools
