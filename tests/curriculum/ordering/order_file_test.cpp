#include "curriculum/ordering/order_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/philox.h"
#include "tests/fuzz/order_file_fuzz.cpp"
#include "tests/support/locale.h"
#include "tests/support/mutate.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Indices = std::vector<std::int64_t>;
using Floats = std::vector<float>;
using Labels = std::vector<std::int32_t>;
using Flags = std::vector<std::uint8_t>;

const std::string kHeader = "rank,index,label,score,correct,group\n";

TEST(OrderFile, by_hand) {
  const Order o{{1, 0}, {0, 1}};
  const std::string text = kHeader + "0,1,3,2.5,1,0\n1,0,3,1,0,1\n";
  EXPECT_EQ(order_csv(o, Labels{3, 3}, Floats{1, 2.5f}, Flags{0, 1}), text);
  const OrderFile file = read_order_csv(text, "f");
  EXPECT_TRUE(file.ranked);
  EXPECT_EQ(file.order, o);
  EXPECT_EQ(file.labels, (Labels{3, 3}));
  EXPECT_EQ(file.scores, (Floats{1, 2.5f}));
  EXPECT_EQ(file.correct, (Flags{0, 1}));
}

TEST(OrderFile, does_not_depend_on_the_programs_locale) {
  const Labels labels(1001, 1234);
  const Floats scores(1001, 0.1f);
  const Flags correct(1001, 1);
  const CommaLocale locale;
  const std::string text = order_csv({{1000}, {0}}, labels, scores, correct);
  EXPECT_EQ(text, kHeader + "0,1000,1234,0.100000001,1,0\n");
  EXPECT_EQ(read_order_csv(text, "f", 1001).scores[1000], 0.1f);
}

TEST(OrderFile, unlabelled_samples_have_empty_fields) {
  const std::string text = kHeader + "0,1,,2.5,,0\n1,0,,1,,0\n";
  EXPECT_EQ(order_csv({{1, 0}, {0, 0}}, {}, Floats{1, 2.5f}, {}), text);
  const OrderFile file = read_order_csv(text, "f");
  EXPECT_EQ(file.order.indices, (Indices{1, 0}));
  EXPECT_TRUE(file.labels.empty() && file.correct.empty());
  EXPECT_THROW(order_csv({{0}, {0}}, Labels{-1}, Floats{1}, {}), Error);
  EXPECT_THROW(order_csv({{1}, {0}}, Labels{0}, Floats{1, 1}, {}), Error);
}

// Scores over the whole range of floats, five classes.
std::string drawn_file(std::uint32_t samples, OrderFile* file) {
  for (std::uint32_t i = 0; i < samples; ++i) {
    const Philox4 r = philox(5, i, 0, 0, 0);
    const int exponent = static_cast<int>(r.v[0] % 240) - 130;  // subnormal ones too
    file->scores.push_back(
        static_cast<float>(std::ldexp(static_cast<double>(r.v[1]) / 4294967296.0, exponent)));
    if (r.v[2] % 2 == 0) file->scores.back() *= -1;
    file->labels.push_back(static_cast<std::int32_t>(r.v[3] % 5));
    file->correct.push_back(r.v[2] % 3 == 0);
  }
  file->order = make_order(file->scores, file->correct, file->labels, {});
  return order_csv(file->order, file->labels, file->scores, file->correct);
}

TEST(OrderFile, reading_is_the_inverse_of_writing) {
  OrderFile want;
  const std::string text = drawn_file(200, &want);
  const OrderFile got = read_order_csv(text, "f");
  EXPECT_EQ(got.order, want.order);
  EXPECT_EQ(got.scores, want.scores);  // bit for bit
  EXPECT_EQ(got.labels, want.labels);
  EXPECT_EQ(got.correct, want.correct);
}

TEST(OrderFile, scores_alone) {
  const OrderFile file = read_order_csv("index,score\r\n2,-1e-3\r\n0,7", "f", 4);
  EXPECT_FALSE(file.ranked);
  EXPECT_TRUE(file.order.indices.empty() && file.labels.empty() && file.correct.empty());
  EXPECT_EQ(file.scores[0], 7);
  EXPECT_EQ(file.scores[2], -1e-3f);
  EXPECT_TRUE(std::isnan(file.scores[1]) && std::isnan(file.scores[3]));
  EXPECT_EQ(read_order_csv("index,score\n", "f").scores.size(), 0u);
}

TEST(OrderFile, a_sample_may_be_left_out_where_their_number_is_known) {
  const std::string text = kHeader + "0,2,1,5,1,0\n1,0,0,4,1,0\n";
  const OrderFile file = read_order_csv(text, "f", 3);
  EXPECT_EQ(file.order.indices, (Indices{2, 0}));
  EXPECT_TRUE(std::isnan(file.scores[1]));
  EXPECT_EQ(file.labels, (Labels{0, -1, 1}));
  EXPECT_THROW(read_order_csv(text, "f"), Error);
}

TEST(OrderFile, errors_name_the_line) {
  const std::string full = "the header rank,index,label,score,correct,group or index,score";
  const struct {
    std::string text, message;
  } cases[] = {
      {"", "1: expected " + full + ", got ''"},
      {"index,score,extra\n", "1: expected " + full + ", got 'index,score,extra'"},
      {kHeader + "0,0,1,1,1\n",
       "2: expected rank,index,label,score,correct,group, got '0,0,1,1,1'"},
      {kHeader + "0,0,1,1,1,0,\n", "2: expected rank,index,label,score,correct,group, got "},
      {kHeader + "\n0,0,1,1,1,0\n", "2: expected rank,index,label,score,correct,group, got ''"},
      {kHeader + "1,0,1,1,1,0\n", "2: expected rank 0, got 1"},
      {kHeader + "0,-1,1,1,1,0\n", "2: expected an index >= 0, got '-1'"},
      {kHeader + "0, 0,1,1,1,0\n", "2: expected an index >= 0, got ' 0'"},
      {kHeader + "0,1,1,1,1,0\n", "2: expected an index below 1, got 1"},
      {kHeader + "0,99999999999999999999,1,1,1,0\n", "2: expected an index >= 0, got '9999"},
      {kHeader + "0,0,-1,1,1,0\n", "2: expected a label >= 0, got '-1'"},
      {kHeader + "0,0,1.5,1,1,0\n", "2: expected a label >= 0, got '1.5'"},
      {kHeader + "0,0,1,nan,1,0\n", "2: expected a finite score, got 'nan'"},
      {kHeader + "0,0,1,inf,1,0\n", "2: expected a finite score, got 'inf'"},
      {kHeader + "0,0,1,-inf,1,0\n", "2: expected a finite score, got '-inf'"},
      {kHeader + "0,0,1,1e99,1,0\n", "2: expected a finite score, got '1e99'"},
      {kHeader + "0,0,1,,1,0\n", "2: expected a finite score, got ''"},
      {kHeader + "0,0,1,1,2,0\n", "2: expected correct to be 0 or 1, got 2"},
      {kHeader + "0,0,1,1,1,1\n", "2: expected group 0, got 1"},
      {kHeader + "0,0,1,1,1,0\n1,1,1,1,1,2\n", "3: expected group 0 or 1, got 2"},
      {kHeader + "0,0,1,1,1,0\n1,1,,1,1,0\n", "3: expected a label on every line or on none"},
      {kHeader + "0,0,1,1,,0\n1,1,1,1,1,0\n", "3: expected correct to be given on every line"},
      {kHeader + "0,0,1,1,1,0\n1,0,1,1,1,0\n", "3: expected every index once, got 0 again"},
      {kHeader + "0,0,1,1,1,0\n1,1,1,1,1,0\n2,2,1,1,1,1\n",
       "3: expected one sample of a label in group 0, got a second of 1"},
      {"index,score\n0,1\n0,2\n", "3: expected every index once, got 0 again"},
      {"index,score\n0,one\n", "2: expected a finite score, got 'one'"},
      {"index,score\n0,1\x1b[2J\n", "2: expected a finite score, got '1\\x1b[2J'"},
  };
  for (const auto& c : cases) try {
      read_order_csv(c.text, "name");
      ADD_FAILURE() << c.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_EQ(std::string(error.what()).find("name:" + c.message), 0u)
          << error.what() << "\n  want name:" << c.message;
    }
}

TEST(OrderFile, damaged_files_are_read_or_refused) {
  OrderFile file;
  const std::string texts[] = {drawn_file(12, &file), kHeader + "0,1,,2.5,,0\n1,0,,1,,0\n",
                               "index,score\n3,1\n0,2\n1,-5e3\n2,0.5\n"};
  int read = 0, refused = 0;
  for (const std::string& text : texts)
    for (std::uint32_t round = 0; round < 4000; ++round)
      (fuzz_order_file(mutated(text, 17, round, "0123456789,.-+einfa\n\r \x80")) ? read
                                                                                 : refused)++;
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace retort::test
