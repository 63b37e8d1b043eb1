#include "curriculum/pacing/pacing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/common/check.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace curriculum;

double fraction(const char* name, const nn::Options& options, std::int64_t step,
                std::int64_t total_steps = 0) {
  return Pacing(name, options, total_steps).fraction(step);
}
#define EXPECT_NEARLY(got, want) EXPECT_TRUE(close(got, want, 1e-12, 1e-12)) << (got)

TEST(Pacing, fixed_exponential_by_hand) {
  const Pacing p("fixed_exponential", {{"start", 0.03125}, {"increase", 2}, {"pacing_steps", 400}});
  EXPECT_NEARLY(p.fraction(0), 0.03125);
  EXPECT_NEARLY(p.fraction(399), 0.03125);
  EXPECT_NEARLY(p.fraction(400), 0.0625);
  EXPECT_NEARLY(p.fraction(1999), 0.5);
  EXPECT_NEARLY(p.fraction(2000), 1);
  EXPECT_NEARLY(p.fraction(1000000000), 1);
}

TEST(Pacing, varied_exponential_by_hand) {
  // Hacohen's figure: 0.0878, 1.5, lengths 100 400 30 80 300, then 250.
  const Pacing p("varied_exponential", {{"start", 0.0878},
                                        {"increase", 1.5},
                                        {"pacing_steps", nn::Ints{100, 400, 30, 80, 300, 250}}});
  const auto power = [](int k) { return 0.0878 * std::pow(1.5, k); };
  EXPECT_NEARLY(p.fraction(0), power(0));
  EXPECT_NEARLY(p.fraction(100), power(0));  // 100 < 100 is false
  EXPECT_NEARLY(p.fraction(101), power(1));
  EXPECT_NEARLY(p.fraction(500), power(1));
  EXPECT_NEARLY(p.fraction(501), power(2));
  EXPECT_NEARLY(p.fraction(531), power(3));
  EXPECT_NEARLY(p.fraction(611), power(4));
  EXPECT_NEARLY(p.fraction(910), power(4));
  EXPECT_NEARLY(p.fraction(911), power(5));
  EXPECT_NEARLY(p.fraction(1160), power(5));  // 910 + 250 is not yet passed
  EXPECT_NEARLY(p.fraction(1161), 1);         // power(6) = 1.0001 is cut
}

TEST(Pacing, varied_of_one_length_matches_its_formula) {
  const Pacing p("varied_exponential", {{"start", 0.01}, {"increase", 1.1}, {"pacing_steps", 7}});
  for (int i = 0; i < 200; ++i) {
    int passed = 0;
    for (int sum = 7; sum < i; sum += 7) ++passed;
    EXPECT_NEARLY(p.fraction(i), std::min(1.0, 0.01 * std::pow(1.1, passed)));
  }
}

TEST(Pacing, single_step_and_none) {
  const Pacing p("single_step", {{"start", 0.28}, {"pacing_steps", 1400}});
  EXPECT_TRUE(p.paces());
  EXPECT_NEARLY(p.fraction(1400), 0.28);
  EXPECT_NEARLY(p.fraction(1401), 1);
  for (const Pacing& none : {Pacing(), Pacing("none"), Pacing("full")}) {
    EXPECT_FALSE(none.paces());
    EXPECT_EQ(none.fraction(0), 1);
  }
}

TEST(Pacing, wu_family_by_hand) {
  const auto at = [&](const char* name, std::int64_t step) {
    return fraction(name, {{"start", 0.2}, {"full_at", 0.5}}, step, 1000);
  };
  // t = 125 / 500 = 1/4
  EXPECT_NEARLY(at("linear", 125), 0.2 + 0.8 / 4);
  EXPECT_NEARLY(at("quadratic", 125), 0.2 + 0.8 / 16);
  EXPECT_NEARLY(at("quad", 125), 0.2 + 0.8 / 16);
  EXPECT_NEARLY(at("root", 125), 0.2 + 0.8 / 2);
  EXPECT_NEARLY(at("exp", 125), 0.2 + 0.8 * (std::exp(2.5) - 1) / (std::exp(10.0) - 1));
  EXPECT_NEARLY(at("log", 125), 0.2 + 0.8 * (1 + 0.1 * std::log(0.25 + std::exp(-10.0))));
  EXPECT_NEARLY(at("step", 125), 0.2);
  EXPECT_NEARLY(at("step", 499), 0.2);
  for (const char* name : {"linear", "quadratic", "root", "exp", "log", "step"}) {
    EXPECT_TRUE(close(at(name, 0), 0.2, 1e-9, 0)) << name;
    EXPECT_NEARLY(at(name, 500), 1);
    EXPECT_NEARLY(at(name, 1000000), 1);
  }
}

TEST(Pacing, competence_by_hand) {
  const Pacing p("competence", {{"start", 0.1}}, 100);
  EXPECT_NEARLY(p.fraction(0), 0.1);
  EXPECT_NEARLY(p.fraction(25), std::sqrt(0.25 * 0.99 + 0.01));
  EXPECT_NEARLY(p.fraction(100), 1);
}

TEST(Pacing, every_function_grows_and_stays_in_range) {
  for (const auto& kind : pacing_kinds().rows()) {
    const std::string& name = kind->names.front();
    EXPECT_FALSE(kind->doc.empty()) << name;
    const Pacing p(name, {}, 300);
    double before = 0;
    for (std::int64_t i = 0; i < 2000; ++i) {
      const double g = p.fraction(i);
      ASSERT_GE(g, before) << name;
      ASSERT_LE(g, 1);
      before = g;
    }
    EXPECT_EQ(before, 1) << name;
  }
}

TEST(Pacing, prefix_is_rounded_up_and_bounded) {
  const Pacing p("single_step", {{"start", 0.07}, {"pacing_steps", 10}});
  EXPECT_EQ(p.prefix_size(0, 100), 7);  // 0.07 * 100 is 7.000000000000001 in binary
  EXPECT_EQ(p.prefix_size(0, 101), 8);
  EXPECT_EQ(p.prefix_size(0, 101, 32), 32);
  EXPECT_EQ(p.prefix_size(11, 101), 101);
  EXPECT_EQ(p.prefix_size(0, 5, 32), 5);
}

TEST(Pacing, a_row_from_outside_brings_its_options) {
  PacingKind cosine;
  cosine.names = {"test_cosine"};
  cosine.options = {start_option(),
                    nn::number_option("test_power", 1, 0.1, 10, "", "Sharpness of a test.")};
  cosine.doc = "1 - (1 - s0) cos(pi i / 2 T)^power";
  cosine.of_run = true;
  cosine.fraction = [](const nn::Options& o, std::int64_t step, std::int64_t total) {
    const double t = std::min(1.0, static_cast<double>(step) / static_cast<double>(total));
    return 1 -
           (1 - o.number("start")) * std::pow(std::cos(std::acos(0.0) * t), o.number("test_power"));
  };
  pacing_kinds().add(cosine);
  EXPECT_NEARLY(fraction("test_cosine", {{"start", 0.4}, {"test_power", 2}}, 50, 100), 0.7);
  const auto reads = [](const char* key) {
    int times = 0;
    for (const nn::OptionSpec& spec : pacing_options()) times += spec.key == key;
    return times;
  };
  EXPECT_EQ(reads("test_power"), 1);
  EXPECT_EQ(reads("start"), 1);
}

TEST(Pacing, a_function_that_leaves_its_range_is_named) {
  PacingKind broken;
  broken.names = {"test_broken"};
  broken.doc = "i";
  broken.fraction = [](const nn::Options&, std::int64_t step, std::int64_t) {
    return static_cast<double>(step);
  };
  pacing_kinds().add(broken);
  EXPECT_EQ(fraction("test_broken", {}, 1), 1);
  for (const std::int64_t step : {0, 2}) try {
      fraction("test_broken", {}, step);
      FAIL() << step;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kNumerics);
      EXPECT_NE(std::string(error.what()).find("test_broken"), std::string::npos);
    }
}

std::string message_of(const char* name, const nn::Options& options, std::int64_t total_steps = 0) {
  try {
    Pacing(name, options, total_steps);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "";
}

TEST(Pacing, rules_between_options) {
  const nn::Ints none, two{5, 6};
  for (const char* name : {"fixed_exponential", "single_step"}) {
    EXPECT_EQ(message_of(name, {{"pacing_steps", two}}),
              join("[pacing ", name, "] pacing_steps: expected one length for pacing = \"", name,
                   "\", got 2"));
    EXPECT_NE(message_of(name, {{"pacing_steps", none}}).find("at least one length"),
              std::string::npos);
  }
  EXPECT_EQ(message_of("varied_exponential", {{"pacing_steps", two}}), "");
  EXPECT_NE(message_of("varied_exponential", {{"pacing_steps", none}}).find("at least one length"),
            std::string::npos);
  for (const char* name : {"fixed_exponential", "varied_exponential"})
    EXPECT_EQ(
        message_of(name, {{"increase", 1}}),
        join("[pacing ", name, "] increase: expected more than 1 for pacing = \"", name, "\""));
}

TEST(Pacing, errors) {
  EXPECT_NE(message_of("linaer", {}).find("did you mean 'linear'?"), std::string::npos);
  EXPECT_NE(message_of("linear", {}).find("number of steps of the run, got 0"), std::string::npos);
  EXPECT_NE(
      message_of("linear", {{"increase", 2}}, 10).find("[pacing linear] does not read 'increase'"),
      std::string::npos);
  EXPECT_NE(message_of("single_step", {{"start", 0}}), "");
  EXPECT_NE(message_of("fixed_exponential", {{"pacing_steps", 0}}), "");
  EXPECT_THROW(fraction("none", {}, -1), Error);
}

}  // namespace
}  // namespace retort::test
