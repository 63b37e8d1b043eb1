#include "engine/distributed/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/error_of.h"

namespace retort::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using Fields = std::vector<Handshake::Field>;
using Lists = std::vector<Fields>;

const std::vector<std::string> kHosts{"a", "b", "c"};

TEST(Handshake, equal_lists_pass) {
  const Fields all{{"version", "0.1.0"}, {"recipe", "8c1e"}};
  EXPECT_EQ(Handshake::difference(Lists{all, all, all}, kHosts), "");
  EXPECT_EQ(Handshake::difference(Lists{all}, kHosts), "");
}

TEST(Handshake, each_field_that_differs_is_named_with_rank_host_and_both_values) {
  const Fields all{{"version", "0.1.0"}, {"recipe", "8c1e"}, {"training data", "f3a1"}};
  for (std::size_t i = 0; i < all.size(); ++i) {
    Fields other = all;
    other[i].value = "77";
    EXPECT_EQ(Handshake::difference(Lists{all, all, other}, kHosts),
              join("rank 2 (c) has other ", all[i].name, ": 77 instead of ", all[i].value));
  }
}

TEST(Handshake, the_first_rank_that_differs_stands_for_the_others) {
  const Fields zero{{"recipe", "0"}}, one{{"recipe", "1"}};
  EXPECT_EQ(Handshake::difference(Lists{zero, one, one}, kHosts),
            "rank 1 (b) has other recipe: 1 instead of 0, and 1 more ranks differ from rank 0");
}

TEST(Handshake, lists_of_other_names_differ_too) {
  const Fields all{{"recipe", "8c1e"}, {"weights", ""}};
  EXPECT_EQ(Handshake::difference(Lists{all, Fields{all[0]}}, kHosts),
            "rank 1 (b) has other weights: none instead of ''");
  EXPECT_EQ(Handshake::difference(Lists{Fields{all[0]}, all}, kHosts),
            "rank 1 (b) has other weights: '' instead of none");
}

TEST(Handshake, values_from_outside_stay_one_line_of_text) {
  Fields zero{{"arch", "mlp"}}, one = zero;
  one[0].value.assign(5000, 'x');
  EXPECT_LT(Handshake::difference(Lists{zero, one}, kHosts).size(), 300u);
  const Fields line{{"arch", "a\nb"}};
  EXPECT_THAT(Handshake::difference(Lists{zero, line}, kHosts), HasSubstr("a\\x0ab"));
}

TEST(Handshake, a_name_is_given_once_and_one_rank_agrees_with_itself) {
  Handshake handshake = handshake_of_build();
  handshake.add("recipe", "1").compare(Communicator::world());
  EXPECT_THAT(error_of([&] { handshake.add("recipe", "2"); }, ErrorCode::kUsage),
              EndsWith("got 'recipe'"));
  EXPECT_THAT(error_of([&] { handshake.add("", "2"); }, ErrorCode::kUsage), EndsWith("got ''"));
}

}  // namespace
}  // namespace retort::test
