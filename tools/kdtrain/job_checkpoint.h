// Checkpoints of a job: everything a run needs to go on as if it had never stopped.
#pragma once
#include <optional>
#include <string>

#include "engine/io/json.h"
#include "nn/optim/arena.h"
#include "nn/optim/optimizer.h"

namespace retort::tools {

struct JobCheckpoint {
  std::string folder;  // of the checkpoint itself
  std::int64_t step = 0;
  Json extra;
};

// Note [Checkpoint protocol]
//   JOB/ckpt-<step>/{model,optimizer}.safetensors, state.json, MANIFEST.json (sizes and XXH3-128 of
//   the others). Written to JOB/.tmp-<step>, every file fsynced, then renamed and the folder
//   fsynced; only then are the oldest beyond `keep` removed. Reading takes the newest whose
//   manifest verifies. A kill at any moment leaves the previous checkpoint valid.

/// Writes one. Names of tensors are those of the modules' paths, with their prefixes.
void write_job_checkpoint(const std::string& job_folder, std::int64_t step,
                          const nn::TrainedModules& modules, const nn::Optimizer& optimizer,
                          const Json& extra, std::int64_t keep);

/// The newest that verifies; nothing if there is none. Leftovers of a kill are not looked at.
std::optional<JobCheckpoint> newest_job_checkpoint(const std::string& job_folder);

/// Puts its tensors into modules and optimizer. Throws Error(kBadInput) if they do not fit.
void restore_job_checkpoint(const JobCheckpoint& checkpoint, const nn::TrainedModules& modules,
                            nn::Optimizer* optimizer);

}  // namespace retort::tools
