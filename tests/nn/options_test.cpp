#include "nn/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "nn/registry.h"

namespace retort::nn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<OptionSpec>& specs() {
  static const std::vector<OptionSpec> list{
      flag_option("centre", true, "."),
      count_option("layers", 3, 1, 9, "layers", "."),
      number_option("rate", 0.5, 0, 1, "", "."),
      text_option("file", "", "."),
      choice_option("shortcut", "auto", "auto|A|B", "."),
      ints_option("hidden", {256}, 1, 4096, "units", ".").not_empty(),
      floats_option("scales", {}, -1, 1, "", "."),
      strings_option("names", {"a"}, "."),
      normalize_option("normalize", "cifar", ".")};
  return list;
}

std::string error_of(const Options& given) {
  try {
    complete("mlp", specs(), given);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    return e.what();
  }
  return "accepted";
}

TEST(Options, what_is_not_given_has_its_fallback) {
  const Options all = complete("mlp", specs(), {{"layers", std::int64_t{7}}});
  EXPECT_EQ(all.integer("layers"), 7);
  EXPECT_TRUE(all.flag("centre"));
  EXPECT_EQ(all.number("rate"), 0.5);
  EXPECT_EQ(all.text("file"), "");
  EXPECT_EQ(all.text("shortcut"), "auto");
  EXPECT_EQ(all.integers("hidden"), (Ints{256}));
  EXPECT_TRUE(all.numbers("scales").empty());
  EXPECT_EQ(all.texts("names"), (Strings{"a"}));
  EXPECT_EQ(all.text("normalize"), "cifar");
  EXPECT_EQ(complete("mlp", specs(), all), all);  // complete options stay as they are
  EXPECT_TRUE(complete("mlp", {}, {}).empty());
}

TEST(Options, an_unknown_key_is_refused_with_the_nearest_one) {
  EXPECT_THAT(error_of({{"shortcu", "A"}}),
              ::testing::AllOf(HasSubstr("[mlp] does not read 'shortcu'; it reads centre, layers"),
                               HasSubstr("did you mean 'shortcut'?")));
  const std::string far = error_of({{"zzzzzzzz", true}});
  EXPECT_THAT(far, HasSubstr("does not read 'zzzzzzzz'"));
  EXPECT_THAT(far, ::testing::Not(HasSubstr("did you mean")));
  try {
    complete("cosine", {}, {{"layers", std::int64_t{1}}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("it reads no options"));
  }
}

TEST(Options, a_value_of_another_type_or_out_of_range_is_refused_saying_what_is_expected) {
  EXPECT_THAT(error_of({{"layers", 2.5}}),
              HasSubstr("[mlp] layers: expected an integer in [1, 9], got 2.5"));
  EXPECT_THAT(error_of({{"layers", std::int64_t{10}}}), HasSubstr("got 10"));
  EXPECT_THAT(error_of({{"layers", std::int64_t{0}}}), HasSubstr("got 0"));
  EXPECT_THAT(error_of({{"layers", true}}), HasSubstr("got true"));
  EXPECT_THAT(error_of({{"centre", std::int64_t{1}}}), HasSubstr("expected true or false, got 1"));
  EXPECT_THAT(error_of({{"rate", 1.01}}), HasSubstr("expected a number in [0, 1], got 1.01"));
  EXPECT_THAT(error_of({{"rate", std::nan("")}}), HasSubstr("got nan"));
  EXPECT_THAT(error_of({{"rate", "fast"}}), HasSubstr("got \"fast\""));
  EXPECT_THAT(error_of({{"file", 1.0}}), HasSubstr("expected a string"));
  EXPECT_THAT(error_of({{"shortcut", "C"}}), HasSubstr("expected one of auto, A, B, got \"C\""));
  EXPECT_THAT(error_of({{"hidden", Ints{}}}), HasSubstr("a list of at least one of integers"));
  EXPECT_THAT(error_of({{"hidden", Ints{8, 0}}}), HasSubstr("in [1, 4096], got [8, 0]"));
  EXPECT_THAT(error_of({{"hidden", Floats{8}}}), HasSubstr("got [8.0]"));
  EXPECT_THAT(error_of({{"scales", Floats{0, 2}}}), HasSubstr("got [0.0, 2.0]"));
  EXPECT_THAT(error_of({{"names", "b"}}), HasSubstr("a list of strings"));
  EXPECT_THAT(error_of({{"normalize", "cifar10"}}), HasSubstr("one of cifar, imagenet, none"));
  EXPECT_THAT(error_of({{"normalize", Floats{1, 2, 3}}}), HasSubstr("[mean, std]"));
}

TEST(Options, integers_do_as_numbers_and_one_as_a_list_of_one) {
  const Options all = complete("mlp", specs(),
                               {{"rate", std::int64_t{1}},
                                {"hidden", std::int64_t{64}},
                                {"scales", Floats{-1, 1}},
                                {"normalize", Floats{0.5, 0.25}}});
  EXPECT_EQ(all.number("rate"), 1.0);
  EXPECT_EQ(all.integers("hidden"), (Ints{64}));
  EXPECT_EQ(all.numbers("scales"), (Floats{-1, 1}));
  EXPECT_EQ(all.numbers("normalize"), (Floats{0.5, 0.25}));
  EXPECT_FALSE(fitting(specs()[1], 2.0).has_value());  // but no number does as an integer
}

TEST(Options, reading_a_key_that_is_not_there_is_a_bug_of_the_program) {
  const Options all = complete("mlp", specs(), {});
  EXPECT_THROW(all.integer("width"), std::logic_error);
  EXPECT_THROW(all.text("layers"), std::logic_error);
}

TEST(Options, effects_of_a_row) {
  const OptionSpec row = flag_option("a", false, ".").with(kChangesCost).without(kChangesResult);
  EXPECT_EQ(row.effects, static_cast<unsigned>(kChangesCost));
  const OptionSpec neutral = choice_option("b", "x", "x|y", ".").unless("y").not_in_arm();
  EXPECT_EQ(neutral.neutral, OptionValue("y"));
  EXPECT_FALSE(neutral.in_arm);
}

TEST(Options, values_as_toml) {
  EXPECT_EQ(to_toml(true), "true");
  EXPECT_EQ(to_toml(std::int64_t{-3}), "-3");
  EXPECT_EQ(to_toml(1.0), "1.0");
  EXPECT_EQ(to_toml(0.1), "0.1");
  EXPECT_EQ(to_toml(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(to_toml("a\"b\\\n\x01"), "\"a\\\"b\\\\\\n\\u0001\"");
  EXPECT_EQ(to_toml(Ints{1, 2}), "[1, 2]");
  EXPECT_EQ(to_toml(Floats{0.5, 2}), "[0.5, 2.0]");
  EXPECT_EQ(to_toml(Strings{"a", "b"}), "[\"a\", \"b\"]");
  EXPECT_EQ(bound_text(100000), "100000");
  EXPECT_EQ(bound_text(0.25), "0.25");
}

TEST(Options, nearest_words) {
  EXPECT_EQ(edit_distance("abc", "abc"), 0);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);  // neighbours swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(nearest_word("resnte20", {"resnet8", "resnet20", "mlp"}), "resnet20");
  EXPECT_EQ(nearest_word("transformer", {"resnet8", "resnet20", "mlp"}), "");
  EXPECT_EQ(nearest_word("x", {"y"}), "");  // nothing in common
  EXPECT_THAT(split("a|b||c", '|'), ElementsAre("a", "b", "", "c"));
  EXPECT_TRUE(split("", '|').empty());
}

struct Row {
  std::vector<std::string> names;
  int value = 0;
};

TEST(Registry, rows_from_outside_stand_behind_the_built_in_ones) {
  Registry<Row> rows("shape", {{{"circle", "disc"}, 1}, {{"square"}, 2}});
  const Row& circle = rows.at("disc");
  rows.add({{"hexagon"}, 6});
  EXPECT_THAT(rows.names(), ElementsAre("circle", "disc", "square", "hexagon"));
  EXPECT_EQ(rows.at("hexagon").value, 6);
  EXPECT_EQ(&rows.at("circle"), &circle);  // references stay good
  EXPECT_EQ(rows.find("triangle"), nullptr);
  EXPECT_EQ(rows.rows().size(), 3u);
}

TEST(Registry, a_name_that_is_taken_or_missing_is_refused) {
  Registry<Row> rows("shape", {{{"circle", "disc"}, 1}});
  EXPECT_THROW(rows.add({{}, 2}), Error);
  EXPECT_THROW(rows.add({{""}, 2}), Error);
  try {
    rows.add({{"ring", "disc"}, 2});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("the shape 'disc' is there already"));
  }
  EXPECT_EQ(rows.find("ring"), nullptr);  // not half added
  EXPECT_THROW((Registry<Row>("shape", {{{"a"}, 1}, {{"a"}, 2}})), Error);
}

TEST(Registry, an_unknown_name_is_answered_with_what_there_is) {
  const Registry<Row> rows("shape", {{{"circle"}, 1}, {{"square"}, 2}});
  try {
    rows.at("sqaure");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_THAT(e.what(),
                HasSubstr("[shape] unknown shape 'sqaure'; known: circle, square; did you mean "
                          "'square'?"));
  }
}

}  // namespace
}  // namespace retort::nn
