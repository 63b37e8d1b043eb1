#include "nn/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/data/packed_file.h"
#include "tests/fuzz/wordpiece_fuzz.cpp"
#include "tests/support/mutate.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using nn::Encoding;
using nn::Tokenizer;
using nn::Truncation;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::int32_t> ids_of(const Json& list) {
  std::vector<std::int32_t> ids;
  for (const Json& id : list.items()) ids.push_back(static_cast<std::int32_t>(id.as_integer()));
  return ids;
}

const Json& golden() {
  static const Json all = Json::read(RETORT_SOURCE_DIR "/tests/golden/wordpiece.json");
  return all;
}

Truncation truncation_of(const std::string& name) {
  return name == "only_first"    ? Truncation::kOnlyFirst
         : name == "only_second" ? Truncation::kOnlySecond
                                 : Truncation::kLongestFirst;
}

void expect_refused(const std::function<void()>& act, ErrorCode code, const std::string& says) {
  try {
    act();
    ADD_FAILURE() << "accepted, expected: " << says;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(says));
  }
}

constexpr const char* kVocab =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\na\n##b\n!\n\xc3\xa9\ne\n##e\n";

// tests/golden/wordpiece.py asked Google's reference.
TEST(Tokenizer, vocab_txt_means_what_the_reference_makes_of_it) {
  std::string vocab;
  for (const Json& token : golden().at("reference").at("vocab").items())
    vocab += token.as_string() + "\n";
  const Tokenizer cased = Tokenizer::parse_vocab(vocab, "golden", false);
  const Tokenizer uncased = Tokenizer::parse_vocab(vocab, "golden", true);
  ASSERT_GT(golden().at("reference").at("cases").items().size(), 60u);
  for (const Json& c : golden().at("reference").at("cases").items()) {
    const std::string& text = c.at("text").as_string();
    EXPECT_EQ(cased.encode(text), ids_of(c.at("cased"))) << escaped(text);
    EXPECT_EQ(uncased.encode(text), ids_of(c.at("uncased"))) << escaped(text);
  }
}

// tests/golden/wordpiece.py asked tokenizers 0.23.
TEST(Tokenizer, tokenizer_json_means_what_tokenizers_makes_of_it) {
  ASSERT_EQ(golden().at("tokenizers").items().size(), 4u);
  for (const Json& one : golden().at("tokenizers").items()) {
    const Tokenizer t = Tokenizer::parse_json(one.at("tokenizer").dump(), "golden");
    for (const Json& c : one.at("cases").items())
      EXPECT_EQ(t.encode(c.at("text").as_string()), ids_of(c.at("ids")))
          << escaped(c.at("text").as_string());
    for (const Json& c : one.at("pairs").items()) {
      const auto encoded = [&] {
        return t.encode_pair(c.at("first").as_string(), c.at("second").as_string(),
                             c.at("max_length").as_unsigned(),
                             truncation_of(c.at("truncation").as_string()));
      };
      if (c.find("refused") != nullptr) {
        expect_refused(encoded, ErrorCode::kBadInput, "expected a text of more than");
        continue;
      }
      EXPECT_EQ(encoded().ids, ids_of(c.at("ids"))) << c.dump();
      EXPECT_EQ(encoded().types, ids_of(c.at("types"))) << c.dump();
    }
  }
}

TEST(Tokenizer, real_vocabularies_on_real_text) {
  const char* data = std::getenv("RETORT_DATA");
  if (data == nullptr) GTEST_SKIP() << "RETORT_DATA is not set: no vocabularies";
  const std::string folder = std::string(data) + "/tokenizer/";
  const Tokenizer cased = Tokenizer::from_vocab(folder + "bert-base-cased-vocab.txt", false);
  const Tokenizer uncased = Tokenizer::from_vocab(folder + "bert-base-uncased-vocab.txt", true);
  EXPECT_EQ(cased.size(), 28996);
  EXPECT_EQ(uncased.size(), 30522);
  const std::string lines = nn::read_packed(folder + "wordpiece_vectors.jsonl", 16 << 20);
  int count = 0, wrong = 0;
  for (std::size_t at = 0; at < lines.size(); ++count) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const Json v = Json::parse(std::string_view(lines).substr(at, end - at), "vectors");
    wrong += cased.encode(v.at("text").as_string()) != ids_of(v.at("cased"));
    wrong += uncased.encode(v.at("text").as_string()) != ids_of(v.at("uncased"));
    at = end + 1;
  }
  EXPECT_EQ(count, 741);
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, special_tokens_around_texts) {
  const Tokenizer t = Tokenizer::parse_vocab(kVocab, "v", true);
  const Encoding one = t.encode_single("unaffable!");
  EXPECT_THAT(one.ids, ElementsAre(2, 5, 6, 7, 10, 3));
  EXPECT_THAT(one.types, ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(t.encode_single("unaffable!", 4).ids, ElementsAre(2, 5, 6, 3));
  EXPECT_THAT(t.encode_single("", 2).ids, ElementsAre(2, 3));
  const Encoding two = t.encode_pair("a", "e!");
  EXPECT_THAT(two.ids, ElementsAre(2, 8, 3, 12, 10, 3));
  EXPECT_THAT(two.types, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(t.surround({8}, {12, 10}).ids, ElementsAre(2, 8, 3, 12, 10, 3));
  expect_refused([&] { t.encode_single("a", 1); }, ErrorCode::kUsage,
                 "a length of at least 2, the special tokens alone, got 1");
  const Tokenizer bare = Tokenizer::parse_vocab("[UNK]\na\n", "v", true);
  expect_refused([&] { bare.encode_single("a"); }, ErrorCode::kUsage, "no [CLS] and [SEP]");
}

TEST(Tokenizer, tokens_by_id_and_ids_by_token) {
  const Tokenizer t = Tokenizer::parse_vocab(kVocab, "v", true);
  EXPECT_EQ(t.size(), 14);
  EXPECT_EQ(t.id("##aff"), 6);
  EXPECT_EQ(t.token(6), "##aff");
  EXPECT_EQ(t.id("affe"), -1);
  EXPECT_EQ(t.unknown_id(), 1);
  for (std::int32_t id = 0; id < t.size(); ++id) EXPECT_EQ(t.is_special(id), id < 5);
  EXPECT_EQ(t.special().size(), 14u);
  EXPECT_THROW(t.token(14), Error);
}

TEST(Tokenizer, the_hash_is_of_vocabulary_and_rules) {
  const std::string hash = Tokenizer::parse_vocab(kVocab, "v", true).hash();
  EXPECT_EQ(hash, Tokenizer::parse_vocab(kVocab, "elsewhere", true).hash());
  EXPECT_NE(hash, Tokenizer::parse_vocab(kVocab, "v", false).hash());
  EXPECT_NE(hash, Tokenizer::parse_vocab(std::string(kVocab) + "more\n", "v", true).hash());
  EXPECT_NE(Tokenizer::parse_vocab("[UNK]\nab\nc\n", "v", true).hash(),
            Tokenizer::parse_vocab("[UNK]\na\nbc\n", "v", true).hash());
}

TEST(Tokenizer, one_object_serves_many_threads) {
  const Tokenizer t = Tokenizer::parse_vocab(kVocab, "v", true);
  const std::string text =
      "unaffable \xc3\x89! a\xcc\x81"
      "e un\xe4\xb8\xad";
  const auto want = t.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      for (int i = 0; i < 200; ++i) wrong[k] += t.encode(text) != want;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(Tokenizer, vocab_errors_name_file_line_and_byte) {
  const std::pair<std::string, const char*> cases[] = {
      {"[UNK]\na\n\xff\n", "v.txt:3: byte 9 of the file: expected UTF-8"},
      {"[UNK]\nab\xe2\x82\nc\n", "v.txt:2: byte 9 of the file: expected UTF-8"},
      {std::string("[UNK]\na\0b\n", 10), "v.txt:2: byte 8 of the file: expected text, got U+0000"},
      {"[UNK]\na\nb\na\n", "v.txt:4: byte 11 of the file: the entry 'a' is on line 2 too"},
      {"[UNK]\na\n a \n", "v.txt:3: byte 9 of the file: the entry 'a' is on line 2 too"},
      {"\xef\xbb\xbf[UNK]\na\n", "v.txt:1: byte 1 of the file: expected no byte order mark"},
      {"a\nb\n", "v.txt: the 2 lines hold no [UNK]"},
      {"", "v.txt: the 0 lines hold no [UNK]"},
  };
  for (const auto& [text, says] : cases)
    expect_refused([&t = text] { Tokenizer::parse_vocab(t, "v.txt", true); }, ErrorCode::kBadInput,
                   says);
  expect_refused([] { Tokenizer::from_vocab("/nowhere/vocab.txt", true); }, ErrorCode::kIo,
                 "/nowhere/vocab.txt");
  // Lines end at \n alone and need none at the end; white space around a token is not part of it.
  const Tokenizer t = Tokenizer::parse_vocab("[UNK]\r\na\xc2\xa0\n\nb\xe2\x80\xa8", "v.txt", true);
  EXPECT_EQ(t.size(), 4);
  EXPECT_THAT(t.encode("a b"), ElementsAre(1, 3));
}

TEST(Tokenizer, text_that_is_not_utf8_is_refused_with_its_byte) {
  const Tokenizer t = Tokenizer::parse_vocab(kVocab, "v", true);
  for (const std::string bad : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"})
    expect_refused([&] { t.encode("a b" + bad + "c"); }, ErrorCode::kBadInput,
                   "byte 3 of the text");
}

// Each takes the whole file and changes one thing.
TEST(Tokenizer, tokenizer_json_errors_name_the_pointer) {
  const std::string good = golden().at("tokenizers").items()[0].at("tokenizer").dump();
  ASSERT_NO_THROW(Tokenizer::parse_json(good, "t.json"));
  struct Case {
    const char *from, *to, *says;
  };
  const Case cases[] = {
      {"\"BertNormalizer\"", "\"NFC\"", "t.json: /normalizer/type: expected \"BertNormalizer\""},
      {"\"clean_text\":true", "\"clean_text\":1", "/normalizer/clean_text: expected true or false"},
      {"\"clean_text\":true,", "", "/normalizer: expected the key 'clean_text'"},
      {"\"clean_text\"", "\"extra\":0,\"clean_text\"", "/normalizer/extra: a key that this"},
      {"\"BertPreTokenizer\"", "\"Whitespace\"", "/pre_tokenizer/type: expected"},
      {"\"type\":\"WordPiece\",\"unk", "\"type\":\"BPE\",\"unk", "/model/type: expected"},
      {"\"unk_token\":\"[UNK]\"", "\"unk_token\":\"<unk>\"",
       "/model/vocab: expected an entry '<unk>'"},
      {"\"[CLS]\":2", "\"[CLS]\":3", "/model/vocab/[SEP]: the id 3 is that of '[CLS]' too"},
      {"\"[CLS]\":2", "\"[CLS]\":-2", "/model/vocab/[CLS]: expected an integer"},
      {"\"[CLS]\":2", "\"[CLS]\":4000000000", "/model/vocab/[CLS]: expected an integer"},
      {"\"[CLS]\":2", "\"[UNK]\":2", "the key '[UNK]' appears twice"},
      {"\"version\":\"1.0\"", "\"version\":\"2.0\"", "/version: expected \"1.0\", got \"2.0\""},
      {"\"version\"", "\"more\":1,\"version\"", "/more: a key that this version does not know"},
      {"\"id\":0,\"content\"", "\"id\":7,\"content\"",
       "/added_tokens/0/id: expected 0, the id that '[PAD]'"},
      {"\"content\":\"<on\"", "\"content\":\"\"", "/content: expected 1 to 1024 bytes"},
      {"\"content\":\"<on\"", "\"content\":\"aa\"", "/content: this token was added before"},
      {"\"TemplateProcessing\"", "\"ByteLevel\"",
       "/post_processor/type: expected \"BertProcessing\" or"},
      {"\"ids\":[2]", "\"ids\":[99999]",
       "/post_processor/special_tokens/[CLS]/ids/0: expected an integer"},
      {"{\"Sequence\":{\"id\":\"A\"", "{\"Sequence\":{\"id\":\"C\"",
       "/single/1/Sequence/id: expected \"A\" or \"B\""},
      {"{\"Sequence\":{\"id\":\"A\"", "{\"Sequence\":{\"id\":\"B\"",
       "/post_processor/single: expected the sequence A once"},
      {"\"decoder\":{\"type\":\"WordPiece\"", "\"decoder\":{\"type\":\"BPE\"",
       "/decoder/type: expected"},
  };
  for (const Case& c : cases) {
    std::string text = good;
    const std::size_t at = text.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    text.replace(at, std::string(c.from).size(), c.to);
    expect_refused([&] { Tokenizer::parse_json(text, "t.json"); }, ErrorCode::kBadInput, c.says);
  }
  TemporaryFolder folder;
  spill(folder / "t.json", good);
  EXPECT_EQ(Tokenizer::from_json(folder / "t.json").hash(),
            Tokenizer::parse_json(good, "x").hash());
}

TEST(Tokenizer, an_added_token_is_no_piece_of_a_word) {
  Json file = golden().at("tokenizers").items()[0].at("tokenizer");
  const Tokenizer t = Tokenizer::parse_json(file.dump(), "t.json");
  const std::int32_t added = t.id("aa");  // single_word
  EXPECT_THAT(t.encode("aa"), ElementsAre(added));
  EXPECT_THAT(t.encode("aae"), ElementsAre(t.id("a"), t.id("##a"), t.id("##e")));
  EXPECT_EQ(t.token(added), "aa");
  EXPECT_EQ(t.size(), t.id("Caf\xc3\xa9") + 1);
}

TEST(Tokenizer, survives_mutated_files_and_texts) {
  const std::string vocab = kVocab;
  const std::string text =
      "Unaffable caf\xc3\xa9 \xce\xa3\xce\xb1\xce\xa3 \xe4\xb8\xad\xe6\x96\x87 "
      "e\xcc\x81\xe3\x80\xae"
      "\xf0\x9d\x85\xa5 \xed\x95\x9c\xef\xbf\xbd\xe2\x80\xa8!\xc2\xa0[MASK]";
  const std::string json =
      R"({"version":"1.0","added_tokens":[{"id":1,"content":"[X]","single_word":true,"lstrip":true,)"
      R"("rstrip":true,"normalized":false,"special":true},{"id":4,"content":"Ab c","single_word":false,)"
      R"("lstrip":true,"rstrip":true,"normalized":true,"special":false}],"normalizer":{"type":)"
      R"("BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,)"
      R"("lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":)"
      R"("BertProcessing","sep":["[X]",1],"cls":["[X]",1]},"decoder":null,"model":{"type":"WordPiece",)"
      R"("unk_token":"u","continuing_subword_prefix":"##","max_input_chars_per_word":9,"vocab":)"
      R"({"u":0,"[X]":1,"a":2,"##b":3}}})";
  fuzz_vocab(vocab);
  ASSERT_NO_THROW(Tokenizer::parse_json(json, "seed"));
  for (std::uint32_t i = 0; i < 1500; ++i) {
    fuzz_vocab(mutated(vocab, 3, i, "\n#[]UNK \xc3\xff\xe2"));
    fuzz_tokenizer_json(mutated(json, 4, i, "{}[]\",:0123456789-#ab tf\xc3"));
    fuzz_text(mutated(text, 5, i, " \n\t#!aAbB\xc3\xcc\x81\xce\xa3\xe3\x80\xae\xed\xff"));
  }
}

}  // namespace
}  // namespace retort::test
