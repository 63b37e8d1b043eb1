#include "tools/kdtrain/models.h"

#include <cstdlib>
#include <filesystem>

#include "kernels/common/philox.h"

namespace retort::tools {

std::uint64_t derive_key(std::int64_t seed, const char* purpose) {
  const Philox4 r = philox(static_cast<std::uint64_t>(seed), 0, 0, 0, path_hash(purpose));
  return (std::uint64_t{r.v[0]} << 32) | r.v[1];
}

nn::ModelConfig config_of(const Settings& settings, const std::string& section,
                          const nn::DataFacts& data, std::uint64_t key) {
  nn::ModelConfig config;
  config.arch = settings.text(section + ".arch");
  config.classes = data.classes;
  config.seed = key;
  config.options = options_of(settings, section, nn::model_kinds().at(config.arch).options);
  config.input = data.input;
  config.scalar_target = data.scalar_target;
  return config;
}

std::shared_ptr<nn::Model> build_model(const Settings& settings, const std::string& section,
                                       const nn::DataFacts& data, std::uint64_t key) {
  return nn::make_model(config_of(settings, section, data, key));
}

std::int64_t hidden_layers(const Settings& settings, const std::string& section,
                           const nn::DataFacts& data) {
  const nn::ModelConfig config = nn::complete(config_of(settings, section, data, 0));
  return nn::model_kinds().at(config.arch).hidden_layers(config);
}

std::string find_weights(const Settings& settings, const std::string& name) {
  namespace fs = std::filesystem;
  std::vector<std::string> places{name};
  const char* const data = std::getenv("RETORT_DATA");
  if (!name.starts_with('/'))
    for (const std::string& root :
         {settings.text("data.root"), std::string(data == nullptr ? "" : data)})
      if (!root.empty()) {
        places.push_back(root + "/" + name);
        places.push_back(root + "/weights/" + name);
        places.push_back(root + "/../" + name);
      }
  std::string tried;
  for (const std::string& place : places) {
    std::error_code error;  // a name too long, a folder that may not be entered
    // What is no regular file is refused by its kind when it is opened.
    if (fs::exists(place, error) && !fs::is_directory(place, error)) return place;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  fail(ErrorCode::kIo, "[weights] there is no file ", name, " (tried ", tried, ")");
}

DType precision_of(const Settings& settings, const std::string& key) {
  return settings.text(key) == "bf16" ? DType::kBF16 : DType::kF32;
}

}  // namespace retort::tools
