#include "curriculum/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace curriculum;
using ::testing::HasSubstr;
using Indices = std::vector<std::int64_t>;
using Labels = std::vector<std::int32_t>;
using Flags = std::vector<std::uint8_t>;

nn::Options options(const nn::Options& given) {
  return nn::complete("curriculum", curriculum_options(), given);
}

// Two classes of two; sample 3 is wrong.
SampleStatistics statistics() {
  SampleStatistics s;
  s.max_logit = {4, 8, 6, 7};
  s.entropy = {0.5f, 0.1f, 0.4f, 0.2f};
  s.correct = {1, 1, 1, 0};
  return s;
}
const Labels kLabels{0, 0, 1, 1};

template <class Function>
Error error_of(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kOk, "nothing was thrown");
}

TEST(CurriculumOptions, keys_defaults_and_effects) {
  const struct {
    const char *key, *fallback;
    bool order;
  } rows[] = {{"name", "\"\"", false},
              {"scorer", "\"teacher\"", true},
              {"score", "\"logit\"", true},
              {"inverse", "\"off\"", true},
              {"stratify", "true", true},
              {"file", "\"\"", true},
              {"confidence", "\"linear\"", true},
              {"confidence_quantile", "0.99", true},
              {"nan", "\"refuse\"", true},
              {"nan_value", "1.0", true},
              {"pacing", "\"none\"", false},
              {"start", "0.2", false},
              {"increase", "1.9", false},
              {"pacing_steps", "[100]", false},
              {"full_at", "0.5", false}};
  const std::vector<nn::OptionSpec> specs = curriculum_options();
  ASSERT_GE(specs.size(), std::size(rows));
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    EXPECT_EQ(specs[i].key, rows[i].key);
    EXPECT_EQ(nn::to_toml(specs[i].fallback), rows[i].fallback) << rows[i].key;
    EXPECT_EQ((specs[i].effects & nn::kChangesOrder) != 0, rows[i].order) << rows[i].key;
    EXPECT_EQ((specs[i].effects & nn::kChangesResult) != 0, i != 0) << rows[i].key;
    EXPECT_FALSE(specs[i].doc.empty()) << rows[i].key;
  }
  EXPECT_EQ(specs[1].choices, "teacher|random|file|data");
  EXPECT_EQ(curriculum_options({"teacher", "student"})[1].choices,
            "teacher|student|random|file|data");
  EXPECT_EQ(specs[3].choices, "off|reverse_exact|reverse_correct_only");
  // What today's recipes may say.
  for (const char* word : {"logit", "prob", "logprob", "p_true", "margin", "entropy", "loss"})
    EXPECT_EQ(options({{"score", word}}).text("score"), word);
  for (const char* word : {"none", "fixed_exponential", "varied_exponential", "single_step",
                           "linear", "quadratic", "root", "exp", "log", "step", "competence"})
    EXPECT_EQ(options({{"pacing", word}}).text("pacing"), word);
}

TEST(CurriculumOptions, a_score_from_outside_becomes_a_choice) {
  score_kinds().add(
      {.names = {"test_constant"}, .doc = "Of a test.", .of = [](const SampleStatistics& s) {
         return std::vector<float>(s.size(), 1);
       }});
  const Curriculum c = make_curriculum(options({{"score", "test_constant"}, {"stratify", false}}),
                                       statistics(), kLabels, 0);
  EXPECT_EQ(c.order.indices, (Indices{0, 1, 2, 3}));
}

TEST(CurriculumOptions, mistakes) {
  EXPECT_TRUE(curriculum_mistakes(options({})).empty());
  const auto keys = [](const nn::Options& given) {
    std::string all;
    for (const Mistake& mistake : curriculum_mistakes(options(given))) all += mistake.key + " ";
    return all;
  };
  EXPECT_EQ(keys({{"scorer", "file"}}), "file ");
  EXPECT_EQ(keys({{"file", "a.csv"}}), "file ");
  EXPECT_EQ(keys({{"scorer", "file"}, {"file", "a.csv"}}), "");
  EXPECT_EQ(keys({{"nan", "quantile"},
                  {"nan_value", 3},
                  {"pacing", "fixed_exponential"},
                  {"increase", 1}}),
            "nan_value increase ");
  EXPECT_EQ(keys({{"scorer", "data"}}), "scorer ");  // the logit is a model's
  EXPECT_EQ(keys({{"score", "text_length"}}), "scorer ");
  EXPECT_EQ(keys({{"score", "text_length"}, {"scorer", "data"}}), "");
  EXPECT_EQ(keys({{"pacing", "single_step"}, {"pacing_steps", nn::Ints{1, 2}}}), "pacing_steps ");
}

TEST(CurriculumOptions, pacing_takes_what_its_row_reads) {
  const Pacing p = pacing_of(options({{"pacing", "competence"}, {"start", 0.1}}), 100);
  EXPECT_DOUBLE_EQ(p.fraction(25), std::sqrt(25 * (1 - 0.1 * 0.1) / 100 + 0.1 * 0.1));
  EXPECT_FALSE(pacing_of(options({}), 0).paces());
}

TEST(MakeCurriculum, by_hand) {
  const Curriculum c = make_curriculum(options({}), statistics(), kLabels, 1);
  EXPECT_EQ(c.order.indices, (Indices{1, 2, 0, 3}));
  EXPECT_EQ(c.order.groups, (Indices{0, 0, 1, 1}));
  EXPECT_EQ(c.scores, statistics().max_logit);
  EXPECT_EQ(c.confidence, statistics().max_logit);
  EXPECT_EQ(c.correct, statistics().correct);
  EXPECT_EQ(c.csv, order_csv(c.order, kLabels, c.scores, c.correct));
  EXPECT_EQ(c.unscored, 0);
  EXPECT_TRUE(c.warnings.empty());
  EXPECT_EQ(make_curriculum(options({{"inverse", "reverse_exact"}}), statistics(), kLabels, 1)
                .order.indices,
            (Indices{3, 0, 2, 1}));
  EXPECT_EQ(make_curriculum(options({{"score", "entropy"}, {"stratify", false}}), statistics(),
                            kLabels, 1)
                .order.indices,
            (Indices{1, 2, 0, 3}));
}

TEST(MakeCurriculum, scores_of_the_data_itself_order_without_labels) {
  SampleStatistics s;
  s.of_data["text_length"] = {30, 10, std::nanf(""), 20};
  const Curriculum c = make_curriculum(options({{"scorer", "data"},
                                                {"score", "text_length"},
                                                {"stratify", false},
                                                {"nan", "drop"},
                                                {"confidence", "rank"}}),
                                       s, {}, 1);
  EXPECT_EQ(c.order.indices, (Indices{1, 3, 0}));  // short is easy
  EXPECT_EQ(c.unscored, 1);
  EXPECT_EQ(c.confidence[1], 1);
  EXPECT_EQ(c.confidence[3], 0.5f);
  EXPECT_EQ(c.confidence[0], 0);
}

TEST(MakeCurriculum, the_random_control_takes_the_seed_and_no_inverse) {
  const auto order = [](const nn::Options& given, std::uint64_t seed) {
    SampleStatistics s;
    s.max_logit.assign(100, 1);
    return make_curriculum(options(given), s, {}, seed).order.indices;
  };
  const nn::Options random{{"scorer", "random"}, {"stratify", false}};
  nn::Options inverse = random;
  inverse.set("inverse", "reverse_exact");
  EXPECT_NE(order(random, 1), order(random, 2));
  EXPECT_EQ(order(random, 1), order(inverse, 1));
}

TEST(MakeCurriculum, a_teacher_that_is_always_right_is_pointed_out) {
  SampleStatistics s = statistics();
  s.correct = {1, 1, 1, 1};
  EXPECT_THAT(
      make_curriculum(options({}), s, kLabels, 1).warnings,
      ::testing::ElementsAre("the teacher is right on all 4 samples it scores: did it train "
                             "on them?"));
}

TEST(MakeCurriculum, what_cannot_be_scored_goes_by_the_policy) {
  SampleStatistics s = statistics();
  s.max_logit[1] = std::nanf("");
  s.scored = {1, 1, 0, 1};  // sample 2 had no rows
  const auto make = [&](const nn::Options& given) {
    nn::Options all = given;
    all.set("stratify", false);
    return make_curriculum(options(all), s, kLabels, 1);
  };
  EXPECT_EQ(error_of([&] { make({}); }).code(), ErrorCode::kNumerics);
  const Curriculum dropped = make({{"nan", "drop"}});
  EXPECT_EQ(dropped.order.indices, (Indices{0, 3}));
  EXPECT_EQ(dropped.unscored, 2);
  EXPECT_EQ(dropped.excluded, (Flags{0, 1, 1, 0}));
  EXPECT_EQ(dropped.warnings.size(), 1u);
  const Curriculum sentinel = make({{"nan", "sentinel"}, {"nan_value", 100.0}});
  EXPECT_EQ(sentinel.order.indices, (Indices{1, 2, 0, 3}));
  EXPECT_EQ(sentinel.scores, (std::vector<float>{4, 100, 100, 7}));
}

TEST(MakeCurriculum, a_sentinel_is_in_no_normaliser) {
  SampleStatistics s = statistics();
  s.entropy[0] = std::nanf("");
  const Curriculum c = make_curriculum(
      options({{"score", "entropy"}, {"nan", "sentinel"}, {"nan_value", 100.0}}), s, kLabels, 1);
  // Quantile 0.99 of 0.1, 0.2, 0.4 is 0.396, not near 100.
  EXPECT_NEAR(c.confidence[1], 1 - 0.1 / 0.396, 1e-6);
  EXPECT_EQ(c.confidence[0], 0);
}

TEST(MakeCurriculum, without_labels) {
  SampleStatistics s = statistics();
  s.correct.clear();
  EXPECT_THAT(error_of([&] { make_curriculum(options({}), s, {}, 1); }).what(),
              HasSubstr("set stratify = false"));
  const Curriculum c = make_curriculum(options({{"stratify", false}}), s, {}, 1);
  EXPECT_EQ(c.order.indices, (Indices{1, 3, 2, 0}));
  EXPECT_THAT(c.csv, HasSubstr("\n0,1,,8,,0\n"));
  EXPECT_THAT(error_of([&] {
                make_curriculum(options({{"score", "loss"}, {"stratify", false}}), s, {}, 1);
              }).what(),
              HasSubstr("measured against labels"));
}

TEST(CurriculumFile, with_ranks_is_fed_as_it_stands) {
  const Curriculum made = make_curriculum(options({}), statistics(), kLabels, 1);
  const nn::Options given{{"scorer", "file"}, {"file", "a.csv"}};
  const Curriculum read =
      make_curriculum(options(given), read_order_csv(made.csv, "a.csv", 4), kLabels);
  EXPECT_EQ(read.order, made.order);
  EXPECT_EQ(read.scores, made.scores);
  EXPECT_EQ(read.confidence, made.confidence);
  EXPECT_EQ(read.correct, made.correct);
  EXPECT_EQ(read.csv, made.csv);
  const std::string turned =
      "rank,index,label,score,correct,group\n0,0,0,4,1,0\n1,2,1,6,1,0\n2,3,1,7,0,0\n3,1,0,8,1,0\n";
  EXPECT_EQ(
      make_curriculum(options(given), read_order_csv(turned, "b.csv", 4), kLabels).order.indices,
      (Indices{0, 2, 3, 1}));

  nn::Options inverse = given;
  inverse.set("inverse", "reverse_exact");
  EXPECT_THAT(error_of([&] {
                make_curriculum(options(inverse), read_order_csv(made.csv, "a.csv", 4), kLabels);
              }).what(),
              HasSubstr("expected inverse = \"off\", got \"reverse_exact\""));
  const Error other = error_of([&] {
    make_curriculum(options(given), read_order_csv(made.csv, "a.csv", 4), Labels{0, 0, 1, 5});
  });
  EXPECT_EQ(other.code(), ErrorCode::kBadInput);
  EXPECT_THAT(other.what(), HasSubstr("sample 3 has label 1 in curriculum.file and 5 in the data"));
}

TEST(CurriculumFile, samples_it_leaves_out_go_by_the_policy) {
  const OrderFile file =
      read_order_csv("rank,index,label,score,correct,group\n0,2,1,6,1,0\n1,0,0,4,1,0\n", "a", 4);
  nn::Options given{{"scorer", "file"}, {"file", "a.csv"}};
  const auto make = [&] { return make_curriculum(options(given), file, kLabels); };
  EXPECT_EQ(error_of(make).code(), ErrorCode::kNumerics);
  given.set("nan", "drop");
  EXPECT_EQ(make().order.indices, (Indices{2, 0}));
  EXPECT_EQ(make().unscored, 2);
  given.set("nan", "quantile");
  EXPECT_THAT(error_of(make).what(), HasSubstr("2 samples have no rank"));
}

TEST(CurriculumFile, of_scores_gets_an_order) {
  const OrderFile file = read_order_csv("index,score\n3,1\n0,2\n1,5\n2,3\n", "a", 4);
  nn::Options given{{"scorer", "file"}, {"file", "a.csv"}};
  const auto order = [&] { return make_curriculum(options(given), file, kLabels).order.indices; };
  EXPECT_EQ(order(), (Indices{1, 2, 0, 3}));
  given.set("score", "loss");  // high is hard
  EXPECT_EQ(order(), (Indices{3, 0, 2, 1}));
  given.set("inverse", "reverse_exact");
  EXPECT_EQ(order(), (Indices{1, 2, 0, 3}));
  given.set("inverse", "reverse_correct_only");  // nobody knows what is correct
  EXPECT_THAT(error_of(order).what(), HasSubstr("neither right nor wrong"));
}

}  // namespace
}  // namespace retort::test
