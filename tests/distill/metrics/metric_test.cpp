#include "distill/metrics/metric.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "distill/metrics/metrics_of_rows.h"
#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace distill;

std::string kind_of(std::string_view name) {
  const MetricKind* kind = find_metric(name);
  return kind ? kind->name : "-";
}

TEST(Metric, names_in_files_lead_to_their_kind) {
  EXPECT_EQ(kind_of("accuracy"), "accuracy");
  EXPECT_EQ(kind_of("test.accuracy"), "accuracy");
  EXPECT_EQ(kind_of("glue.mnli.accuracy"), "accuracy");
  EXPECT_EQ(kind_of("exact1017.balanced_accuracy"), "balanced_accuracy");
  EXPECT_EQ(kind_of("steps_to_0.99"), "steps_to");
  EXPECT_EQ(kind_of("probe.degree1_ratio"), "probe");
  EXPECT_EQ(kind_of("test.teacher_agreement"), "teacher_agreement");
  for (const char* unknown : {"", ".", "accuracy.", "steps_to_", "accuracy_of", "99", "gain", "t."})
    EXPECT_EQ(kind_of(unknown), "-") << unknown;
}

TEST(Metric, names_are_taken_apart) {
  const auto parts = [](std::string_view name) {
    const MetricName n = parse_metric_name(name);
    return n.set + "|" + (n.kind ? n.kind->name : "-") + "|" + n.rest;
  };
  EXPECT_EQ(parts("glue.mnli.accuracy"), "glue.mnli|accuracy|");
  EXPECT_EQ(parts("accuracy"), "|accuracy|");
  EXPECT_EQ(parts("steps_to_0.99"), "|steps_to|0.99");
  EXPECT_EQ(parts("test.steps_to_0.99"), "test|steps_to|0.99");
  EXPECT_EQ(parts("probe.degree1_ratio"), "|probe|degree1_ratio");
  EXPECT_EQ(parts("test.gain"), "test|-|gain");
  EXPECT_EQ(parts("gain_at_0.5"), "|-|gain_at_0.5");
}

TEST(Metric, every_row_of_the_table_is_whole) {
  std::set<std::string> names;
  for (const MetricKind* kind : metric_kinds()) {
    EXPECT_TRUE(names.insert(kind->name).second) << kind->name;
    EXPECT_FALSE(kind->doc.empty()) << kind->name;
    EXPECT_TRUE(!kind->proportion || kind->unit == Unit::kShare) << kind->name;
    EXPECT_TRUE(!kind->compares || kind->better != Better::kNeither) << kind->name;
    EXPECT_EQ(find_metric(kind->name), kind);
  }
  EXPECT_TRUE(names.contains("loss") && names.contains("macro_f1") && names.contains("wall_s"));
}

double share_of_first_class(const RowRecords& rows) {
  double n = 0;
  for (const std::int32_t p : rows.predictions) n += p == 0;
  return n / static_cast<double>(rows.rows());
}

// One function and one row: what another program adds.
TEST(Metric, a_kind_from_outside_is_measured_like_ours) {
  register_metric({.name = "metric_test_first_class",
                   .doc = "share of predictions that are class 0",
                   .unit = Unit::kShare,
                   .of = share_of_first_class});
  const std::vector<std::int32_t> targets{0, 1}, predictions{0, 1};
  const std::vector<float> zero{0, 0}, half{0.5f, 0.5f};
  const Metrics metrics = metrics_of_rows({.classes = 2,
                                           .targets = targets,
                                           .predictions = predictions,
                                           .loss = zero,
                                           .confidence = half});
  EXPECT_EQ(metrics.back(), (std::pair<std::string, double>("metric_test_first_class", 0.5)));
  EXPECT_EQ(kind_of("dev.metric_test_first_class"), "metric_test_first_class");
  EXPECT_EQ(metric_kinds().back(), find_metric("metric_test_first_class"));
}

TEST(Metric, names_that_cannot_be_are_refused) {
  for (const char* name :
       {"accuracy", "", "Upper", "with space", "a.b", "9x", "seed", "n", "text"}) {
    try {
      register_metric({.name = name});
      ADD_FAILURE() << "'" << name << "' was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
  }
}

TEST(Metric, of_many_threads_one_gets_the_name) {
  const MetricKind* const loss = find_metric("loss");
  std::atomic<int> registered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) try {
          register_metric({.name = "metric_test_race_" + std::to_string(i)});
          ++registered;
        } catch (const Error&) {
        }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registered, 50);
  EXPECT_EQ(find_metric("test.loss"), loss) << "pointers stay";
}

}  // namespace
}  // namespace retort::test
