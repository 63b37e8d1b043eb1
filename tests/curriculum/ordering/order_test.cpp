#include "curriculum/ordering/order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Indices = std::vector<std::int64_t>;

// Eight samples, two classes. Correct by falling score: 5 (9), 0 (8), 3 (7), 6 (7), 1 (2);
// misclassified by rising score: 2 (1), 7 (5), 4 (6).
const std::vector<float> kScore{8, 2, 1, 7, 6, 9, 7, 5};
const std::vector<std::uint8_t> kCorrect{1, 1, 0, 1, 0, 1, 1, 0};
const std::vector<std::int32_t> kLabel{0, 0, 0, 0, 1, 1, 1, 1};

Order order(OrderKind kind, bool stratify, OrderKeys keys = OrderKeys::kCorrectFirst) {
  return make_order(kScore, kCorrect, kLabel,
                    {.kind = kind, .keys = keys, .stratify = stratify, .seed = 3});
}

TEST(TeacherOrder, hand_checked_numbers) {
  EXPECT_EQ(order(OrderKind::kCurriculum, false).indices, (Indices{5, 0, 3, 6, 1, 2, 7, 4}));
  EXPECT_EQ(order(OrderKind::kReverseExact, false).indices, (Indices{4, 7, 2, 1, 6, 3, 0, 5}));
  EXPECT_EQ(order(OrderKind::kReverseCorrectOnly, false).indices,
            (Indices{1, 3, 6, 0, 5, 2, 7, 4}));
  EXPECT_EQ(order(OrderKind::kCurriculum, false, OrderKeys::kSingle).indices,
            (Indices{5, 0, 3, 6, 4, 7, 1, 2}));
}

TEST(TeacherOrder, stratified_by_hand) {
  // Class 0 in order: 0 3 1 2. Class 1: 5 6 7 4. Ranks: 5 0 | 3 6 | 1 7 | 2 4.
  const Order o = order(OrderKind::kCurriculum, true);
  EXPECT_EQ(o.indices, (Indices{5, 0, 3, 6, 1, 7, 2, 4}));
  EXPECT_EQ(o.groups, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
  const Order r = order(OrderKind::kReverseExact, true);
  EXPECT_EQ(r.indices, (Indices{4, 2, 7, 1, 6, 3, 0, 5}));
  EXPECT_EQ(r.groups, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
}

TEST(TeacherOrder, unequal_classes_by_hand) {
  const std::vector<float> score{5, 4, 3, 2, 1};
  const std::vector<std::int32_t> label{7, 7, 7, 2, 9};  // class numbers may have gaps
  const std::vector<std::uint8_t> correct(5, 1);
  const Order o = make_order(score, correct, label, {});
  EXPECT_EQ(o.indices, (Indices{0, 1, 3, 4, 2}));
  EXPECT_EQ(o.groups, (Indices{0, 1, 1, 1, 2}));
  const Order r = make_order(score, correct, label, {.kind = OrderKind::kReverseExact});
  EXPECT_EQ(r.indices, (Indices{2, 4, 3, 1, 0}));
  EXPECT_EQ(r.groups, (Indices{0, 1, 1, 1, 2}));
}

// SST-2 has 5 positive sentences to 4 negative ones, long-tailed images 100 to 1: whatever has been
// fed so far, and so also what is fed last, holds every class by its share.
TEST(TeacherOrder, every_stretch_holds_the_classes_by_their_shares) {
  const std::vector<std::vector<int>> all_sizes{{5000, 4000}, {500, 100, 5}, {7, 7, 7}, {1, 999}};
  for (const std::vector<int>& sizes : all_sizes) {
    std::vector<float> score;
    std::vector<std::int32_t> label;
    for (std::size_t c = 0; c < sizes.size(); ++c)
      for (int k = 0; k < sizes[c]; ++k) {
        label.push_back(static_cast<std::int32_t>(c));
        score.push_back(static_cast<float>(philox(1, label.size(), 0, 0, 0).v[0] >> 8));
      }
    const Order o = make_order(score, {}, label, {.keys = OrderKeys::kSingle});
    const double n = static_cast<double>(label.size());
    std::vector<double> seen(sizes.size());
    for (std::size_t r = 0; r < o.indices.size(); ++r) {
      ++seen[static_cast<std::size_t>(label[static_cast<std::size_t>(o.indices[r])])];
      if (r + 1 < o.indices.size() && o.groups[r + 1] == o.groups[r]) continue;
      for (std::size_t c = 0; c < sizes.size(); ++c)
        EXPECT_LE(std::abs(seen[c] - sizes[c] * static_cast<double>(r + 1) / n), 2)
            << c << " " << r;
    }
  }
}

TEST(TeacherOrder, properties_on_random_data) {
  constexpr std::uint32_t n = 997;
  std::vector<float> score(n);
  std::vector<std::uint8_t> correct(n);
  std::vector<std::int32_t> label(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    const Philox4 r = philox(11, i, 0, 0, 0);
    score[i] = static_cast<float>(r.v[0] % 50);  // many ties
    correct[i] = r.v[1] % 5 != 0;
    label[i] = static_cast<std::int32_t>(r.v[2] % 7);
  }
  for (const bool stratify : {false, true})
    for (const OrderKeys keys : {OrderKeys::kCorrectFirst, OrderKeys::kSingle})
      for (const OrderKind kind : {OrderKind::kCurriculum, OrderKind::kReverseExact,
                                   OrderKind::kReverseCorrectOnly, OrderKind::kRandom}) {
        const OrderOptions options{kind, keys, stratify, 5};
        const Order o = make_order(score, correct, label, options);
        Indices sorted = o.indices;
        std::sort(sorted.begin(), sorted.end());
        for (std::uint32_t i = 0; i < n; ++i) ASSERT_EQ(sorted[i], i) << "not a permutation";
        EXPECT_EQ(o.indices, make_order(score, correct, label, options).indices);
        EXPECT_TRUE(std::is_sorted(o.groups.begin(), o.groups.end()));
        if (!stratify) continue;
        std::map<std::int64_t, std::multiset<std::int32_t>> classes;
        for (std::uint32_t r = 0; r < n; ++r)
          classes[o.groups[r]].insert(label[static_cast<std::size_t>(o.indices[r])]);
        for (const auto& [group, set] : classes)
          for (const std::int32_t c : set) EXPECT_EQ(set.count(c), 1u) << "group " << group;
      }
  const Order easy = make_order(score, correct, label, {});
  Order back = make_order(score, correct, label, {.kind = OrderKind::kReverseExact});
  std::reverse(back.indices.begin(), back.indices.end());
  EXPECT_EQ(easy.indices, back.indices);
}

TEST(TeacherOrder, random_needs_no_scores_correct_and_depends_on_the_seed) {
  const std::vector<float> easiness(100, 0);
  const Order a = make_order(easiness, {}, {}, {OrderKind::kRandom, {}, false, 1});
  const Order b = make_order(easiness, {}, {}, {OrderKind::kRandom, {}, false, 2});
  EXPECT_NE(a.indices, b.indices);
  EXPECT_FALSE(std::is_sorted(a.indices.begin(), a.indices.end()));
}

TEST(TeacherOrder, edges_and_errors) {
  EXPECT_TRUE(make_order({}, {}, {}, {}).indices.empty());
  EXPECT_TRUE(make_order({}, {}, {}, {.kind = OrderKind::kReverseExact}).indices.empty());
  const std::vector<float> bad{1, std::nanf("")};
  const std::vector<std::uint8_t> correct{1, 1};
  EXPECT_THROW(make_order(bad, correct, {}, {.stratify = false}), Error);
  EXPECT_THROW(make_order(kScore, {}, kLabel, {}), Error);
  EXPECT_THROW(make_order(kScore, kCorrect, {}, {}), Error);
  // A dropped sample may be NaN.
  const Indices kept{0};
  EXPECT_EQ(make_order(bad, correct, {}, {.stratify = false}, kept).indices, kept);
  for (const auto& kind : score_kinds().rows())
    EXPECT_EQ(default_keys(*kind) == OrderKeys::kSingle, kind->sees_label) << kind->name();
}

TEST(TeacherOrder, unlabelled_samples_have_one_key_and_no_classes) {
  const Order o = make_order(
      kScore, {}, {}, {.keys = default_keys(score_kinds().at("logit"), false), .stratify = false});
  EXPECT_EQ(o.indices, (Indices{5, 0, 3, 6, 4, 7, 1, 2}));
  const auto message = [](auto&& make) -> std::string {
    try {
      make();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message([] { make_order(kScore, {}, {}, {.keys = OrderKeys::kSingle}); }),
              ::testing::HasSubstr("without labels, set stratify = false"));
  EXPECT_THAT(message([] { make_order(kScore, {}, {}, {.stratify = false}); }),
              ::testing::HasSubstr("neither right nor wrong"));
  const std::vector<std::int32_t> negative{0, 0, 0, -1, 1, 1, 1, 1};
  EXPECT_THAT(message([&] { make_order(kScore, kCorrect, negative, {}); }),
              ::testing::HasSubstr("got -1 for sample 3"));
}

TEST(TeacherOrder, names) {
  EXPECT_EQ(order_kind_names(),
            (nn::Strings{"curriculum", "reverse_exact", "reverse_correct_only", "random"}));
  for (const std::string& name : order_kind_names())
    EXPECT_EQ(name_of(parse_order_kind(name)), name);
  EXPECT_EQ(inverse_names(), (nn::Strings{"off", "reverse_exact", "reverse_correct_only"}));
  EXPECT_EQ(parse_inverse("off"), OrderKind::kCurriculum);
  EXPECT_EQ(parse_inverse("reverse_correct_only"), OrderKind::kReverseCorrectOnly);
  EXPECT_THROW(parse_inverse("random"), Error);
  EXPECT_THROW(parse_order_kind("anti"), Error);
}

}  // namespace
}  // namespace retort::test
