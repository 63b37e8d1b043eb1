#include "nn/text/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string conflict(const Vocabulary& a, const Vocabulary& b) {
  try {
    check_same_words(a, b);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    return e.what();
  }
}

TEST(Vocabulary, is_read_from_what_a_folder_has) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(read_vocabulary(folder / "nothing").tokens.empty());
  make_folders(folder / "a");
  write_file_atomically(folder / "a/vocab.json", R"({"b":1,"a":0,"d":3})");
  EXPECT_THAT(read_vocabulary(folder / "a").tokens, ElementsAre("a", "b", "", "d"));
  write_file_atomically(folder / "a/tokenizer.json",
                        R"({"model":{"type":"BPE","vocab":{"x":0,"y":1}},
                            "added_tokens":[{"id":2,"content":"<|end|>"}]})");
  EXPECT_THAT(read_vocabulary(folder / "a").tokens, ElementsAre("x", "y", "<|end|>"));
  write_file_atomically(folder / "a/vocab.txt", "[UNK]\n[CLS]\n[SEP]\nword\n");
  EXPECT_THAT(read_vocabulary(folder / "a").tokens, ElementsAre("[UNK]", "[CLS]", "[SEP]", "word"));
}

TEST(Vocabulary, the_first_conflict_is_named) {
  const Vocabulary a{"A", {"x", "y", "", "w"}};
  EXPECT_EQ(conflict(a, {"B", {"x", "y", "z", "w"}}), "");  // an id without a word
  EXPECT_EQ(conflict(a, {"B", {}}), "");
  EXPECT_THAT(conflict(a, {"B", {"x", "v", "z", "u"}}), HasSubstr("id 1 is 'y' in A and 'v' in B"));
  EXPECT_THAT(conflict(a, {"B", {"x", "y"}}), HasSubstr("id 3 is 'w' in A, and B has 2 ids"));
  EXPECT_THAT(conflict({"B", {"x", "y"}}, a), HasSubstr("id 3 is 'w' in A, and B has 2 ids"));
}

}  // namespace
}  // namespace retort::nn
