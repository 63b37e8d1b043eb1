#include "nn/text/masking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

using nn::kNotPredicted;
using nn::mask_in_turn;
using nn::mask_tokens;
using nn::MaskedSample;
using nn::MaskingRule;
using ::testing::Each;

constexpr std::int32_t kVocabulary = 1000, kMask = 4;
const std::vector<std::uint8_t> kSpecial{1, 1, 1, 1, 1};

MaskingRule rule() {
  MaskingRule r;
  r.mask_id = kMask, r.vocabulary = kVocabulary, r.special = kSpecial;
  return r;
}

std::vector<std::int32_t> sentence(std::size_t length) {
  std::vector<std::int32_t> ids(length, 2);
  for (std::size_t i = 1; i + 1 < length; ++i) ids[i] = 5 + static_cast<std::int32_t>(i * 37 % 900);
  return ids;
}

TEST(Masking, shares_are_those_of_the_rule) {
  const auto ids = sentence(130);
  double predicted = 0, masked = 0, kept = 0, other = 0;
  for (std::uint32_t sample = 0; sample < 2000; ++sample) {
    const MaskedSample m = mask_tokens(ids, rule(), 1, 0, sample);
    ASSERT_EQ(m.ids.size(), ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (m.labels[i] == kNotPredicted) {
        ASSERT_EQ(m.ids[i], ids[i]);
        continue;
      }
      ASSERT_EQ(m.labels[i], ids[i]);
      ASSERT_GE(ids[i], 5) << "a special token was masked";
      ++predicted;
      (m.ids[i] == kMask ? masked : m.ids[i] == ids[i] ? kept : other) += 1;
    }
  }
  // Five standard deviations of a binomial count.
  const auto near = [](double got, double n, double p) {
    EXPECT_NEAR(got / n, p, 5 * std::sqrt(p * (1 - p) / n)) << p;
  };
  near(predicted, 2000.0 * 128, 0.15);
  near(masked, predicted, 0.8 + 0.1 / kVocabulary);
  near(kept, predicted, 0.1 + 0.1 / kVocabulary);
  near(other, predicted, 0.1 * (1 - 2.0 / kVocabulary));
}

TEST(Masking, depends_on_seed_epoch_sample_and_nothing_else) {
  const auto ids = sentence(100);
  const MaskedSample m = mask_tokens(ids, rule(), 1, 2, 3);
  EXPECT_EQ(m.labels, mask_tokens(ids, rule(), 1, 2, 3).labels);
  EXPECT_EQ(m.ids, mask_tokens(ids, rule(), 1, 2, 3).ids);
  EXPECT_NE(m.labels, mask_tokens(ids, rule(), 9, 2, 3).labels);
  EXPECT_NE(m.labels, mask_tokens(ids, rule(), 1, 9, 3).labels);
  EXPECT_NE(m.labels, mask_tokens(ids, rule(), 1, 2, 9).labels);
  // What stands behind a position does not change it.
  const auto shorter = std::vector<std::int32_t>(ids.begin(), ids.begin() + 60);
  const MaskedSample s = mask_tokens(shorter, rule(), 1, 2, 3);
  EXPECT_TRUE(std::equal(s.labels.begin(), s.labels.end(), m.labels.begin()));
}

TEST(Masking, at_least_one_position_and_every_one_in_turn) {
  MaskingRule never = rule();
  never.share = 0;
  const std::vector<std::int32_t> ids{2, 10, 11, 12, 3};
  std::vector<int> hits(ids.size());
  for (std::uint32_t sample = 0; sample < 3000; ++sample) {
    const MaskedSample m = mask_tokens(ids, never, 1, 0, sample);
    int predicted = 0;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (m.labels[i] != kNotPredicted) ++predicted, ++hits[i];
    ASSERT_EQ(predicted, 1);
  }
  EXPECT_EQ(hits[0] + hits[4], 0);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_NEAR(hits[i], 1000, 5 * std::sqrt(3000 * 2.0 / 9));
  EXPECT_THAT(mask_tokens(std::vector<std::int32_t>{2, 3}, rule(), 1, 0, 0).labels,
              Each(kNotPredicted));
  EXPECT_TRUE(mask_tokens({}, rule(), 1, 0, 0).ids.empty());
}

TEST(Masking, in_turn_every_position_is_predicted_once) {
  const std::vector<std::int32_t> ids{2, 10, 11, 12, 13, 14, 3};
  for (const std::int64_t passes : {1, 2, 3, 5, 8}) {
    std::vector<int> times(ids.size());
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      const MaskedSample m = mask_in_turn(ids, rule(), pass, passes);
      int here = 0;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const bool predicted = m.labels[i] != kNotPredicted;
        EXPECT_EQ(m.ids[i], predicted ? rule().mask_id : ids[i]);
        EXPECT_EQ(m.labels[i], predicted ? ids[i] : kNotPredicted);
        times[i] += predicted, here += predicted;
      }
      if (passes >= 5) {
        EXPECT_EQ(here, pass < 5);  // alone, and none where there are no more
      }
    }
    EXPECT_THAT(times, testing::ElementsAre(0, 1, 1, 1, 1, 1, 0)) << passes;
  }
  EXPECT_THROW(mask_in_turn(ids, rule(), 2, 2), Error);
  EXPECT_THROW(mask_in_turn(std::vector<std::int32_t>{-1}, rule(), 0, 1), Error);
}

TEST(Masking, refuses_what_cannot_be) {
  const auto code_of = [](const MaskingRule& r, std::int32_t id) {
    try {
      mask_tokens(std::vector<std::int32_t>{id}, r, 1, 0, 0);
      return ErrorCode::kOk;
    } catch (const Error& e) {
      return e.code();
    }
  };
  EXPECT_EQ(code_of(rule(), kVocabulary - 1), ErrorCode::kOk);
  EXPECT_EQ(code_of(rule(), kVocabulary), ErrorCode::kBadInput);
  EXPECT_EQ(code_of(rule(), -1), ErrorCode::kBadInput);
  for (const double bad : {-0.1, 1.1, std::nan("")}) {
    MaskingRule r = rule();
    r.share = bad;
    EXPECT_EQ(code_of(r, 5), ErrorCode::kUsage);
  }
  MaskingRule r = rule();
  r.mask_id = kVocabulary;
  EXPECT_EQ(code_of(r, 5), ErrorCode::kUsage);
}

}  // namespace
}  // namespace retort::test
