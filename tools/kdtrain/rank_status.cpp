#include "tools/kdtrain/rank_status.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "kernels/common/check.h"
#include "tools/kdtrain/machine.h"

namespace retort::tools {
namespace {

constexpr std::uint64_t kMostStatus = 1 << 20;  // bytes

// Whether a process holds the run folder.
bool is_held(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool held = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0;
  ::close(descriptor);
  return held;
}

}  // namespace

RankStatus read_rank_status(const std::string& folder) try {
  const Json json = Json::read(folder + "/" + kStatusFile, kMostStatus);
  RankStatus status;
  status.state = json.at("state").as_string();
  status.says = status.state == "running" ? RankStatus::kRunning : RankStatus::kEnded;
  status.code = json.at("code").as_integer();
  status.step = json.at("step").as_integer();
  status.host = json.at("host").as_string();
  status.message = json.at("message").as_string();
  if (const Json* pid = json.find("pid")) status.pid = pid->as_integer();
  if (const Json* time = json.find("time")) status.time = time->as_string();
  return status;
} catch (const Error&) {
  return {};
}

std::string told_of_silence(const RankStatus& status) {
  return join("ended without a word after step ", status.step, ": rank 0 (", status.host, ", pid ",
              status.pid, ") last told of itself at ", status.time);
}

std::string told_of_ranks(const std::string& folder) {
  const RankStatus status = read_rank_status(folder);
  if (status.says == RankStatus::kRunning)
    return is_held(folder) ? "" : join("the run ", told_of_silence(status));
  if (status.state != "lost" && status.state != "failed") return "";
  return join("the run's ranks: ", status.state, " (", status.code, "): ", status.message);
}

Json rank_status(const std::string& state, int code, int rank, const std::string& host,
                 std::int64_t step, const std::string& message) {
  Json json = Json::object();
  json.set("state", state).set("code", static_cast<std::int64_t>(code));
  json.set("rank", static_cast<std::int64_t>(rank)).set("host", host).set("step", step);
  json.set("pid", static_cast<std::int64_t>(::getpid())).set("time", utc_now());
  return json.set("message", message);
}

}  // namespace retort::tools
