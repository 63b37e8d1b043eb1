#include "nn/text/vocabulary.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/json_view.h"
#include "nn/text/tokenizer.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMostIds = std::uint64_t{1} << 24;

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// {"word": id, ...}
std::vector<std::string> words_of(const JsonView& map) {
  std::vector<std::string> tokens;
  if (map.value().kind() != Json::Kind::kObject) map.expected("an object of ids by token");
  for (std::size_t i = 0; i < map.value().members().size(); ++i) {
    const std::uint64_t id = map.member(i).integer(kMostIds);
    if (tokens.size() <= id) tokens.resize(id + 1);
    tokens[id] = map.value().members()[i].first;
  }
  return tokens;
}

}  // namespace

Vocabulary read_vocabulary(const std::string& folder) {
  Vocabulary v;
  if (exists(v.name = folder + "/vocab.txt")) {
    const Tokenizer tokenizer = Tokenizer::from_vocab(v.name, /*lower_case=*/true);
    for (std::int32_t id = 0; id < tokenizer.size(); ++id) v.tokens.push_back(tokenizer.token(id));
  } else if (exists(v.name = folder + "/tokenizer.json")) {
    const Json json = Json::read(v.name, std::uint64_t{256} << 20);
    const JsonView root(json, v.name);
    v.tokens = words_of(root.at("model").at("vocab"));
    if (const auto added = root.find("added_tokens"); added && !added->is_null())
      for (std::size_t i = 0; i < added->size(); ++i) {
        const std::uint64_t id = added->item(i).at("id").integer(kMostIds);
        if (v.tokens.size() <= id) v.tokens.resize(id + 1);
        v.tokens[id] = added->item(i).at("content").string();
      }
  } else if (exists(v.name = folder + "/vocab.json")) {
    const Json json = Json::read(v.name, std::uint64_t{256} << 20);
    v.tokens = words_of(JsonView(json, v.name));
  } else {
    v.name = folder;
  }
  return v;
}

void check_same_words(const Vocabulary& a, const Vocabulary& b) {
  if (a.tokens.empty() || b.tokens.empty()) return;
  const std::size_t both = std::min(a.tokens.size(), b.tokens.size());
  for (std::size_t id = 0; id < both; ++id) {
    const std::string &one = a.tokens[id], &other = b.tokens[id];
    RETORT_CHECK_AS(kBadInput, one.empty() || other.empty() || one == other,
                    "the vocabularies differ: id ", id, " is '", escaped(one), "' in ", a.name,
                    " and '", escaped(other), "' in ", b.name);
  }
  const Vocabulary& longer = a.tokens.size() > both ? a : b;
  const Vocabulary& shorter = a.tokens.size() > both ? b : a;
  for (std::size_t id = both; id < longer.tokens.size(); ++id)
    RETORT_CHECK_AS(kBadInput, longer.tokens[id].empty(), "the vocabularies differ: id ", id,
                    " is '", escaped(longer.tokens[id]), "' in ", longer.name, ", and ",
                    shorter.name, " has ", both, " ids");
}

}  // namespace retort::nn
