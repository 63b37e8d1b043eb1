// Weights of models in files that other programs read and write: safetensors under PyTorch's names.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "nn/module.h"

namespace retort::nn {

struct WeightsInfo {
  std::string path;                             // of the file
  std::map<std::string, std::string> metadata;  // of the file
  std::vector<std::string>
      ignored;  // names known to carry nothing (num_batches_tracked), or of another head
  std::vector<std::string> drawn;  // what the file lacks and may lack: it has the values it had
};

/// Overwrites the parameters and buffers of `module` in place, with those of a safetensors file or
/// of a folder of them (nn/checkpoint/weight_files.h).
///
///   names    as PyTorch's state_dict; a leading "module." (DataParallel) and every "_orig_mod."
///            (torch.compile) are dropped; Module::file_names() are known (the head of a ResNet may
///            be "fc" or "linear", a projection "downsample" or "shortcut").
///            Module::file_rules() say what else may be there or lack: parts of another head lack
///            only if config.json beside the file is not of this very model.
///   layout   convolution weights are (K, C, R, S) in files and (K, R, S, C) in memory; what
///            file_rules() call transposed is (in, out) in files.
///   dtype    any floating type; converted to the parameter's.
///
/// Errors    Error(kBadInput) that lists all missing, unexpected and mis-shaped names at once (one
///           sentence with the cure where all of them stand behind a prefix, "model."), tied
///           weights that differ, and NaN or infinity by tensor and element. The module is
///           untouched then.
WeightsInfo load_weights(Module& module, const std::string& path);

/// The same for several modules whose weights are in one file, each under its prefix.
WeightsInfo load_weights(const TrainedModules& modules, const std::string& path);

/// Writes parameters and buffers under the model's own names, in PyTorch's layout, as a whole or
/// not at all.
void save_weights(const Module& module, const std::string& path,
                  const std::map<std::string, std::string>& metadata = {});

/// The same as folder/model.safetensors, made if it is not there, with the model's companions
/// beside it: what Hugging Face's libraries call a model, where the model has a config.json.
void save_model(const Model& model, const std::string& folder,
                const std::map<std::string, std::string>& metadata = {});

/// What save_weights writes, on the CPU.
NamedTensors weights_of(const Module& module);
NamedTensors weights_of(const TrainedModules& modules);

/// Hash of names, shapes and values of parameters and buffers (32 hex digits): which teacher is it?
std::string weights_hash(const Module& module);

}  // namespace retort::nn
