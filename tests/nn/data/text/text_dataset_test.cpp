// Samples of text through the door that recipes use: open_data().
#include "nn/data/text/text_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "nn/data/registry.h"
#include "nn/data/text/text_measures.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using namespace nn;
using I32 = std::vector<std::int32_t>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

I32 values(const Tensor& tensor) { return tensor.to_vector<std::int32_t>(); }

// Ids: [PAD] 0 [UNK] 1 [CLS] 2 [SEP] 3 [MASK] 4 a 5 b 6 c 7 ##d 8 . 9 , 10
class TextData : public ::testing::Test {
 protected:
  TextData() {
    spill(folder_ / "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n##d\n.\n,\n");
  }
  Options options(Options more) const {
    Options all{{"root", folder_.path()},
                {"vocab", std::string("vocab.txt")},
                {"case", std::string("uncased")},
                {"cache", folder_ / "cache"}};
    for (const auto& [key, value] : more) all.set(key, value);
    return all;
  }
  std::shared_ptr<const Dataset> open(const std::string& format, const std::string& content,
                                      Options more = {}, const std::string& split = "train") {
    spill(folder_ / "x", content);
    more.set(split + "_files", Strings{"x"});
    const bool ids = format == "tokens";
    if (ids) more.set("root", folder_.path());
    return open_data({format, split, ids ? more : options(more), {}});
  }
  std::string refused(const std::string& format, const std::string& content, Options more = {}) {
    try {
      open(format, content, std::move(more));
    } catch (const Error& e) {
      return std::to_string(static_cast<int>(e.code())) + " " + e.what();
    }
    return "accepted";
  }
  TemporaryFolder folder_;
};

const char* kTexts = "a b c\nad b\nc c c c c c c c\na\n";

Batch batch_of(const Dataset& data, std::vector<std::int64_t> samples, std::uint32_t epoch = 0,
               std::uint64_t seed = 7) {
  SourceOptions options;
  options.seed = seed;
  Batch batch = data.source(options)->make(samples, epoch);
  batch.check();
  return batch;
}

TEST_F(TextData, masked_rows_are_the_predicted_positions_and_their_ids) {
  const auto data = open("text", kTexts);
  const DataFacts& facts = data->facts();
  EXPECT_EQ(facts.gives, Reads::kTokens);
  EXPECT_EQ(facts.task, TextTask::kMaskedLm);
  EXPECT_EQ(facts.size, 4);
  EXPECT_EQ(facts.ids, 11);
  EXPECT_EQ(facts.classes, 11);
  EXPECT_FALSE(facts.labelled);
  EXPECT_TRUE(facts.redrawn);
  EXPECT_EQ(facts.vocabulary.size(), 32u);
  EXPECT_TRUE(data->labels().empty());
  const I32 whole[] = {{2, 5, 6, 7, 3}, {2, 5, 8, 6, 3}, {2, 7, 7, 7, 7, 7, 7, 7, 7, 3}, {2, 5, 3}};
  int changed = 0;
  for (std::uint32_t epoch = 0; epoch < 20; ++epoch) {
    const Batch batch = batch_of(*data, {0, 1, 2, 3}, epoch);
    const Inputs& in = batch.inputs[0];
    EXPECT_EQ(in.starts_on_host, (I32{0, 5, 10, 20, 23}));
    const I32 ids = values(in.values), targets = values(batch.targets);
    ASSERT_EQ(in.rows_on_host.size(), targets.size());
    std::vector<int> of_sample(4);
    for (std::size_t r = 0; r < targets.size(); ++r) {
      const auto b = static_cast<std::size_t>(batch.sample_of_row_on_host[r]);
      const std::int32_t at = in.rows_on_host[r] - in.starts_on_host[b];
      ASSERT_TRUE(at >= 0 && in.rows_on_host[r] < in.starts_on_host[b + 1]);
      EXPECT_EQ(targets[r], whole[b][static_cast<std::size_t>(at)]);
      EXPECT_GT(targets[r], 4) << "special tokens are not predicted";
      ++of_sample[b];
      changed += ids[static_cast<std::size_t>(in.rows_on_host[r])] != targets[r];
    }
    EXPECT_THAT(of_sample, ::testing::Each(::testing::Ge(1)));  // at least one each
    // Elsewhere nothing is changed.
    std::size_t r = 0;
    for (std::size_t b = 0, t = 0; b < 4; ++b)
      for (const std::int32_t id : whole[b]) {
        if (r < targets.size() && in.rows_on_host[r] == static_cast<std::int32_t>(t))
          ++r;
        else
          EXPECT_EQ(ids[t], id);
        ++t;
      }
  }
  EXPECT_GT(changed, 40);
}

TEST_F(TextData, masks_depend_on_seed_epoch_and_sample_alone) {
  const auto data = open("text", kTexts);
  const Batch all = batch_of(*data, {0, 1, 2, 3}, 3);
  const auto rows_of = [](const Batch& batch, std::int64_t b) {
    const Batch one = batch.slice(b, b + 1);
    return std::pair(values(one.inputs[0].values), values(one.targets));
  };
  const std::vector<std::int64_t> kept{3, 2};
  const auto part = data->subset(kept);
  EXPECT_EQ(part->size(), 2);
  EXPECT_NE(part->hash(), data->hash());
  EXPECT_EQ(rows_of(all, 2), rows_of(batch_of(*data, {2}, 3), 0));
  EXPECT_EQ(rows_of(all, 2), rows_of(batch_of(*part, {0, 1}, 3), 1));
  EXPECT_EQ(rows_of(all, 2),
            rows_of(batch_of(*part->subset(std::vector<std::int64_t>{1}), {0}, 3), 0));
  bool differs = false, other_seed = false;
  for (std::uint32_t epoch = 4; epoch < 12; ++epoch) {
    differs |= rows_of(all, 2) != rows_of(batch_of(*data, {2}, epoch), 0);
    other_seed |=
        rows_of(batch_of(*data, {2}, epoch), 0) != rows_of(batch_of(*data, {2}, epoch, 8), 0);
  }
  EXPECT_TRUE(differs);
  EXPECT_TRUE(other_seed);
  EXPECT_NE(all.variant[0], batch_of(*data, {0}, 4).variant[0]);
  EXPECT_NE(all.variant[0], batch_of(*data, {0}, 3, 8).variant[0]);
  EXPECT_NE(all.variant[0], 0u);
}

TEST_F(TextData, options_decide_the_hash_and_what_is_cut) {
  const auto data = open("text", kTexts);
  EXPECT_EQ(open("text", kTexts)->hash(), data->hash());
  EXPECT_NE(open("text", kTexts, {{"max_length", std::int64_t{5}}})->hash(), data->hash());
  EXPECT_NE(open("text", kTexts, {{"mask_share", 0.3}})->hash(), data->hash());
  EXPECT_NE(open("text", kTexts, {{"train_limit", std::int64_t{3}}})->hash(), data->hash());
  const auto cut = open("text", kTexts, {{"max_length", std::int64_t{4}}});
  EXPECT_EQ(batch_of(*cut, {0, 2}).inputs[0].starts_on_host, (I32{0, 4, 8}));
  EXPECT_EQ(open("text", kTexts, {{"train_limit", std::int64_t{3}}})->size(), 3);
  EXPECT_EQ(open("text", kTexts, {{"train_per_file", std::int64_t{2}}})->size(), 2);
}

TEST_F(TextData, token_counts_are_those_of_batches) {
  const std::string pairs =
      "{\"text\": \"a b ad\", \"second\": \"c\", \"label\": 0}\n"
      "{\"text\": \"a\", \"second\": \"c c c c\", \"label\": 1}\n";
  const Options pair{{"task", std::string("classification")}, {"second", std::string("second")}};
  for (const std::int64_t most : {0, 6, 64}) {
    Options cut = pair;
    cut.set("max_length", most);
    for (const auto& data :
         {open("jsonl", pairs, cut), open("text", kTexts, {{"max_length", most}}),
          open("tokens", R"({"input_ids": [5, 6], "labels": [5, 6]})")}) {
      const auto counts = data->measured("token_count");
      ASSERT_EQ(counts.size(), static_cast<std::size_t>(data->size()));
      for (std::int64_t i = 0; i < data->size(); ++i)
        EXPECT_EQ(static_cast<std::int64_t>(counts[static_cast<std::size_t>(i)]),
                  batch_of(*data, {i}).inputs[0].values.numel());
    }
  }
}

// Files are often sorted: the last ones may all be of one class.
TEST_F(TextData, samples_drawn_across_the_files_may_be_held_out) {
  std::string sorted;
  std::vector<float> every;
  for (int i = 1; i <= 40; ++i) {
    for (int w = 0; w < i; ++w) sorted += "a ";
    sorted += "\n";
    every.push_back(static_cast<float>(i));
  }
  const Options holdout{{"holdout", std::int64_t{8}}};
  const auto train = open("text", sorted, holdout)->measured("text_length");
  EXPECT_EQ(open("text", sorted, holdout)->measured("text_length"), train);
  Options all = options(holdout);
  all.set("train_files", Strings{"x"});
  const auto held = open_data({"text", "validation", all, {}})->measured("text_length");
  ASSERT_EQ(held.size(), 8u);
  EXPECT_LT(held.front(), 20);
  EXPECT_GT(held.back(), 20);
  std::vector<float> both = train;
  both.insert(both.end(), held.begin(), held.end());
  std::sort(both.begin(), both.end());
  EXPECT_EQ(both, every);
  EXPECT_TRUE(std::is_sorted(train.begin(), train.end()));  // in the order of the files
  open("text", kTexts);
  all.set("holdout", std::int64_t{4});
  EXPECT_THROW(open_data({"text", "train", all, {}}), Error);
  all.set("holdout", std::int64_t{0});
  EXPECT_EQ(open_data({"text", "validation", all, {}}), nullptr);
}

TEST_F(TextData, a_corpus_is_tokenised_once) {
  open("text", kTexts);
  const auto files = [&] {
    std::vector<std::pair<std::string, std::filesystem::file_time_type>> all;
    for (const auto& e : std::filesystem::recursive_directory_iterator(folder_ / "cache"))
      if (e.is_regular_file()) all.emplace_back(e.path().string(), e.last_write_time());
    std::sort(all.begin(), all.end());
    return all;
  };
  const auto before = files();
  EXPECT_EQ(before.size(), 2u);  // a shard and done.json
  open("text", kTexts, {{"max_length", std::int64_t{4}}});
  EXPECT_EQ(files(), before);
}

TEST_F(TextData, classes_of_pairs) {
  const std::string table = "first\tsecond\tlabel\na b\tc c c c\t2\nb\tc\t0\n";
  const Options pair{{"task", std::string("classification")},
                     {"text", std::string("first")},
                     {"second", std::string("second")}};
  const auto data = open("tsv", table, pair);
  EXPECT_EQ(data->classes(), 3);
  EXPECT_EQ(data->labels(), (I32{2, 0}));
  EXPECT_FALSE(data->facts().redrawn);
  const Batch batch = batch_of(*data, {1, 0});
  EXPECT_EQ(values(batch.inputs[0].values), (I32{2, 6, 3, 7, 3, 2, 5, 6, 3, 7, 7, 7, 7, 3}));
  EXPECT_EQ(values(batch.inputs[0].segments), (I32{0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(values(batch.targets), (I32{0, 2}));
  EXPECT_FALSE(batch.inputs[0].rows.defined());
  EXPECT_FALSE(batch.sample_of_row.defined());
  EXPECT_EQ(batch.variant, (std::vector<std::uint32_t>{0, 0}));
  Options shorter = pair;
  shorter.set("max_length", std::int64_t{7});  // longest first: c c, not a
  EXPECT_EQ(values(batch_of(*open("tsv", table, shorter), {0}).inputs[0].values),
            (I32{2, 5, 6, 3, 7, 7, 3}));
  shorter.set("truncation", std::string("only_first"));
  EXPECT_THAT(refused("tsv", table, shorter), HasSubstr("sample 1: 2 and 4 ids with 3 special"));
  // A class that the training files do not know.
  spill(folder_ / "y", "first\tsecond\tlabel\na\tb\t3\n");
  Options other = options(pair);
  other.set("train_files", Strings{"x"});
  other.set("test_files", Strings{"y"});
  EXPECT_THROW(open_data({"tsv", "test", other, {}}), Error);
}

TEST_F(TextData, choices_are_sequences_of_one_sample) {
  Options choice{{"task", std::string("multiple_choice")},
                 {"text", std::string("q")},
                 {"choices", Strings{"x", "y"}}};
  const auto data = open("jsonl", R"({"q": "a", "x": "b", "y": "c c", "label": 1}
{"q": "b", "x": "b", "y": "c", "label": 0})",
                         choice);
  EXPECT_EQ(data->classes(), 2);
  EXPECT_EQ(data->facts().choices, 2);
  const Batch batch = batch_of(*data, {0, 1});
  EXPECT_EQ(batch.size(), 2);
  EXPECT_EQ(batch.inputs[0].choices, 2);
  EXPECT_EQ(batch.inputs[0].starts_on_host, (I32{0, 5, 11, 16, 21}));
  EXPECT_EQ(values(batch.targets), (I32{1, 0}));
  const Batch second = batch.slice(1, 2);
  second.check();
  EXPECT_EQ(second.inputs[0].samples(), 1);
  EXPECT_EQ(second.inputs[0].choices, 2);
  EXPECT_EQ(values(second.inputs[0].values), (I32{2, 6, 3, 6, 3, 2, 6, 3, 7, 3}));
  EXPECT_THAT(refused("jsonl", R"({"q": "a", "x": "b", "y": "c", "label": 2})", choice),
              HasSubstr("expected a choice below 2, got 2"));
}

TEST_F(TextData, causal_rows_ask_for_the_next_id) {
  const auto data = open("text", "a b\nc\n", {{"task", std::string("causal_lm")}});
  const Batch batch = batch_of(*data, {0, 1});
  EXPECT_EQ(values(batch.inputs[0].values), (I32{2, 5, 6, 3, 2, 7, 3}));
  EXPECT_EQ(batch.inputs[0].rows_on_host, (I32{0, 1, 2, 4, 5}));
  EXPECT_EQ(values(batch.targets), (I32{5, 6, 3, 7, 3}));
  EXPECT_EQ(batch.sample_of_row_on_host, (I32{0, 0, 0, 1, 1}));
}

TEST_F(TextData, a_batch_without_rows_says_so) {
  const auto ids = open("tokens", R"({"input_ids": [5, 6], "labels": [-100, -100]})");
  const Batch batch = batch_of(*ids, {0});
  ASSERT_TRUE(batch.inputs[0].rows.defined());
  EXPECT_EQ(batch.inputs[0].rows.numel(), 0);
  EXPECT_EQ(batch.rows(), 0);
}

TEST_F(TextData, files_of_ids_say_themselves_what_is_predicted) {
  const auto data = open(
      "tokens",
      R"({"input_ids": [3, 9, 4, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "labels": [-100, 7, -100, -100, -100], "token_type_ids": [0, 0, 1, 0, 0]}
{"input_ids": [1, 2], "labels": [2, 1]})");
  EXPECT_EQ(data->facts().ids, 10);
  EXPECT_FALSE(data->facts().redrawn);
  const Batch batch = batch_of(*data, {0, 1}, 5);
  EXPECT_EQ(values(batch.inputs[0].values), (I32{3, 9, 4, 1, 2}));
  EXPECT_EQ(values(batch.inputs[0].segments), (I32{0, 0, 1, 0, 0}));
  EXPECT_EQ(batch.inputs[0].rows_on_host, (I32{1, 3, 4}));
  EXPECT_EQ(values(batch.targets), (I32{7, 2, 1}));
  const auto classes =
      open("tokens", "{\"input_ids\": [3], \"label\": 0}\n{\"input_ids\": [1, 2], \"label\": 2}\n",
           {{"task", std::string("classification")}});
  EXPECT_EQ(classes->classes(), 3);
  const auto choice = open("tokens", R"({"input_ids": [[3], [1, 2]], "label": 1})",
                           {{"task", std::string("multiple_choice")}});
  EXPECT_EQ(batch_of(*choice, {0}).inputs[0].starts_on_host, (I32{0, 1, 3}));
  const auto causal =
      open("tokens", R"({"input_ids": [4, 5, 6]})", {{"task", std::string("causal_lm")}});
  EXPECT_EQ(values(batch_of(*causal, {0}).targets), (I32{5, 6}));
}

TEST_F(TextData, mistakes_in_files_of_ids_are_bad_input_with_file_and_line) {
  const auto says = [&](const std::string& line, const std::string& what, Options more = {}) {
    const std::string text =
        refused("tokens", "{\"input_ids\": [1], \"labels\": [1]}\n" + line, more);
    EXPECT_THAT(text, HasSubstr("x:2: " + what)) << line;
    EXPECT_EQ(text[0], '3') << text;
  };
  says(R"({"input_ids": [1, 2], "labels": [1]})",
       "/labels: expected 2 values, as many as input_ids, got 1");
  says(R"({"input_ids": [1, 2], "labels": [1, -1]})", "/labels/1: expected an id or -100");
  says(R"({"input_ids": [1, 9], "labels": [1, 1]})",
       "/input_ids/1: expected an id in [0, 9), got 9", {{"ids", std::int64_t{9}}});
  says(R"({"input_ids": [], "labels": []})", "/input_ids: expected at least one id");
  says(R"({"input_ids": [1, 2]})", "");
  says(R"({"input_ids": [1, 2], "labels": [1, 1], "attention_mask": [0, 1]})",
       "/attention_mask: expected a 1 first");
  says(R"({"input_ids": [1, 2, 3], "labels": [1, 1, 1], "attention_mask": [1, 0, 1]})",
       "/attention_mask: expected no 1 behind a 0");
  says(R"({"input_ids": [1, "2"], "labels": [1, 1]})", "/input_ids/1: expected an integer");
  says("{\"input_ids\": [1, 2", "");
}

TEST_F(TextData, keys_that_do_not_fit_are_mistakes) {
  const auto fault = [&](Options more, const std::string& format = "text") {
    const DataKind& kind = data_kinds().at(format);
    const auto found = kind.check(complete(format, kind.options, options(std::move(more))));
    return found ? found->key : "";
  };
  EXPECT_EQ(fault({}), "");
  EXPECT_EQ(fault({{"vocab", std::string()}}), "tokenizer");
  EXPECT_EQ(fault({{"tokenizer", std::string("t.json")}}), "tokenizer");
  EXPECT_EQ(fault({{"case", std::string("unset")}}), "case");
  EXPECT_EQ(fault({{"mask_as_random", 0.5}}), "mask_as_random");
  EXPECT_EQ(fault({{"task", std::string("multiple_choice")}}, "tsv"), "choices");
  EXPECT_EQ(fault({{"split", std::string("paper")}, {"undersample", true}}, "bioasq"),
            "undersample");
}

TEST_F(TextData, heuristics_of_texts_by_hand) {
  // Words: a b ad . b / c, c c / (none)
  const auto data = open("text", "a b ad. b.\nc, c c\n, .\n");
  EXPECT_EQ(data->measured("text_length"), (std::vector<float>{7, 4, 2}));
  const auto sentence = data->measured("sentence_length");
  EXPECT_FLOAT_EQ(sentence[0], 2);  // a b ad / b
  EXPECT_FLOAT_EQ(sentence[1], 3);
  EXPECT_TRUE(std::isnan(sentence[2]));
  const auto diction = data->measured("diction");
  EXPECT_FLOAT_EQ(diction[0], 0.75f);
  EXPECT_FLOAT_EQ(diction[1], 1.0f / 3);
  const auto rare = data->measured("word_frequency");  // of 7 words: a 1, b 2, ad 1, c 3
  EXPECT_NEAR(rare[0], -(2 * std::log(1 / 7.0) + 2 * std::log(2 / 7.0)) / 4, 1e-6);
  EXPECT_NEAR(rare[1], -std::log(3 / 7.0), 1e-6);
  EXPECT_TRUE(data->measured("p_true").empty());
  EXPECT_EQ(data->subset(std::vector<std::int64_t>{1})->measured("text_length"),
            (std::vector<float>{4}));
}

}  // namespace
}  // namespace retort::test
