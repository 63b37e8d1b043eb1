#include "tools/kdtrain/provenance.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/file.h"
#include "kernels/common/parallel.h"
#include "tools/build_commit.h"  // made by each build
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/machine.h"

namespace retort::tools {
namespace {

std::string file_of(const std::string& folder) { return folder + "/provenance.json"; }

std::string text_of(const Json& json, const char* key) {
  const Json* value = json.find(key);
  if (value == nullptr) return "";
  return value->kind() == Json::Kind::kString ? value->as_string() : value->dump();
}

// What tells one sitting from another.
std::string circumstances(const Json& json) {
  return text_of(json, "version") + " " + text_of(json, "commit") + " on " +
         text_of(json, "machine") + ", " + text_of(json, "device") + ", " +
         text_of(json, "threads") + " threads" +
         (json.find("ranks") == nullptr ? "" : ", " + text_of(json, "ranks")) + ": " +
         text_of(json, "command");
}

Json object_of(const std::map<std::string, std::string>& values) {
  Json object = Json::object();
  for (const auto& [name, value] : values) object.set(name, value);
  return object;
}

void write(const std::string& folder, const Json& json) {
  write_file_atomically(file_of(folder), json.dump() + "\n");
}

}  // namespace

std::string built_commit() { return RETORT_BUILT_COMMIT; }

Json read_provenance(const std::string& folder) {
  const std::string file = file_of(folder);
  std::error_code absent;
  if (!std::filesystem::exists(file, absent)) return {};
  try {
    Json json = Json::read(file);
    return json.kind() == Json::Kind::kObject ? json : Json();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) throw;
    return {};
  }
}

void begin_provenance(const std::string& folder, const Sitting& sitting) {
  const Json before = read_provenance(folder);
  Json now = Json::object();
  now.set("version", version_text()).set("commit", built_commit());
  now.set("started", utc_now()).set("command", sitting.command);
  now.set("machine", machine_text()).set("device", sitting.device).set("threads", thread_count());
  if (!sitting.ranks.empty()) now.set("ranks", sitting.ranks);
  now.set("data", object_of(sitting.data)).set("weights", object_of(sitting.weights));
  if (!before.is_null()) {
    Json earlier = Json::object();
    if (const Json* known = before.find("earlier");
        known != nullptr && known->kind() == Json::Kind::kObject)
      earlier = *known;
    if (circumstances(before) != circumstances(now))
      earlier.set(text_of(before, "started"), circumstances(before));
    if (!earlier.members().empty()) now.set("earlier", std::move(earlier));
  }
  write(folder, now);
}

void finish_provenance(const std::string& folder) {
  Json json = read_provenance(folder);
  if (json.is_null()) return;
  write(folder, json.set("finished", utc_now()));
}

std::string provenance_comment(const Sitting& sitting) {
  std::string out = "# Made by " + version_text() + ", commit " + built_commit() + ", " +
                    utc_now() + "\n# " + machine_text() + "; " + sitting.device + ", " +
                    std::to_string(thread_count()) + " threads\n# " +
                    (sitting.ranks.empty() ? "" : sitting.ranks + "\n# ") +
                    escaped(sitting.command, 4096) + "\n";
  const auto list = [&](const char* what, const std::map<std::string, std::string>& values) {
    for (const auto& [name, hash] : values)
      out += "# " + std::string(what) + " " + escaped(name, 4096) + ": " + hash + "\n";
  };
  list("data", sitting.data);
  list("weights", sitting.weights);
  return out;
}

}  // namespace retort::tools
