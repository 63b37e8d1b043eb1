// Apart from the header, because std::regex takes seconds to compile.
#include "tests/tools/kdtrain_fixture.h"

#include <regex>

namespace retort::tools {

std::string Kdtrain::content(const fs::path& folder) {
  std::string all;
  std::set<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) files.insert(entry.path());
  static const std::regex times(
      R"re("(samples_per_s|wall_s|share_[a-z]+|memory_[a-z_]+)":[^,}]*)re");
  for (const fs::path& file : files) {
    const std::string name = fs::relative(file, folder).string();
    if (name.ends_with("model.safetensors") && name.find("ckpt-") == std::string::npos)
      all += name + " " + hash_file(file.string()) + "\n";
    if (name.ends_with(".csv")) all += name + "\n" + read(file);
    if (name == "metrics.jsonl") all += std::regex_replace(read(file), times, "");
  }
  return all;
}

std::string Kdtrain::content_but_ranks(const fs::path& folder) {
  static const std::regex told(R"re("ranks":[0-9]+)re"), commas(",+");
  // What content() leaves of a time is its comma.
  return std::regex_replace(std::regex_replace(content(folder), told, ""), commas, ",");
}

std::string Kdtrain::whole_content(const fs::path& folder) {
  std::string all = content_but_ranks(folder);
  std::set<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) files.insert(entry.path());
  static const std::regex times(R"re("wall_s":[^,}]*)re");
  for (const fs::path& file : files) {
    const std::string name = fs::relative(file, folder).string();
    if (name.find("ckpt-") == std::string::npos) continue;
    if (name.ends_with(".safetensors")) all += name + " " + hash_file(file.string()) + "\n";
    if (name.ends_with("state.json"))
      all += name + "\n" + std::regex_replace(read(file), times, "") + "\n";
  }
  return all;
}

}  // namespace retort::tools
