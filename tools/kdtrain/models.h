// From the keys of a section to a model: built, found, loaded.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distill/teacher/teacher.h"
#include "nn/checkpoint/weights.h"
#include "nn/models/registry.h"
#include "tools/kdtrain/data.h"

namespace retort::tools {

/// A 64-bit key for one purpose of one seed: a teacher and a student with the same seed must not
/// draw the same numbers.
std::uint64_t derive_key(std::int64_t seed, const char* purpose);

/// The model that a section ("student", "teacher") describes, for this data.
nn::ModelConfig config_of(const Settings& settings, const std::string& section,
                          const nn::DataFacts& data, std::uint64_t key);
std::shared_ptr<nn::Model> build_model(const Settings& settings, const std::string& section,
                                       const nn::DataFacts& data, std::uint64_t key);
/// Its hidden layers, known without building it.
std::int64_t hidden_layers(const Settings& settings, const std::string& section,
                           const nn::DataFacts& data);

/// Begins with layers of another model: student.init_layers of the settings, or those that the models
/// have in common. Error(kUsage), before a value changes, where a shape or a name differs.
void start_from_layers(nn::Model& student, const nn::Model& source, const Settings& settings);

/// Weights by name, a file or a folder of them: as given, in data.root, in RETORT_DATA. Throws
/// Error(kIo) naming all.
std::string find_weights(const Settings& settings, const std::string& name);

/// The folder of Hugging Face's make that a section's weights are in, with its config.json: of
/// student.weights; teacher.weights, else teacher.train.weights. "" if they are nothing of the kind.
std::string model_folder(const Settings& settings, const std::string& section);

/// Error(kBadInput) naming the first id that stands for another word with the data, or with the
/// folder of a section's weights, than with the others.
void check_vocabularies(const Settings& settings, const std::vector<std::string>& sections,
                        const nn::Dataset& data);

/// Puts the files that say what ids mean beside a model that was trained: those of its own folder,
/// else of the teacher's or the student's, else data.tokenizer or data.vocab.
void copy_vocabulary(const Settings& settings, const std::string& section,
                     const std::string& folder);

/// "drawn anew, as FILE lacks them: a, b"; "" if it lacks nothing.
std::string told_of_drawn(const nn::WeightsInfo& info);

/// "f32" or "bf16", the value of a key such as train.precision: dtype of inputs and activations.
DType precision_of(const Settings& settings, const std::string& key);

}  // namespace retort::tools
