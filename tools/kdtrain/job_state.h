// What a job leaves in its folder for later sittings, tensors aside.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/manifest.h"

namespace retort::tools {

/// Of a job's folder: its lines of metrics.jsonl, its weights; how it failed, if it did.
inline constexpr const char* kJobLines = "lines.jsonl";
inline constexpr const char* kJobWeights = "model.safetensors";
inline constexpr const char* kJobFailed = "failed.json";
/// Where the recipe asks for them: TensorBoard's events, the weights of its best evaluation.
inline constexpr const char* kJobEvents = "events.out.tfevents.retort";
inline constexpr const char* kJobBest = "best.safetensors";

/// A job that ended without a result.
struct JobFailure {
  std::int64_t step = 0;
  std::string reason;
  std::string data;  // RunContext::data_hash
  FileMark lines;    // of kJobLines
};
/// Written last: a job that is killed before goes on from its checkpoint and fails again.
void record_failure(const std::string& folder, const JobFailure& failure);
/// The job is tried again.
void forget_failure(const std::string& folder);

struct JobState {
  std::int64_t step = 0;
  bool finished = false;
  std::string failure;                // "" unless it failed
  std::string lines;                  // of metrics.jsonl, each with its newline
  std::string data;                   // RunContext::data_hash
  std::vector<std::string> rejected;  // newer checkpoints that are damaged, in words
};
/// Of its failure, or of its newest valid checkpoint. Nothing if there is neither. The weights of a
/// finished job that are lost or damaged come back from its checkpoint.
/// Errors    kBadInput where all its checkpoints are damaged, kIo
std::optional<JobState> read_job_state(const std::string& folder);

/// Error(kBadInput) unless the job's folder holds this file as the job wrote it.
void check_job_file(const std::string& folder, const std::string& name);

}  // namespace retort::tools
