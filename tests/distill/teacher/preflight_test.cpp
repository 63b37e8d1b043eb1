#include "distill/teacher/preflight.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

// Inputs are one-hot rows of the label times 4; an identity teacher is right on all of them.
struct Data {
  nn::Batch batch;
  explicit Data(std::int64_t n) {
    std::vector<float> x(static_cast<std::size_t>(n) * 4);
    std::vector<std::int32_t> y;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      x[i * 4 + i % 4] = 4;
      y.push_back(static_cast<std::int32_t>(i % 4));
    }
    batch = nn::Batch(Tensor::from(x, {n, 4}), Tensor::from(y, {n}));
  }
};
std::shared_ptr<LinearModel> diagonal(float value) {
  auto m = std::make_shared<LinearModel>(4, 4);
  std::vector<float> w(16);
  for (std::size_t i = 0; i < 4; ++i) w[i * 5] = value;
  m->set(w, {0, 0, 0, 0});
  return m;
}
std::string refusal(const Teacher& teacher, const Data& data, std::int64_t classes = 4,
                    bool allow = false) {
  try {
    preflight(teacher, data.batch, classes, allow);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "";
}

TEST(Preflight, accepts_a_good_teacher_and_reports_it) {
  const Data data(400);
  const PreflightReport r = preflight(Teacher(diagonal(1), "good"), data.batch, 4);
  EXPECT_EQ(r.teacher, "good");
  EXPECT_EQ(r.accuracy, 1);
  EXPECT_DOUBLE_EQ(r.chance, 0.25);
  EXPECT_TRUE(close(r.threshold, 0.25 + 3 * std::sqrt(0.25 * 0.75 / 400), 1e-12, 0));
  EXPECT_TRUE(close(r.loss, std::log(1 + 3 * std::exp(-4.0)), 1e-5, 0));
  EXPECT_TRUE(r.problems.empty());
  EXPECT_FALSE(r.allowed_untrained);
}

TEST(Preflight, refuses_zero_weights_and_chance_unless_allowed) {
  const Data data(400);
  const Teacher zero(diagonal(0));
  const std::string text = refusal(zero, data);
  EXPECT_NE(text.find("all its weights are zero"), std::string::npos) << text;
  EXPECT_NE(text.find("not above chance"), std::string::npos) << text;
  EXPECT_NE(text.find("allow_untrained"), std::string::npos) << text;
  const PreflightReport r = preflight(zero, data.batch, 4, true);
  EXPECT_TRUE(r.allowed_untrained);
  EXPECT_TRUE(r.all_zero_weights);
  EXPECT_TRUE(r.at_chance);
  EXPECT_EQ(r.problems.size(), 2u);
  EXPECT_NE(refusal(Teacher(diagonal(-1)), data), "");  // always wrong
}

TEST(Preflight, class_counts_are_both_named_and_never_allowed) {
  const Data data(8);
  for (const bool allow : {false, true}) {
    const std::string text = refusal(Teacher(diagonal(1)), data, 10, allow);
    EXPECT_NE(text.find("4 classes and the data has 10"), std::string::npos) << text;
  }
}

TEST(Preflight, nan_logits_are_never_allowed) {
  const Data data(8);
  const auto m = diagonal(1);
  m->set(std::vector<float>(16, std::nanf("")), {0, 0, 0, 0});
  for (const bool allow : {false, true})
    EXPECT_NE(refusal(Teacher(m), data, 4, allow).find("NaN"), std::string::npos);
}

TEST(Preflight, majority_guessing_is_chance) {
  // 90 % of the labels are 0: always saying 0 is not above chance.
  std::vector<std::int32_t> labels(300);
  for (std::size_t i = 0; i < 30; ++i) labels[i * 10] = 1;
  const auto m = std::make_shared<LinearModel>(4, 4);
  m->set(std::vector<float>(16), {5, 0, 0, 0});
  const Teacher teacher(m);
  EXPECT_THROW(preflight(teacher, {randn({300, 4}, 1), Tensor::from(labels, {300})}, 4), Error);
}

TEST(Preflight, errors) {
  const Teacher teacher(diagonal(1));
  EXPECT_THROW(preflight(teacher, {randn({2, 4}, 1), randint({3}, 1, 4)}, 4), Error);
  EXPECT_THROW(preflight(teacher, {randn({1, 4}, 1), Tensor::from<std::int32_t>({4}, {1})}, 4),
               Error);
  EXPECT_THROW(preflight(teacher, {randn({1, 4}, 1), Tensor()}, 4), Error);
  EXPECT_THROW(preflight(teacher, {}, 4), Error);
}

TEST(Preflight, samples_beyond_one_pass_count_like_the_first) {
  const Data few(256), many(1000);
  const Teacher teacher(diagonal(0.25f));
  const PreflightReport a = preflight(teacher, few.batch, 4), b = preflight(teacher, many.batch, 4);
  EXPECT_EQ(b.samples, 1000);
  EXPECT_EQ(b.accuracy, 1);
  EXPECT_TRUE(close(b.loss, a.loss, 1e-6, 0));
}

}  // namespace
}  // namespace retort::test
