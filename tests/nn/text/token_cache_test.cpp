#include "nn/text/token_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/common/check.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using nn::TokenCache;
using nn::TokenCacheKey;
using nn::Tokenizer;
using ::testing::HasSubstr;

// Texts of 0 to 6 words, 23 of them.
class Corpus : public ::testing::Test {
 protected:
  static std::string text(std::size_t i) {
    std::string out;
    for (std::size_t k = 0; k < i * 5 % 7; ++k) out += (i + k) % 3 == 0 ? "un " : "unaffable ";
    return out;
  }
  // Counts how often it was asked, so that tests see what was done again.
  TokenCache::Texts texts(std::size_t count = 23) {
    return [this, count, i = std::size_t{0}](std::string& to) mutable {
      ++asked_;
      if (i >= count) return false;
      to = text(i++);
      return true;
    };
  }
  TokenCache open(const TokenCache::Texts& from, const TokenCache::Progress& progress = {},
                  const std::string& corpus = "c") {
    return TokenCache::open_or_build(folder_.path(), {corpus, tokenizer_.hash()}, tokenizer_, from,
                                     progress, 4);
  }
  void expect_all(const TokenCache& cache, std::size_t count = 23) {
    ASSERT_EQ(cache.size(), count);
    std::uint64_t tokens = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto want = tokenizer_.encode(text(i));
      EXPECT_EQ(cache.ids(i), want) << i;
      EXPECT_EQ(cache.length(i), want.size());
      tokens += want.size();
    }
    EXPECT_EQ(cache.tokens(), tokens);
  }
  std::vector<std::string> files() const {
    std::vector<std::string> paths;
    for (const auto& e : std::filesystem::recursive_directory_iterator(folder_.path()))
      if (e.is_regular_file()) paths.push_back(e.path().string());
    std::sort(paths.begin(), paths.end());
    return paths;
  }
  TemporaryFolder folder_;
  Tokenizer tokenizer_ = Tokenizer::parse_vocab("[UNK]\nun\n##aff\n##able\n", "v", true);
  int asked_ = 0;
};

TEST_F(Corpus, is_tokenised_once_and_read_back) {
  expect_all(open(texts()));
  EXPECT_EQ(asked_, 24);
  expect_all(open(texts()));
  EXPECT_EQ(asked_, 24) << "the second time nothing is read";
  EXPECT_EQ(files().size(), 7u);  // done.json, five shards of 4, one of 3
  expect_all(open(texts(5), {}, "another"), 5);
  const TokenCache cache = open(texts());
  EXPECT_EQ(cache.ids(5, 2).size(), 2u);
  EXPECT_THROW(cache.ids(23), Error);
}

TEST_F(Corpus, an_interrupted_one_goes_on_where_it_was) {
  auto source = texts();
  int given = 0;
  const TokenCache::Texts breaks = [&](std::string& to) {
    if (++given == 15) throw std::runtime_error("interrupted");
    return source(to);
  };
  EXPECT_THROW(open(breaks), std::runtime_error);
  EXPECT_EQ(files().size(), 3u);  // 14 texts: three shards
  const std::string third = slurp(files()[2]);
  const auto written = std::filesystem::last_write_time(files()[2]);
  expect_all(open(texts()));
  EXPECT_EQ(std::filesystem::last_write_time(files()[3]), written) << "made again";
  EXPECT_EQ(slurp(files()[3]), third);
}

TEST_F(Corpus, a_damaged_shard_is_made_again) {
  expect_all(open(texts()));
  for (const std::string& path : files()) {
    std::string bytes = slurp(path);
    bytes[bytes.size() / 2] ^= 1;
    spill(path, bytes);
    if (path.ends_with(".tok")) expect_all(open(texts()));
  }
  std::string cut = slurp(files().back());
  spill(files().back(), cut.substr(0, cut.size() - 1));
  expect_all(open(texts()));
  spill(files().back(), "");
  expect_all(open(texts()));
}

TEST_F(Corpus, a_corpus_that_was_cut_off_is_completed) {
  expect_all(open(texts(10)), 10);
  std::filesystem::remove(files()[0]);  // done.json
  expect_all(open(texts(23)));
}

TEST_F(Corpus, errors_name_the_text) {
  const TokenCache::Texts bad = [n = 0](std::string& to) mutable {
    to = ++n == 3 ? "un \xff" : "un";
    return n < 9;
  };
  try {
    open(bad);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_THAT(e.what(), HasSubstr("text 3: [tokenizer] byte 3 of the text is not UTF-8"));
  }
  expect_all(open(texts()));
  std::filesystem::remove(files()[0]);
  EXPECT_THROW(open(texts(3)), Error);  // fewer than are cached
  EXPECT_THROW(TokenCache::open_or_build(folder_.path(), {"c", "other"}, tokenizer_, texts()),
               Error);
}

TEST_F(Corpus, progress_is_told_and_can_stop) {
  std::uint64_t last = 99;
  open(texts(), [&](std::uint64_t n) { last = n; });
  EXPECT_EQ(last, 23u);
}

}  // namespace
}  // namespace retort::test
