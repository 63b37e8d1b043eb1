// From the keys of a section to a model: built, found, loaded.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "distill/teacher/teacher.h"
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

/// A weights file by name: as given, in data.root, in RETORT_DATA. Throws Error(kIo) naming all.
std::string find_weights(const Settings& settings, const std::string& name);

/// "f32" or "bf16", the value of a key such as train.precision: dtype of inputs and activations.
DType precision_of(const Settings& settings, const std::string& key);

}  // namespace retort::tools
