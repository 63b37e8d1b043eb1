#include "nn/checkpoint/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "kernels/conv2d/conv2d_choice.h"
#include "nn/checkpoint/weights.h"

namespace retort::nn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "ckpt-", kTemporary = ".tmp-", kSuffix = ".safetensors";
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

// The step in a folder's name; -1 if it is not a checkpoint.
std::int64_t step_of(const std::string& name) {
  std::int64_t step = -1;
  if (name.rfind(kPrefix, 0) != 0) return -1;
  const char* const end = name.data() + name.size();
  const auto [rest, problem] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return problem == std::errc() && rest == end && folder_name(step) == name ? step : -1;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  return names;
}

// Newest first.
std::vector<std::int64_t> steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(folder))
    if (const std::int64_t step = step_of(name); step >= 0) steps.push_back(step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
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
    Json files = Json::object();
    const auto add = [&](const std::string& file, const auto& fill) {
      RETORT_CHECK(plain_name(file) && files.find(file) == nullptr,
                   "[checkpoint] expected a plain file name used once, got '", escaped(file), "'");
      FileWriter writer(temporary + "/" + file);
      fill(writer);
      writer.finish();
      files.set(file, Json::object().set("bytes", writer.size()).set("xxh3_128", writer.hash()));
    };
    for (const CheckpointContents::File& file : contents.files)
      add(file.name + std::string(kSuffix),
          [&](FileWriter& writer) { write_safetensors(writer, file.tensors, file.metadata); });
    add(kState, [&](FileWriter& writer) { writer.write(with_choices(contents.state).dump()); });

    Json manifest = Json::object();
    manifest.set("format", kFormat).set("step", contents.step).set("files", std::move(files));
    FileWriter writer(temporary + "/" + kManifest);
    writer.write(manifest.dump());
    writer.finish();
    sync_folder(temporary);
    // One of the same step is from before a resume: it stays whole until the new one is there.
    std::error_code absent;
    if (fs::exists(final, absent)) {
      exchange_paths(temporary, final);
      remove_path(temporary);
    } else {
      rename_path(temporary, final);
    }
    sync_folder(folder);
  } catch (...) {
    remove_path(temporary);  // a full disk must not stay full because of it
    throw;
  }
  const std::string problem = verify_checkpoint(final);
  RETORT_CHECK_AS(kIo, problem.empty(), escaped(final, 4096),
                  ": what was written does not read back: ", problem);
  int kept = 1;  // the new one
  for (const std::int64_t step : steps_in(folder)) {
    const std::string other = folder + "/" + folder_name(step);
    if (step == contents.step) continue;
    // A newer one did not verify when this run resumed, or belongs to somebody: only rubbish goes.
    const bool remove = step > contents.step ? !verify_checkpoint(other).empty() : ++kept > keep;
    if (remove) remove_path(other);
  }
}

std::string verify_checkpoint(const std::string& path) {
  try {
    const Json manifest = Json::read(path + "/" + kManifest);
    if (manifest.at("format").as_integer() != kFormat)
      return join("format ", manifest.at("format").as_integer(), " is not known");
    if (folder_name(manifest.at("step").as_integer()) != fs::path(path).filename().string())
      return "the manifest is of another step";
    bool has_state = false;
    for (const auto& [name, entry] : manifest.at("files").members()) {
      if (!plain_name(name)) return "'" + escaped(name) + "' is not a plain file name";
      const std::string file = path + "/" + name;
      const std::uint64_t bytes = FileReader(file).size(), want = entry.at("bytes").as_unsigned();
      if (bytes != want) return join(name, " has ", bytes, " bytes, expected ", want);
      if (hash_file(file) != entry.at("xxh3_128").as_string())
        return name + " has another content than the manifest says";
      has_state = has_state || name == kState;
    }
    return has_state ? "" : "state.json is not listed";
  } catch (const Error& e) {
    return e.what();
  }
}

std::optional<FoundCheckpoint> read_newest_valid(const std::string& folder) {
  FoundCheckpoint found;
  for (const std::int64_t step : steps_in(folder)) {
    found.path = folder + "/" + folder_name(step);
    found.step = step;
    std::string problem = verify_checkpoint(found.path);
    if (problem.empty()) {
      found.state = Json::read(found.path + "/" + kState, kMaxState);
      return found;
    }
    found.rejected.push_back(found.path + ": " + problem);
  }
  return std::nullopt;
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
