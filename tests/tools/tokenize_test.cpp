#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class Tokenize : public Kdtrain {
 protected:
  void SetUp() override {
    Kdtrain::SetUp();
    write("vocab.txt",
          "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nUn\n!\n[\n]\nmask\n");
  }
  Result tokenize(const std::string& options, const std::string& input,
                  const std::string& out = "out") const {
    write("in", input);
    const int status =
        std::system(("cd '" + folder_.string() + "' && '" RETORT_KDTRAIN "' tokenize " + options +
                     " < in > " + out + " 2> err")
                        .c_str());
    return {WEXITSTATUS(status), read(path("out")), read(path("err"))};
  }
};

TEST_F(Tokenize, a_list_for_each_line) {
  Result r = tokenize("--vocab vocab.txt --uncased", "Unaffable!\n\n[MASK] un\r\nno newline");
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out, "[5, 6, 7, 9]\n[]\n[10, 12, 11, 5]\n[1, 1]\n");
  r = tokenize("--vocab vocab.txt --cased", "Unaffable!\nunaffable\n");
  EXPECT_EQ(r.out, "[8, 6, 7, 9]\n[5, 6, 7]\n");
  EXPECT_EQ(tokenize("--vocab vocab.txt --cased", "").out, "");
}

TEST_F(Tokenize, lines_longer_than_what_is_read_at_once) {
  std::string text, want = "[";
  for (int i = 0; i < 200000; ++i) text += "un ", want += i == 0 ? "5" : ", 5";
  const Result r = tokenize("--vocab vocab.txt --uncased", text + "\n!\n" + text);
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out, want + "]\n[9]\n" + want + "]\n");
}

TEST_F(Tokenize, tokenizer_json_with_its_special_tokens) {
  write("tokenizer.json",
        R"({"version":"1.0","truncation":{"max_length":1},"padding":{"strategy":{"Fixed":9}},)"
        R"("added_tokens":[{"id":1,"content":"[MASK]","single_word":false,"lstrip":false,)"
        R"("rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":)"
        R"("BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,)"
        R"("lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,)"
        R"("decoder":null,"model":{"type":"WordPiece","unk_token":"[UNK]",)"
        R"("continuing_subword_prefix":"##","max_input_chars_per_word":3,"vocab":)"
        R"({"[UNK]":0,"[MASK]":1,"un":2,"##un":3}}})");
  const Result r = tokenize("--tokenizer tokenizer.json", "UN[MASK] un\nunun\n");
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out, "[2, 1, 2]\n[0]\n");
  EXPECT_THAT(tokenize("--tokenizer tokenizer.json --cased", "").err, HasSubstr("go with --vocab"));
}

TEST_F(Tokenize, what_is_wrong_is_said_with_its_place) {
  Result r = tokenize("--vocab vocab.txt --uncased", "un\nun \xff\n");
  EXPECT_EQ(r.status, 3);
  EXPECT_EQ(r.out, "[5]\n");
  EXPECT_THAT(r.err, HasSubstr("standard input:2: byte 7 of the input: expected UTF-8"));
  r = tokenize("--vocab vocab.txt --uncased", std::string("un\0\n", 4));
  EXPECT_EQ(r.status, 3);
  EXPECT_THAT(r.err, HasSubstr("standard input:1: byte 3 of the input"));
  write("twice.txt", "[UNK]\na\na\n");
  r = tokenize("--vocab twice.txt --uncased", "a\n");
  EXPECT_EQ(r.status, 3);
  EXPECT_THAT(r.err, HasSubstr("twice.txt:3: byte 9 of the file: the entry 'a' is on line 2 too"));
  EXPECT_EQ(tokenize("--vocab nowhere.txt --uncased", "").status, 4);
  EXPECT_EQ(tokenize("--vocab vocab.txt", "").status, 2);
  EXPECT_EQ(tokenize("--vocab vocab.txt --cased --uncased", "").status, 2);
  EXPECT_EQ(tokenize("", "").status, 2);
  EXPECT_EQ(tokenize("--vocab vocab.txt --cased --tokenizer t.json", "").status, 2);
  EXPECT_EQ(tokenize("--vocab vocab.txt --cased", "un\n", "/dev/full").status, 4);
}

}  // namespace
}  // namespace retort::tools
