#include "nn/checkpoint/weight_files.h"

#include <filesystem>
#include <map>

#include "engine/io/json_view.h"

namespace retort::nn {
namespace {

namespace fs = std::filesystem;

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}
bool is_folder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

}  // namespace

bool is_weights_folder(const std::string& path) {
  if (!is_folder(path)) return false;
  for (const char* name :
       {"config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"})
    if (exists(path + "/" + name)) return true;
  return false;
}

WeightFiles::WeightFiles(const std::string& path) : path_(path), folder_(path) {
  if (!is_folder(path)) {
    const std::size_t slash = path.rfind('/');
    folder_ = slash == std::string::npos ? "." : path.substr(0, slash);
    readers_.emplace_back(path);
    return;
  }
  if (exists(path + "/model.safetensors"))
    readers_.emplace_back(path + "/model.safetensors");
  else if (const std::string index = path + "/model.safetensors.index.json"; exists(index))
    open_shards(index);
  else
    fail(ErrorCode::kBadInput, escaped(path, 4096),
         ": expected model.safetensors or model.safetensors.index.json in it",
         exists(path + "/pytorch_model.bin")
             ? ", found pytorch_model.bin: save the model anew with safe_serialization=True"
             : "");
}

void WeightFiles::open_shards(const std::string& index) {
  const Json json = Json::read(index, std::uint64_t{64} << 20);
  const JsonView map = JsonView(json, index).at("weight_map");
  if (map.value().kind() != Json::Kind::kObject || map.value().members().empty())
    map.expected("an object of tensors by name");
  std::map<std::string, std::size_t> shards;  // place in readers_
  for (std::size_t i = 0; i < map.value().members().size(); ++i) {
    const JsonView place = map.member(i);
    const std::string& file = place.string();
    // A name with a way in it could lead anywhere.
    if (file.empty() || file.find('/') != std::string::npos) place.expected("a file's name");
    const auto [at, is_new] = shards.emplace(file, readers_.size());
    if (is_new) readers_.emplace_back(folder_ + "/" + file);
    if (!readers_[at->second].header().find(map.value().members()[i].first))
      place.refuse("there is no such tensor in ", escaped(file));
  }
}

}  // namespace retort::nn
