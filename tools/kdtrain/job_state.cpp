#include "tools/kdtrain/job_state.h"

#include <filesystem>

#include "engine/io/append_log.h"
#include "engine/io/file.h"
#include "nn/checkpoint/checkpoint.h"

namespace retort::tools {
namespace {

// The checkpoint that says that the job is done holds the same bytes.
void bring_back_weights(const std::string& folder, const std::string& checkpoint) {
  FileManifest files(folder);
  if (files.problem(kJobWeights).empty()) return;
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;
  write_file_atomically(folder + "/" + kJobWeights, read_file(checkpoint, kMostBytes));
  files.record(kJobWeights);
}

}  // namespace

void record_failure(const std::string& folder, const JobFailure& failure) {
  Json json = Json::object();
  json.set("step", failure.step).set("reason", failure.reason).set("data", failure.data);
  json.set("lines", failure.lines.json());
  write_file_atomically(folder + "/" + kJobFailed, json.dump());
}

void forget_failure(const std::string& folder) { remove_path(folder + "/" + kJobFailed); }

std::optional<JobState> read_job_state(const std::string& folder) {
  std::error_code absent;
  if (!std::filesystem::is_directory(folder, absent)) return std::nullopt;
  JobState state;
  if (const std::string file = folder + "/" + kJobFailed; std::filesystem::exists(file, absent))
    return naming_file(file, [&] {
      const Json json = Json::read(file);
      state.step = json.at("step").as_integer();
      state.failure = json.at("reason").as_string();
      state.data = json.at("data").as_string();
      state.lines = AppendLog::read(folder + "/" + kJobLines, FileMark::from(json.at("lines")));
      return std::optional(std::move(state));
    });
  const auto saved = nn::read_newest_valid(folder);
  if (!saved) return std::nullopt;
  const auto lines = saved->logs.find(kJobLines);
  RETORT_CHECK_AS(kBadInput, lines != saved->logs.end(), saved->path, ": its manifest names no ",
                  kJobLines, ": it is of another version");
  state.step = saved->state.at("step").as_integer();
  state.finished = saved->state.at("finished").as_bool();
  state.lines = AppendLog::read(folder + "/" + kJobLines, lines->second);
  state.data = saved->state.at("data").as_string();
  state.rejected = saved->rejected;
  if (state.finished) bring_back_weights(folder, saved->file("model"));
  return state;
}

void check_job_file(const std::string& folder, const std::string& name) {
  const std::string problem = FileManifest(folder).problem(name);
  RETORT_CHECK_AS(kBadInput, problem.empty(), escaped(folder + "/" + name, 4096), ": ", problem,
                  "; to train it again, remove ", escaped(folder, 4096));
}

}  // namespace retort::tools
