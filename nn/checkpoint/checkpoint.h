// Checkpoints of training: a crash at any moment leaves one that can be resumed.
//
// Note [Checkpoint protocol]
//   FOLDER/ckpt-<step>/ holds one *.safetensors per group of tensors, state.json and MANIFEST.json
//   (bytes and XXH3-128 of each other file and of each tensor). It is written as
//   FOLDER/.tmp-<step>-<pid>: every file fsynced, the manifest last, then the folder; then renamed,
//   and FOLDER fsynced. Only when the new one was read back and verified are the oldest beyond
//   `keep` removed. Readers trust no pointer: they take the newest whose manifest verifies. One
//   writer per folder at a time; the caller locks. Where one of the same step is replaced and the
//   file system cannot exchange two names, the old one becomes ckpt-<step>.old first, which readers
//   know too.
//
//   Logs that only grow (engine/io/append_log.h) stay in FOLDER; the manifest holds how far they
//   went. Files of FOLDER that are written once have a manifest of their own
//   (engine/io/manifest.h).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "engine/io/manifest.h"
#include "engine/io/safetensors.h"
#include "nn/module.h"
#include "nn/optim/optimizer.h"

namespace retort::nn {

struct CheckpointContents {
  struct File {
    std::string name;  // without ".safetensors": "model", "optimizer", ...
    NamedTensors tensors;
    std::map<std::string, std::string> metadata = {};
  };
  std::int64_t step = 0;  // optimiser updates so far
  Json state;             // whatever the caller needs to go on: epoch, positions, metrics so far
  std::vector<File> files;
  std::map<std::string, FileMark> logs = {};  // in FOLDER, by name: what AppendLog::sync said
};

/// Weights and optimizer state under their usual names, "model" and "optimizer". Tensors of models
/// are in PyTorch's layout, those of the optimizer in ours.
CheckpointContents checkpoint_of(std::int64_t step, const TrainedModules& modules,
                                 const Optimizer& optimizer, Json state);

/// Writes FOLDER/ckpt-<step>, in place of one of the same step, and keeps the `keep` newest (>= 1).
/// A state that is an object gets one more key, "conv2d_choices", where implementations of
/// convolutions were chosen by measuring.
/// Errors    Error(kIo) if the disk is full (asked before writing: 1.05 times the size must be
///           free) or the system refuses;
///           what was there before is untouched then.
void write_checkpoint(const std::string& folder, const CheckpointContents& contents, int keep = 2);

struct FoundCheckpoint {
  std::string path;  // of its folder
  std::int64_t step = 0;
  Json state;
  std::map<std::string, FileMark> logs = {};
  // Newer ones that are damaged, newest first: "FOLDER/ckpt-00000002: model.safetensors: tensor
  // 'fc.weight' has another content than was written". To be told: what they held is done again.
  std::vector<std::string> rejected = {};

  std::string file(const std::string& name) const { return path + "/" + name + ".safetensors"; }
};

/// The newest checkpoint that verifies; none if there is none or no folder.
/// Errors    Error(kBadInput) if there are checkpoints and all are damaged, with what is wrong with
///           each: to begin anew takes a word from the user, who removes FOLDER.
std::optional<FoundCheckpoint> read_newest_valid(const std::string& folder);

/// "" if the checkpoint in this folder is whole, its logs included, else what is wrong with it: the
/// file, and the tensor where it is one.
std::string verify_checkpoint(const std::string& path);

/// Puts "model" into the modules and "optimizer" into the optimizer (null: left out), and goes on
/// with the recorded choices of convolutions.
/// Errors    Error(kBadInput) if they do not fit.
void restore_checkpoint(const FoundCheckpoint& checkpoint, const TrainedModules& modules,
                        Optimizer* optimizer);

}  // namespace retort::nn
