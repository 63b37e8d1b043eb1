#include "distill/metrics/metrics_of_rows.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "engine/io/json.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace distill;

// What an evaluation leaves of logits, the slow way.
struct Rows {
  std::vector<std::int32_t> targets, predictions, rank;
  std::vector<float> loss, confidence;
  std::int64_t classes = 0;

  Rows(std::vector<std::int32_t> y, const std::vector<double>& logits, std::int64_t width)
      : targets(std::move(y)), classes(width) {
    const auto v = static_cast<std::size_t>(width);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const double* const z = &logits[i * v];
      const auto label = static_cast<std::size_t>(targets[i]);
      std::size_t top = 0;
      std::int32_t before = 0;
      double sum = 0;
      for (std::size_t c = 0; c < v; ++c) {
        if (z[c] > z[top]) top = c;
        before += z[c] > z[label] || (z[c] == z[label] && c < label);
        sum += std::exp(z[c]);
      }
      predictions.push_back(static_cast<std::int32_t>(top));
      rank.push_back(before);
      loss.push_back(static_cast<float>(std::log(sum) - z[label]));
      confidence.push_back(static_cast<float>(std::exp(z[top]) / sum));
    }
  }
  RowRecords records() const {
    return {.classes = classes,
            .targets = targets,
            .predictions = predictions,
            .loss = loss,
            .confidence = confidence,
            .rank = rank};
  }
};

std::map<std::string, double> by_name(const Metrics& metrics) {
  return {metrics.begin(), metrics.end()};
}

TEST(MetricsOfRows, scikit_learn_says_the_same) {
  const Json golden = Json::read(RETORT_SOURCE_DIR "/tests/golden/metrics.json");
  ASSERT_EQ(golden.at("cases").items().size(), 4u);
  for (const Json& one : golden.at("cases").items()) {
    std::vector<std::int32_t> targets;
    std::vector<double> logits;
    for (const Json& y : one.at("targets").items())
      targets.push_back(static_cast<std::int32_t>(y.as_integer()));
    for (const Json& z : one.at("logits").items()) logits.push_back(z.as_number() / 16);
    const Rows rows(std::move(targets), logits, one.at("classes").as_integer());
    const std::map<std::string, double> got = by_name(metrics_of_rows(rows.records()));
    for (const auto& [name, want] : one.at("want").members()) {
      ASSERT_TRUE(got.contains(name)) << name;
      EXPECT_TRUE(close(got.at(name), want.as_number(), 1e-6, 1e-7))
          << one.at("name").as_string() << ", " << name << ": got " << got.at(name) << ", want "
          << want.as_number();
    }
    EXPECT_EQ(got.contains("top5"), rows.classes > 5) << "always 1 with 5 classes";
    EXPECT_TRUE(close(got.at("perplexity"), std::exp(got.at("loss")), 1e-15, 0));
  }
}

// Two classes, n(1,1) = 3, n(1,0) = 1, n(0,0) = 4, n(0,1) = 2: what one counts on paper.
class ByHand : public ::testing::Test {
 protected:
  std::vector<std::int32_t> targets_{1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
  std::vector<std::int32_t> predictions_{1, 1, 1, 0, 0, 0, 0, 0, 1, 1};
  std::vector<std::int32_t> teacher_{1, 1, 1, 1, 0, 0, 0, 0, 0, 1};
  std::vector<float> loss_{0, 0, 0, 1, 0, 0, 0, 0, 1, 2}, kl_{1, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  std::vector<float> confidence_ = std::vector<float>(10, 0.75f);
  RowRecords rows_{.classes = 2,
                   .targets = targets_,
                   .predictions = predictions_,
                   .loss = loss_,
                   .confidence = confidence_,
                   .teacher_predictions = teacher_,
                   .kl = kl_};
};

TEST_F(ByHand, numbers) {
  const auto got = by_name(metrics_of_rows(rows_));
  EXPECT_DOUBLE_EQ(got.at("accuracy"), 0.7);
  EXPECT_DOUBLE_EQ(got.at("balanced_accuracy"), (3 / 4.0 + 4 / 6.0) / 2);
  EXPECT_DOUBLE_EQ(got.at("macro_f1"), (6 / 9.0 + 8 / 11.0) / 2);
  EXPECT_DOUBLE_EQ(got.at("mcc"), (3 * 4 - 2 * 1) / std::sqrt(5.0 * 4 * 6 * 5));
  EXPECT_DOUBLE_EQ(got.at("loss"), 0.4);
  EXPECT_DOUBLE_EQ(got.at("perplexity"), std::exp(0.4));
  EXPECT_DOUBLE_EQ(got.at("calibration_error"), 0.05);
  EXPECT_DOUBLE_EQ(got.at("teacher_agreement"), 0.8);
  EXPECT_DOUBLE_EQ(got.at("mean_kl"), 0.2);
  EXPECT_FALSE(got.contains("top5"));
  EXPECT_FALSE(got.contains("steps_to")) << "not from rows";
}

TEST_F(ByHand, what_was_not_measured_is_not_there) {
  rows_.teacher_predictions = {};
  rows_.kl = {};
  const auto got = by_name(metrics_of_rows(rows_));
  EXPECT_FALSE(got.contains("teacher_agreement"));
  EXPECT_FALSE(got.contains("mean_kl"));
  EXPECT_EQ(got.count("accuracy"), 1u);
  EXPECT_TRUE(metrics_of_rows(RowRecords{.classes = 2}).empty());
}

TEST_F(ByHand, the_order_of_the_table) {
  std::vector<std::string> names;
  for (const auto& [name, value] : metrics_of_rows(rows_)) names.push_back(name);
  std::vector<std::string> listed;
  for (const MetricKind* kind : metric_kinds())
    if (kind->of && kind->name != "top5") listed.push_back(kind->name);
  EXPECT_EQ(names, listed);
}

// In float, nothing after the first row would count.
TEST(MetricsOfRows, sums_are_in_double) {
  std::vector<float> loss(1001, 0x1p-30f);
  loss[0] = 1;
  const std::vector<std::int32_t> zeros(loss.size(), 0);
  const std::vector<float> sure(loss.size(), 1);
  const RowRecords rows{
      .classes = 1, .targets = zeros, .predictions = zeros, .loss = loss, .confidence = sure};
  EXPECT_EQ(mean_loss(rows), (1 + 1000 * 0x1p-30) / 1001);
  EXPECT_EQ(calibration_error(rows), 0);
  EXPECT_EQ(mcc(rows), 0) << "one class says nothing";
}

TEST_F(ByHand, errors) {
  const auto refused = [&](const RowRecords& rows) {
    try {
      metrics_of_rows(rows);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kUsage;
    }
    return false;
  };
  RowRecords bad = rows_;
  bad.loss = bad.loss.first(9);
  EXPECT_TRUE(refused(bad));
  bad = rows_;
  bad.kl = bad.kl.first(9);
  EXPECT_TRUE(refused(bad));
  bad = rows_;
  bad.classes = 1;
  EXPECT_TRUE(refused(bad));
  predictions_[3] = -1;
  EXPECT_TRUE(refused(rows_));
}

}  // namespace
}  // namespace retort::test
