#include "nn/checkpoint/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/conv2d/conv2d_choice.h"
#include "nn/checkpoint/weights.h"

namespace retort::nn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "ckpt-", kTemporary = ".tmp-", kSuffix = ".safetensors",
                           kOld = ".old";
constexpr const char* kManifest = "MANIFEST.json";
constexpr const char* kState = "state.json";
constexpr const char* kConv2dChoices = "conv2d_choices";     // in the state: see conv2d_choice.h
constexpr std::uint64_t kMaxState = std::uint64_t{1} << 30;  // bytes; it may hold a metrics log
constexpr std::int64_t kFormat = 1;

std::string folder_name(std::int64_t step) {
  const std::string digits = std::to_string(step);
  return std::string(kPrefix) + std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0') +
         digits;
}

// A folder that may be a checkpoint.
struct Candidate {
  std::int64_t step = -1;
  bool old = false;  // was about to be replaced
  std::string name;
};

std::optional<Candidate> candidate_of(const std::string& name) {
  Candidate found{-1, name.ends_with(kOld), name};
  const std::string plain = name.substr(0, name.size() - (found.old ? kOld.size() : 0));
  if (plain.rfind(kPrefix, 0) != 0) return std::nullopt;
  const char* const end = plain.data() + plain.size();
  const auto [rest, problem] = std::from_chars(plain.data() + kPrefix.size(), end, found.step);
  const bool right =
      problem == std::errc() && rest == end && found.step >= 0 && folder_name(found.step) == plain;
  return right ? std::optional(found) : std::nullopt;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  return names;
}

// Newest first; of one step the old one last.
std::vector<Candidate> candidates_in(const std::string& folder) {
  std::vector<Candidate> found;
  for (const std::string& name : names_in(folder))
    if (auto candidate = candidate_of(name)) found.push_back(std::move(*candidate));
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.step != b.step ? a.step > b.step : a.old < b.old;
  });
  return found;
}

bool plain_name(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos && name[0] != '.' &&
         name.find('\0') == std::string::npos && name != kManifest;
}

void check_space(const std::string& folder, const CheckpointContents& contents) {
  std::uint64_t bytes = 65536;  // headers, manifest
  for (const CheckpointContents::File& file : contents.files)
    for (const auto& [name, tensor] : file.tensors) bytes += tensor.bytes() + name.size() + 128;
  const std::uint64_t needed = bytes + bytes / 20, available = free_bytes(folder);
  const bool large = needed >= std::uint64_t{100} << 20;
  const int shift = large ? 20 : 10;
  RETORT_CHECK_AS(kIo, available >= needed, escaped(folder, 4096),
                  ": the disk is too full: a checkpoint needs ", needed >> shift, " ",
                  large ? "MiB" : "KiB", ", and ", available >> shift, " are free");
}

// With the implementations of convolutions that were chosen by measuring.
Json with_choices(Json state) {
  const std::string choices = kernels::conv2d_choices().used();
  const bool keys = state.kind() == Json::Kind::kObject || state.kind() == Json::Kind::kNull;
  if (!choices.empty() && keys) state.set(kConv2dChoices, choices);
  return state;
}

// The new checkpoint takes its name. One of the same step is from before a resume: at each moment
// it or the new one has a name that readers know.
void put_in_place(const std::string& temporary, const std::string& final) {
  const std::string old = final + std::string(kOld);
  std::error_code absent;
  if (fs::exists(final, absent) && fs::exists(old, absent))  // left by a killed writer
    remove_path(verify_checkpoint(final).empty() ? old : final);
  if (!fs::exists(final, absent)) {
    rename_path(temporary, final);
  } else if (exchange_paths(temporary, final)) {
    remove_path(temporary);
  } else {
    rename_path(final, old);
    rename_path(temporary, final);
  }
}

// What is wrong with a file of tensors whose bytes are not those that were written.
std::string damage_of(const std::string& file, const Json* hashes) {
  const SafetensorsReader reader(file);
  if (hashes != nullptr)
    for (const Json& entry : hashes->items()) {
      const std::string& name = entry.items().at(0).as_string();
      const Tensor tensor = reader.read(name);
      const std::string_view bytes(static_cast<const char*>(tensor.raw()), tensor.bytes());
      if (hash_bytes(bytes) != entry.items().at(1).as_string())
        return "tensor '" + escaped(name) + "' has another content than was written";
    }
  return "its header has another content than was written";
}

// "" or what follows the file's name in a message.
std::string problem_of_file(const std::string& file, const Json& entry) {
  const std::string problem = mark_problem(file, FileMark::from(entry));
  if (problem.empty()) return "";
  if (problem != kOtherContent || !file.ends_with(kSuffix)) return " " + problem;
  try {
    return ": " + damage_of(file, entry.find("tensors"));
  } catch (const Error& error) {
    return join(": ", error.what());
  } catch (const std::out_of_range&) {
    return ": its tensors are listed without hashes";
  }
}

Json read_manifest(const std::string& path) {
  const std::string file = path + "/" + kManifest;
  return naming_file(file, [&] { return Json::read(file); });
}

// logs: whether those of the folder count, too.
std::string problem_of(const std::string& path, bool logs) {
  try {
    const Json manifest = read_manifest(path);
    if (manifest.at("format").as_integer() != kFormat)
      return join("format ", manifest.at("format").as_integer(), " is not known");
    const auto candidate = candidate_of(fs::path(path).filename().string());
    if (!candidate || manifest.at("step").as_integer() != candidate->step)
      return "the manifest is of another step";
    bool has_state = false;
    for (const auto& [name, entry] : manifest.at("files").members()) {
      if (!plain_name(name)) return "'" + escaped(name) + "' is not a plain file name";
      if (const std::string problem = problem_of_file(path + "/" + name, entry); !problem.empty())
        return name + problem;
      has_state = has_state || name == kState;
    }
    if (!has_state) return "state.json is not listed";
    if (const Json* list = manifest.find("logs"); logs && list != nullptr)
      for (const auto& [name, entry] : list->members()) {
        if (!plain_name(name)) return "'" + escaped(name) + "' is not a plain file name";
        const std::string problem =
            mark_problem(parent_folder(path) + "/" + name, FileMark::from(entry), Growth::kAllowed);
        if (!problem.empty()) return "the log " + name + " " + problem;
      }
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

}  // namespace

CheckpointContents checkpoint_of(std::int64_t step, const TrainedModules& modules,
                                 const Optimizer& optimizer, Json state) {
  CheckpointContents contents;
  contents.step = step;
  contents.state = std::move(state);
  contents.files.push_back({"model", weights_of(modules)});
  contents.files.push_back({"optimizer", optimizer.state()});
  return contents;
}

void write_checkpoint(const std::string& folder, const CheckpointContents& contents, int keep) {
  RETORT_CHECK(keep >= 1, "[checkpoint] expected keep >= 1, got ", keep);
  RETORT_CHECK(contents.step >= 0, "[checkpoint] expected a step >= 0, got ", contents.step);
  make_folders(folder);
  for (const std::string& name : names_in(folder))  // left by a killed writer
    if (name.rfind(kTemporary, 0) == 0) remove_path(folder + "/" + name);
  check_space(folder, contents);

  const std::string name = folder_name(contents.step), final = folder + "/" + name;
  const std::string temporary = folder + "/" + std::string(kTemporary) +
                                std::to_string(contents.step) + "-" + std::to_string(getpid());
  try {
    make_folders(temporary);
    Json files = Json::object(), logs = Json::object();
    const auto add = [&](const std::string& file, const auto& fill) {
      RETORT_CHECK(plain_name(file) && files.find(file) == nullptr,
                   "[checkpoint] expected a plain file name used once, got '", escaped(file), "'");
      FileWriter writer(temporary + "/" + file);
      Json tensors = fill(writer);
      writer.finish();
      Json entry = FileMark{writer.size(), writer.hash()}.json();
      if (!tensors.is_null()) entry.set("tensors", std::move(tensors));
      files.set(file, std::move(entry));
    };
    for (const CheckpointContents::File& file : contents.files)
      add(file.name + std::string(kSuffix), [&](FileWriter& writer) {
        std::vector<std::pair<std::string, std::string>> hashes;
        write_safetensors(writer, file.tensors, file.metadata, &hashes);
        Json list = Json::array();
        for (auto& [tensor, hash] : hashes) list.push(Json::array().push(tensor).push(hash));
        return list;
      });
    add(kState, [&](FileWriter& writer) {
      writer.write(with_choices(contents.state).dump());
      return Json();
    });
    for (const auto& [log, mark] : contents.logs) {
      RETORT_CHECK(plain_name(log), "[checkpoint] expected a plain name of a log, got '",
                   escaped(log), "'");
      logs.set(log, mark.json());
    }

    Json manifest = Json::object();
    manifest.set("format", kFormat).set("step", contents.step).set("files", std::move(files));
    manifest.set("logs", std::move(logs));
    FileWriter writer(temporary + "/" + kManifest);
    writer.write(manifest.dump());
    writer.finish();
    sync_folder(temporary);
    put_in_place(temporary, final);
    sync_folder(folder);
  } catch (...) {
    remove_path(temporary);  // a full disk must not stay full because of it
    throw;
  }
  // Its logs were synced by their writer and are not read again for each checkpoint.
  const std::string problem = problem_of(final, /*logs=*/false);
  RETORT_CHECK_AS(kIo, problem.empty(), escaped(final, 4096),
                  ": what was written does not read back: ", problem);
  int kept = 1;  // the new one
  for (const Candidate& other : candidates_in(folder)) {
    const std::string path = folder + "/" + other.name;
    if (path == final) continue;
    // A newer one did not verify when this run resumed, or belongs to somebody: only rubbish goes.
    const bool remove = other.step > contents.step    ? !problem_of(path, /*logs=*/false).empty()
                        : other.step == contents.step ? true
                                                      : ++kept > keep;
    if (remove) remove_path(path);
  }
}

std::string verify_checkpoint(const std::string& path) { return problem_of(path, /*logs=*/true); }

std::optional<FoundCheckpoint> read_newest_valid(const std::string& folder) {
  FoundCheckpoint found;
  for (const Candidate& candidate : candidates_in(folder)) {
    found.path = folder + "/" + candidate.name;
    found.step = candidate.step;
    std::string problem = verify_checkpoint(found.path);
    if (problem.empty()) {
      const std::string state = found.path + "/" + kState;
      found.state = Json::read(state, kMaxState);
      const Json manifest = read_manifest(found.path);
      if (const Json* logs = manifest.find("logs"))
        for (const auto& [name, entry] : logs->members()) found.logs[name] = FileMark::from(entry);
      return found;
    }
    found.rejected.push_back(problem.starts_with(found.path) ? problem
                                                             : found.path + ": " + problem);
  }
  if (found.rejected.empty()) return std::nullopt;
  std::string list;
  for (const std::string& one : found.rejected) list += "\n  " + one;
  fail(ErrorCode::kBadInput, escaped(folder, 4096),
       ": every checkpoint is damaged; to begin anew, remove this folder:", list);
}

void restore_checkpoint(const FoundCheckpoint& checkpoint, const TrainedModules& modules,
                        Optimizer* optimizer) {
  load_weights(modules, checkpoint.file("model"));
  if (optimizer) optimizer->load_state(read_safetensors(checkpoint.file("optimizer")));
  if (checkpoint.state.kind() != Json::Kind::kObject) return;
  if (const Json* choices = checkpoint.state.find(kConv2dChoices))
    kernels::conv2d_choices().pin(choices->as_string());
}

}  // namespace retort::nn
