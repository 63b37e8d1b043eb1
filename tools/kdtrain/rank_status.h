// status.json of a run folder: how a run on several ranks goes, or ended.
#pragma once
#include <cstdint>
#include <string>

#include "engine/io/json.h"

namespace retort::tools {

inline constexpr const char* kStatusFile = "status.json";

/// Note [A run that ended without a word]
///   Rank 0 writes status.json, and a launcher may kill all ranks before it has told how they ended:
///   then it says "running" for ever. But whoever runs holds the lock of the folder, so a file that
///   says so in a folder that nobody holds is of a run that ended without a word.
struct RankStatus {
  enum Says { kNothing, kRunning, kEnded } says = kNothing;
  std::string state, host, message;
  std::int64_t code = 0, step = 0, pid = 0;
  std::string time;  // of its last word
};

/// kNothing where there is no such file, or none that is whole.
RankStatus read_rank_status(const std::string& folder);
/// Of one that says "running" in a folder that nobody holds: "ended without a word after step 20:
/// rank 0 (host, pid 77) last told of itself at 2026-11-29T23:45:00Z".
std::string told_of_silence(const RankStatus& status);
/// What a reader of the folder should know: that it ended without a word, or how it was lost or
/// failed. "" where all is well, or the run goes on.
std::string told_of_ranks(const std::string& folder);

/// The file's content.
Json rank_status(const std::string& state, int code, int rank, const std::string& host,
                 std::int64_t step, const std::string& message);

}  // namespace retort::tools
