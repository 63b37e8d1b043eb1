#include "tools/kdtrain/models.h"

#include <cstdlib>
#include <filesystem>

#include "distill/student/initialize.h"
#include "engine/io/file.h"
#include "kernels/common/philox.h"
#include "nn/checkpoint/weight_files.h"
#include "nn/text/vocabulary.h"

namespace retort::tools {

namespace fs = std::filesystem;

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
  config.task = data.task;
  config.ids = data.ids;
  config.choices = data.choices;
  if (nn::model_kinds().at(config.arch).reads == nn::Reads::kTokens)
    config.folder = model_folder(settings, section);
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

void start_from_layers(nn::Model& student, const nn::Model& source, const Settings& settings) {
  const auto* const own = dynamic_cast<const nn::Transformer*>(&student);
  const auto* const theirs = dynamic_cast<const nn::Transformer*>(&source);
  distill::LayerMap map;
  for (const std::string& pair : settings.texts("student.init_layers")) {
    const std::size_t equal = pair.find('=');
    map.emplace_back(pair.substr(0, equal),
                     equal == std::string::npos ? pair : pair.substr(equal + 1));
  }
  if (map.empty() && own != nullptr && theirs != nullptr)
    map = distill::every_second_layer(*own, *theirs);
  else if (map.empty())
    map.emplace_back("", "");
  distill::copy_layers(student, source, map);
}

namespace {

// Where a file or folder of a recipe may be.
std::vector<std::string> places_of(const Settings& settings, const std::string& name) {
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
  return places;
}

bool exists(const std::string& path) {
  std::error_code error;  // a name too long, a folder that may not be entered
  return fs::exists(path, error);
}
bool is_folder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The files beside weights that say what ids mean and how a text is cut.
constexpr const char* kVocabularyFiles[] = {
    "vocab.txt",  "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt",     "added_tokens.json"};

}  // namespace

std::string model_folder(const Settings& settings, const std::string& section) {
  std::string name = settings.text(section + ".weights");
  if (name.empty() && section == "teacher") name = settings.text("teacher.train.weights");
  if (name.empty()) return "";
  const std::string path = find_weights(settings, name);
  if (is_folder(path)) return exists(path + "/config.json") ? path : "";
  const std::string parent = fs::path(path).parent_path().string();
  const std::string folder = parent.empty() ? "." : parent;
  return exists(folder + "/config.json") ? folder : "";
}

void check_vocabularies(const Settings& settings, const std::vector<std::string>& sections,
                        const nn::Dataset& data) {
  if (data.facts().gives != nn::Reads::kTokens) return;
  std::vector<nn::Vocabulary> all;
  nn::Vocabulary own{"the data", {}};
  for (std::int64_t id = 0; id < data.facts().ids; ++id)
    own.tokens.push_back(data.word(static_cast<std::int32_t>(id)));
  all.push_back(std::move(own));
  for (const std::string& section : sections)
    if (const std::string folder = model_folder(settings, section); !folder.empty())
      all.push_back(nn::read_vocabulary(folder));
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t k = 0; k < i; ++k) nn::check_same_words(all[k], all[i]);
}

void copy_vocabulary(const Settings& settings, const std::string& section,
                     const std::string& folder) {
  const auto copy = [&](const std::string& from, const char* name) {
    if (from != folder + "/" + name)
      write_file_atomically(folder + "/" + name, read_file(from, std::uint64_t{1} << 28));
  };
  for (const std::string& of : {section, std::string("teacher"), std::string("student")}) {
    const std::string from = model_folder(settings, of);
    bool any = false;
    for (const char* name : kVocabularyFiles)
      if (!from.empty() && exists(from + "/" + name)) {
        copy(from + "/" + name, name);
        any = true;
      }
    if (any) return;
  }
  for (const auto& [key, name] :
       {std::pair("data.tokenizer", "tokenizer.json"), {"data.vocab", "vocab.txt"}})
    if (find_key(key) != nullptr && !settings.text(key).empty())
      for (const std::string& place : places_of(settings, settings.text(key)))
        if (exists(place) && !is_folder(place)) {
          copy(place, name);
          return;
        }
}

std::string told_of_drawn(const nn::WeightsInfo& info) {
  if (info.drawn.empty()) return "";
  std::string names;
  for (const std::string& name : info.drawn) names += (names.empty() ? "" : ", ") + name;
  return "drawn anew, as " + info.path + " lacks them: " + names;
}

std::string find_weights(const Settings& settings, const std::string& name) {
  std::string tried;
  for (const std::string& place : places_of(settings, name)) {
    // What is no regular file is refused by its kind when it is opened.
    if (exists(place) && (!is_folder(place) || nn::is_weights_folder(place))) return place;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  fail(ErrorCode::kIo, "[weights] there is no file or folder of weights ", name, " (tried ", tried,
       ")");
}

DType precision_of(const Settings& settings, const std::string& key) {
  return settings.text(key) == "bf16" ? DType::kBF16 : DType::kF32;
}

}  // namespace retort::tools
