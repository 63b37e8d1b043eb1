#include "tools/kdtrain/job_checkpoint.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/safetensors.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
constexpr std::string_view kPrefix = "ckpt-";

std::string name_of_step(std::int64_t step) {
  std::string digits = std::to_string(step);
  digits.insert(0, digits.size() < 8 ? 8 - digits.size() : 0, '0');
  return std::string(kPrefix) + digits;
}

// Steps of all checkpoint folders, newest first.
std::vector<std::int64_t> steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    std::int64_t step = 0;
    if (!name.starts_with(kPrefix)) continue;
    const char* end = name.data() + name.size();
    const auto [rest, problem] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (problem == std::errc() && rest == end) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

NamedTensors tensors_of(const nn::TrainedModules& modules) {
  NamedTensors all;
  for (const auto& [prefix, module] : modules) {
    for (const auto& [name, tensor] : module->named_parameters())
      all.emplace_back(prefix + name, tensor.detach().to(Device::kCpu).contiguous());
    for (const auto& [name, tensor] : module->named_buffers())
      all.emplace_back(prefix + name, tensor.detach().to(Device::kCpu).contiguous());
  }
  return all;
}

std::uint64_t write_one(const std::string& path, const auto& fill, std::string* hash) {
  FileWriter writer(path);
  fill(writer);
  writer.finish();
  *hash = writer.hash();
  return writer.size();
}

bool verifies(const std::string& folder) {
  try {
    const Json manifest = Json::read(folder + "/MANIFEST.json");
    for (const char* file : kFiles) {
      const std::string path = folder + "/" + file;
      const Json& entry = manifest.at(file);
      if (fs::file_size(path) != entry.at("bytes").as_unsigned() ||
          hash_file(path) != entry.at("xxh3_128").as_string())
        return false;
    }
    return true;
  } catch (const Error&) {
    return false;
  } catch (const fs::filesystem_error&) {
    return false;
  }
}

}  // namespace

void write_job_checkpoint(const std::string& job_folder, std::int64_t step,
                          const nn::TrainedModules& modules, const nn::Optimizer& optimizer,
                          const Json& extra, std::int64_t keep) {
  const std::string final = job_folder + "/" + name_of_step(step);
  const std::string temporary = job_folder + "/.tmp-" + std::to_string(step);
  fs::remove_all(temporary);
  make_folders(temporary);
  try {
    Json manifest = Json::object();
    const auto add = [&](const char* name, const auto& fill) {
      std::string hash;
      const std::uint64_t bytes = write_one(temporary + "/" + name, fill, &hash);
      manifest.set(name, Json::object().set("bytes", bytes).set("xxh3_128", hash));
    };
    add(kFiles[0], [&](FileWriter& w) { write_safetensors(w, tensors_of(modules)); });
    add(kFiles[1], [&](FileWriter& w) { write_safetensors(w, optimizer.state()); });
    add(kFiles[2], [&](FileWriter& w) { w.write(extra.dump()); });
    std::string ignored;
    write_one(
        temporary + "/MANIFEST.json", [&](FileWriter& w) { w.write(manifest.dump()); }, &ignored);
    sync_folder(temporary);
    // A checkpoint of the same step is from before a resume: the new one says the same or more.
    const std::string old = job_folder + "/.old-" + std::to_string(step);
    std::error_code none;
    fs::remove_all(old, none);
    if (fs::exists(final)) rename_path(final, old);
    rename_path(temporary, final);
    sync_folder(job_folder);
    fs::remove_all(old, none);
  } catch (...) {
    std::error_code none;
    fs::remove_all(temporary, none);  // a full disk must not stay full because of it
    throw;
  }
  std::vector<std::int64_t> steps = steps_in(job_folder);
  std::error_code none;
  for (std::size_t i = static_cast<std::size_t>(keep); i < steps.size(); ++i)
    fs::remove_all(job_folder + "/" + name_of_step(steps[i]), none);
}

std::optional<JobCheckpoint> newest_job_checkpoint(const std::string& job_folder) {
  for (const std::int64_t step : steps_in(job_folder)) {
    const std::string folder = job_folder + "/" + name_of_step(step);
    if (!verifies(folder)) continue;
    return JobCheckpoint{folder, step, Json::read(folder + "/state.json", std::uint64_t{1} << 30)};
  }
  return std::nullopt;
}

void restore_job_checkpoint(const JobCheckpoint& checkpoint, const nn::TrainedModules& modules,
                            nn::Optimizer* optimizer) {
  const SafetensorsReader reader(checkpoint.folder + "/model.safetensors");
  std::size_t used = 0;
  const auto put = [&](const std::string& name, const Tensor& to) {
    const Tensor from = reader.read(name);
    RETORT_CHECK_AS(kBadInput, from.shape() == to.shape() && from.dtype() == to.dtype(),
                    "[resume] ", checkpoint.folder, ": '", name, "' is ", from.shape(),
                    ", expected ", to.shape());
    to.copy_from(from);
    ++used;
  };
  for (const auto& [prefix, module] : modules) {
    for (const auto& [name, tensor] : module->named_parameters()) put(prefix + name, tensor);
    for (const auto& [name, tensor] : module->named_buffers()) put(prefix + name, tensor);
  }
  RETORT_CHECK_AS(kBadInput, used == reader.header().entries.size(), "[resume] ", checkpoint.folder,
                  " holds other tensors than the model");
  const SafetensorsReader moments(checkpoint.folder + "/optimizer.safetensors");
  NamedTensors state;
  for (const SafetensorsEntry& entry : moments.header().entries)
    state.emplace_back(entry.name, moments.read(entry));
  optimizer->load_state(state);
}

}  // namespace retort::tools
