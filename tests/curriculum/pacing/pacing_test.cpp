#include "curriculum/pacing/pacing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace curriculum;

double fraction(PacingOptions options, std::int64_t step) { return pacing_fraction(options, step); }
#define EXPECT_NEARLY(got, want) EXPECT_TRUE(close(got, want, 1e-12, 1e-12)) << (got)

TEST(Pacing, fixed_exponential_by_hand) {
  const PacingOptions o{
      .kind = PacingKind::kFixedExponential, .start = 0.03125, .increase = 2, .step_length = 400};
  EXPECT_NEARLY(fraction(o, 0), 0.03125);
  EXPECT_NEARLY(fraction(o, 399), 0.03125);
  EXPECT_NEARLY(fraction(o, 400), 0.0625);
  EXPECT_NEARLY(fraction(o, 1999), 0.5);
  EXPECT_NEARLY(fraction(o, 2000), 1);
  EXPECT_NEARLY(fraction(o, 1000000000), 1);
}

TEST(Pacing, varied_exponential_by_hand) {
  // Hacohen's figure: 0.0878, 1.5, lengths 100 400 30 80 300, then 250.
  const PacingOptions o{.kind = PacingKind::kVariedExponential,
                        .start = 0.0878,
                        .increase = 1.5,
                        .step_length = 250,
                        .step_lengths = {100, 400, 30, 80, 300}};
  const auto power = [](int k) { return 0.0878 * std::pow(1.5, k); };
  EXPECT_NEARLY(fraction(o, 0), power(0));
  EXPECT_NEARLY(fraction(o, 100), power(0));  // 100 < 100 is false
  EXPECT_NEARLY(fraction(o, 101), power(1));
  EXPECT_NEARLY(fraction(o, 500), power(1));
  EXPECT_NEARLY(fraction(o, 501), power(2));
  EXPECT_NEARLY(fraction(o, 531), power(3));
  EXPECT_NEARLY(fraction(o, 611), power(4));
  EXPECT_NEARLY(fraction(o, 910), power(4));
  EXPECT_NEARLY(fraction(o, 911), power(5));
  EXPECT_NEARLY(fraction(o, 1160), power(5));  // 910 + 250 is not yet passed
  EXPECT_NEARLY(fraction(o, 1161), 1);         // power(6) = 1.0001 is cut
}

TEST(Pacing, varied_without_a_list_matches_its_formula) {
  const PacingOptions o{.kind = PacingKind::kVariedExponential,
                        .start = 0.01,
                        .increase = 1.1,
                        .step_length = 7,
                        .step_lengths = {}};
  for (int i = 0; i < 200; ++i) {
    int passed = 0;
    for (int sum = 7; sum < i; sum += 7) ++passed;
    EXPECT_NEARLY(fraction(o, i), std::min(1.0, 0.01 * std::pow(1.1, passed)));
  }
}

TEST(Pacing, single_step_and_full) {
  const PacingOptions o{.kind = PacingKind::kSingleStep, .start = 0.28, .step_length = 1400};
  EXPECT_NEARLY(fraction(o, 1400), 0.28);
  EXPECT_NEARLY(fraction(o, 1401), 1);
  EXPECT_NEARLY(fraction({}, 0), 1);
}

TEST(Pacing, wu_family_by_hand) {
  PacingOptions o{.start = 0.2, .full_at = 0.5, .total_steps = 1000};
  const auto at = [&](PacingKind kind, std::int64_t step) {
    o.kind = kind;
    return fraction(o, step);
  };
  // t = 125 / 500 = 1/4
  EXPECT_NEARLY(at(PacingKind::kLinear, 125), 0.2 + 0.8 / 4);
  EXPECT_NEARLY(at(PacingKind::kQuadratic, 125), 0.2 + 0.8 / 16);
  EXPECT_NEARLY(at(PacingKind::kRoot, 125), 0.2 + 0.8 / 2);
  EXPECT_NEARLY(at(PacingKind::kExponential, 125),
                0.2 + 0.8 * (std::exp(2.5) - 1) / (std::exp(10.0) - 1));
  EXPECT_NEARLY(at(PacingKind::kLogarithmic, 125),
                0.2 + 0.8 * (1 + 0.1 * std::log(0.25 + std::exp(-10.0))));
  EXPECT_NEARLY(at(PacingKind::kStep, 125), 0.2);
  EXPECT_NEARLY(at(PacingKind::kStep, 499), 0.2);
  for (const PacingKind kind :
       {PacingKind::kLinear, PacingKind::kQuadratic, PacingKind::kRoot, PacingKind::kExponential,
        PacingKind::kLogarithmic, PacingKind::kStep}) {
    EXPECT_TRUE(close(at(kind, 0), 0.2, 1e-9, 0)) << name_of(kind);
    EXPECT_NEARLY(at(kind, 500), 1);
    EXPECT_NEARLY(at(kind, 1000000), 1);
  }
}

TEST(Pacing, competence_by_hand) {
  const PacingOptions o{.kind = PacingKind::kCompetence, .start = 0.1, .total_steps = 100};
  EXPECT_NEARLY(fraction(o, 0), 0.1);
  EXPECT_NEARLY(fraction(o, 25), std::sqrt(0.25 * 0.99 + 0.01));
  EXPECT_NEARLY(fraction(o, 100), 1);
}

TEST(Pacing, every_function_grows_and_stays_in_range) {
  for (const char* name : {"full", "fixed_exponential", "varied_exponential", "single_step",
                           "linear", "quadratic", "root", "exp", "log", "step", "competence"}) {
    PacingOptions o{.kind = parse_pacing_kind(name), .total_steps = 300};
    EXPECT_STREQ(name_of(o.kind), name);
    double before = 0;
    for (std::int64_t i = 0; i < 2000; ++i) {
      const double g = pacing_fraction(o, i);
      ASSERT_GE(g, before) << name;
      ASSERT_LE(g, 1);
      before = g;
    }
    EXPECT_EQ(before, 1) << name;
  }
}

TEST(Pacing, prefix_is_rounded_up_and_bounded) {
  const PacingOptions o{.kind = PacingKind::kSingleStep, .start = 0.07, .step_length = 10};
  EXPECT_EQ(prefix_size(o, 0, 100), 7);  // 0.07 * 100 is 7.000000000000001 in binary
  EXPECT_EQ(prefix_size(o, 0, 101), 8);
  EXPECT_EQ(prefix_size(o, 0, 101, 32), 32);
  EXPECT_EQ(prefix_size(o, 11, 101), 101);
  EXPECT_EQ(prefix_size(o, 0, 5, 32), 5);
}

TEST(Pacing, errors) {
  EXPECT_EQ(parse_pacing_kind("none"), PacingKind::kFull);
  EXPECT_EQ(parse_pacing_kind("quad"), PacingKind::kQuadratic);
  EXPECT_THROW(parse_pacing_kind("cosine"), Error);
  EXPECT_THROW(fraction({.kind = PacingKind::kLinear}, 0), Error);
  EXPECT_THROW(fraction({.kind = PacingKind::kSingleStep, .start = 0}, 0), Error);
  EXPECT_THROW(fraction({.kind = PacingKind::kFixedExponential, .increase = 1}, 0), Error);
  EXPECT_THROW(fraction({.kind = PacingKind::kFixedExponential, .step_length = 0}, 0), Error);
  EXPECT_THROW(fraction({}, -1), Error);
}

}  // namespace
}  // namespace retort::test
