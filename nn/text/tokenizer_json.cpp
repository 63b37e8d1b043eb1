// tokenizer.json: Hugging Face's format, as tokenizers 0.23 reads it.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "engine/io/file.h"
#include "engine/io/json_view.h"
#include "kernels/common/check.h"
#include "nn/text/tokenizer.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{64} << 20;
constexpr std::size_t kMaxAddedBytes = 1024;  // of one added token: bounds the work a byte of text

void read_normalizer(const JsonView& file, NormalizerOptions& options) {
  const JsonView n = file.at("normalizer");
  n.at("type").is("BertNormalizer");
  n.only({"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"});
  options.rules = TextRules::kRust;
  options.clean_text = n.at("clean_text").boolean();
  options.separate_cjk = n.at("handle_chinese_chars").boolean();
  options.lower_case = n.at("lowercase").boolean();
  const auto strip = n.find("strip_accents");
  options.strip_accents = strip && !strip->is_null() ? strip->boolean() : options.lower_case;
}

void read_model(const JsonView& file, TokenizerParts& parts) {
  const JsonView model = file.at("model");
  if (const auto type = model.find("type")) type->is("WordPiece");
  model.only(
      {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"});
  parts.word_piece.unknown = model.at("unk_token").string();
  parts.word_piece.prefix = model.at("continuing_subword_prefix").string();
  parts.word_piece.max_characters = model.at("max_input_chars_per_word").integer(INT32_MAX);
  const JsonView vocab = model.at("vocab");
  if (vocab.value().kind() != Json::Kind::kObject) vocab.expected("an object");
  const std::vector<Json::Member>& members = vocab.value().members();
  for (std::size_t i = 0; i < members.size(); ++i) {
    const std::string& token = members[i].first;
    const JsonView entry = vocab.member(i);
    const std::size_t id = entry.integer(kMaxVocabulary - 1);
    if (token.empty() || token.find('\0') != std::string::npos)
      entry.refuse("expected a token of at least a character, none of them U+0000");
    if (id >= parts.tokens.size()) parts.tokens.resize(id + 1);
    if (!parts.tokens[id].empty())
      entry.refuse("the id ", id, " is that of '", escaped(parts.tokens[id]), "' too");
    parts.tokens[id] = token;
  }
  if (vocab.value().find(parts.word_piece.unknown) == nullptr)
    vocab.refuse("expected an entry '", escaped(parts.word_piece.unknown),
                 "', which stands for unknown words");
}

// The ids of added tokens that the vocabulary lacks follow it, in their order: the only ids that
// tokenizers itself would give them.
void read_added_tokens(const JsonView& file, TokenizerParts& parts) {
  const auto list = file.find("added_tokens");
  if (!list) return;
  const Json& vocab = file.at("model").at("vocab").value();
  std::unordered_map<std::string_view, std::uint64_t> known;
  for (const auto& [token, id] : vocab.members()) known.emplace(token, id.as_unsigned());
  std::unordered_set<std::string> seen, patterns;
  const Normalizer normalizer(parts.normalizer);
  std::uint64_t next = vocab.members().size();
  for (std::size_t i = 0; i < list->size(); ++i) {
    const JsonView one = list->item(i);
    one.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    const JsonView content = one.at("content");
    token.content = content.string();
    if (token.content.empty() || token.content.size() > kMaxAddedBytes ||
        token.content.find('\0') != std::string::npos)
      content.refuse("expected 1 to ", kMaxAddedBytes, " bytes, none of them U+0000");
    if (!seen.insert(token.content).second) content.refuse("this token was added before");
    const auto found = known.find(token.content);
    const std::uint64_t id = found != known.end() ? found->second : next++;
    const JsonView given = one.at("id");
    if (given.integer(kMaxVocabulary - 1) != id)
      given.refuse("expected ", id, ", the id that '", escaped(token.content), "' has by ",
                   found != known.end() ? "the vocabulary" : "its place behind the vocabulary",
                   ", got ", given.value().dump());
    if (found == known.end() && id < parts.tokens.size() && !parts.tokens[id].empty())
      given.refuse("the vocabulary gives this id to '", escaped(parts.tokens[id]), "'");
    token.id = static_cast<std::int32_t>(id);
    token.single_word = one.at("single_word").boolean();
    token.lstrip = one.at("lstrip").boolean();
    token.rstrip = one.at("rstrip").boolean();
    token.normalized = one.at("normalized").boolean();
    token.special = one.at("special").boolean();
    if (token.normalized) {
      const std::string pattern = normalizer.normalize(token.content);
      if (pattern.empty()) content.refuse("nothing is left of this token when it is normalised");
      if (!patterns.insert(pattern).second)
        content.refuse("another added token is the same when it is normalised");
    }
    if (token.special) parts.special.push_back(token.content);
    parts.added.push_back(std::move(token));
  }
}

std::int32_t id_in(const JsonView& id, std::size_t size) {
  return static_cast<std::int32_t>(id.integer(size - 1));
}

// BertProcessing: [CLS] A [SEP], and B [SEP] of type 1.
EncodingTemplate bert_template(const JsonView& post, std::size_t size) {
  post.only({"type", "sep", "cls"});
  const auto special = [&](const char* key, std::int32_t type) {
    const JsonView pair = post.at(key);
    if (pair.size() != 2) pair.expected("a token and its id");
    pair.item(0).string();
    return TemplatePiece{TemplatePiece::Kind::kSpecial, type, {id_in(pair.item(1), size)}};
  };
  const TemplatePiece first{TemplatePiece::Kind::kFirst, 0, {}};
  const TemplatePiece second{TemplatePiece::Kind::kSecond, 1, {}};
  return {{special("cls", 0), first, special("sep", 0)},
          {special("cls", 0), first, special("sep", 0), second, special("sep", 1)}};
}

std::vector<TemplatePiece> template_pieces(const JsonView& list, const JsonView& special,
                                           std::size_t size, std::ptrdiff_t texts) {
  std::vector<TemplatePiece> pieces;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonView entry = list.item(i);
    entry.only({"Sequence", "SpecialToken"});
    if (entry.value().members().size() != 1) entry.expected("one piece");
    const auto sequence = entry.find("Sequence");
    const JsonView inner = sequence ? *sequence : entry.at("SpecialToken");
    inner.only({"id", "type_id"});
    TemplatePiece piece;
    piece.type = static_cast<std::int32_t>(inner.at("type_id").integer(INT32_MAX));
    const JsonView id = inner.at("id");
    if (sequence) {
      if (id.string() != "A" && id.string() != "B") id.expected("\"A\" or \"B\"");
      piece.kind = id.string() == "A" ? TemplatePiece::Kind::kFirst : TemplatePiece::Kind::kSecond;
    } else {
      piece.kind = TemplatePiece::Kind::kSpecial;
      if (!special.find(id.string())) id.refuse("expected one of the special_tokens");
      const JsonView token = special.at(id.string());
      token.only({"id", "ids", "tokens"});
      token.at("id").is(id.string());
      const JsonView ids = token.at("ids");
      if (token.at("tokens").size() != ids.size()) ids.refuse("expected one id for each token");
      for (std::size_t k = 0; k < ids.size(); ++k) piece.ids.push_back(id_in(ids.item(k), size));
    }
    pieces.push_back(std::move(piece));
  }
  const auto count = [&](TemplatePiece::Kind kind) {
    return std::count_if(pieces.begin(), pieces.end(),
                         [&](const TemplatePiece& p) { return p.kind == kind; });
  };
  if (count(TemplatePiece::Kind::kFirst) != 1 || count(TemplatePiece::Kind::kSecond) != texts - 1)
    list.refuse("expected ",
                texts == 1 ? "the sequence A once" : "the sequences A and B once each");
  return pieces;
}

EncodingTemplate read_template(const JsonView& file, std::size_t size) {
  const auto post = file.find("post_processor");
  if (!post || post->is_null())
    return {{{TemplatePiece::Kind::kFirst, 0, {}}},
            {{TemplatePiece::Kind::kFirst, 0, {}}, {TemplatePiece::Kind::kSecond, 1, {}}}};
  const JsonView type = post->at("type");
  if (type.string() == "BertProcessing") return bert_template(*post, size);
  if (type.string() != "TemplateProcessing")
    type.expected("\"BertProcessing\" or \"TemplateProcessing\"");
  post->only({"type", "single", "pair", "special_tokens"});
  const JsonView special = post->at("special_tokens");
  return {template_pieces(post->at("single"), special, size, 1),
          template_pieces(post->at("pair"), special, size, 2)};
}

}  // namespace

Tokenizer Tokenizer::from_json(const std::string& path) {
  return parse_json(read_file(path, kMaxBytes), path);
}

Tokenizer Tokenizer::parse_json(std::string_view text, const std::string& name) {
  const Json tree = Json::parse(text, name);
  const JsonView file(tree, name);
  file.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
             "post_processor", "decoder", "model"});
  if (const auto version = file.find("version")) version->is("1.0");
  TokenizerParts parts;
  read_normalizer(file, parts.normalizer);
  const JsonView pre_tokenizer = file.at("pre_tokenizer");
  pre_tokenizer.at("type").is("BertPreTokenizer");
  pre_tokenizer.only({"type"});
  if (const auto decoder = file.find("decoder"); decoder && !decoder->is_null())
    decoder->at("type").is("WordPiece");
  read_model(file, parts);
  read_added_tokens(file, parts);
  std::size_t size = parts.tokens.size();
  for (const AddedToken& token : parts.added)
    size = std::max(size, static_cast<std::size_t>(token.id) + 1);
  parts.around = read_template(file, size);
  return Tokenizer(std::move(parts));
}

}  // namespace retort::nn
