#include "tools/report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tools/report/results.h"

namespace retort::tools {
namespace {

TEST(ReportStatistics, holm_by_hand) {
  // Sorted 0.01 0.02 0.03 0.8: times 4, 3, 2, 1 = 0.04 0.06 0.06 0.8, never falling.
  EXPECT_EQ(holm({0.03, 0.01, 0.8, 0.02}), (std::vector<double>{0.06, 0.04, 0.8, 0.06}));
  EXPECT_EQ(holm({0.5, 0.9}), (std::vector<double>{1, 1}));
  EXPECT_TRUE(holm({}).empty());
  const std::vector<double> with_gap = holm({0.01, std::nan(""), 0.04});
  EXPECT_EQ(with_gap[0], 0.02) << "what was not tested does not count";
  EXPECT_TRUE(std::isnan(with_gap[1]));
}

TEST(ReportStatistics, paired_t_test) {
  // Student's sleep data (1908), the ten differences: t = 4.0621, p = 0.002833.
  const Summary sleep = summarize({1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4});
  EXPECT_NEAR(t_test(sleep), 0.002833, 5e-7);
  EXPECT_TRUE(std::isnan(t_test(summarize({1}))));
  EXPECT_EQ(t_test(summarize({2, 2, 2})), 0);
  EXPECT_EQ(t_test(summarize({0, 0})), 1);
}

TEST(ReportStatistics, intervals_of_shares_stay_within_0_and_100) {
  const MetricText accuracy("test.accuracy"), loss("test.loss"), f1("test.macro_f1");
  using Kind = ShownInterval::Kind;
  const ShownInterval cut = shown_interval(accuracy, summarize({0.99, 1.0, 0.97}), 0);
  EXPECT_EQ(cut.kind, Kind::kStudentCut);
  EXPECT_EQ(cut.high, 1);
  EXPECT_EQ(cut.low, summarize({0.99, 1.0, 0.97}).low95);
  EXPECT_EQ(shown_interval(accuracy, summarize({0.5, 0.51, 0.52}), 0).kind, Kind::kStudent);
  EXPECT_EQ(shown_interval(loss, summarize({0.0, 1.0, 0.1}), 0).kind, Kind::kStudent);
  // One run of BioASQ's 166 questions, all right: Wilson's interval, as SciPy has it.
  const ShownInterval one = shown_interval(accuracy, summarize({1.0}), 166);
  EXPECT_EQ(one.kind, Kind::kWilson);
  EXPECT_NEAR(one.low, 0.97738209, 1e-8);
  EXPECT_EQ(one.high, 1);
  EXPECT_EQ(shown_interval(accuracy, summarize({0.9}), 0).kind, Kind::kNone) << "rows not known";
  EXPECT_EQ(shown_interval(f1, summarize({0.9}), 166).kind, Kind::kNone) << "no share of rows";
  EXPECT_EQ(shown_interval(accuracy, summarize({}), 166).kind, Kind::kNone);
}

TEST(ReportStatistics, intervals_of_steps_do_not_go_below_0) {
  const MetricText steps("steps_to_0.99");
  const Summary far = summarize({7200, 9400});
  ASSERT_LT(far.low95, 0);
  const ShownInterval cut = shown_interval(steps, far, 0);
  EXPECT_EQ(cut.kind, ShownInterval::Kind::kStudentCut);
  EXPECT_EQ(cut.low, 0);
  EXPECT_EQ(cut.high, far.high95) << "steps have no upper end";
  EXPECT_EQ(shown_interval(steps, summarize({7200, 7400, 7300}), 0).kind,
            ShownInterval::Kind::kStudent);
}

TEST(ReportStatistics, values_are_shown_in_the_unit_and_digits_of_their_kind) {
  const auto shown = [](const char* name, double value) { return MetricText(name).number(value); };
  EXPECT_EQ(shown("test.accuracy", 0.84123), "84.12");
  EXPECT_EQ(shown("test.loss", 0.84123), "0.8412");
  EXPECT_EQ(shown("steps_to_0.99", 800), "800");
  EXPECT_EQ(shown("test.mcc", -0.5), "-0.5000");
  EXPECT_EQ(shown("test.gain", 2.5), "2.5000");
  EXPECT_EQ(shown("test.loss", 1e30), "1e+30");
  EXPECT_EQ(shown("test.loss", std::nan("")), "nan");
  EXPECT_EQ(MetricText("test.accuracy").difference(-0.0123), "-1.23");
  EXPECT_EQ(MetricText("test.accuracy").difference(0.0123), "+1.23");
  EXPECT_EQ(MetricText("test.accuracy").title(), "test accuracy, %");
  EXPECT_EQ(MetricText("exact1017.macro_f1").title(), "exact1017 macro F1, %");
  EXPECT_EQ(MetricText("steps_to_0.99").title(), "steps to 99 %");
  EXPECT_EQ(MetricText("probe.degree1_ratio").title(), "probe degree1 ratio");
  EXPECT_EQ(MetricText("test.new_number").title(), "test new number");
}

TEST(ReportStatistics, text_of_a_value_and_its_interval) {
  const MetricText accuracy("test.accuracy");
  const auto text = [&](const std::vector<double>& values, double rows) {
    const Summary s = summarize(values);
    return number_with_interval(accuracy, s, shown_interval(accuracy, s, rows));
  };
  EXPECT_EQ(text({}, 0), "-");
  EXPECT_EQ(text({0.5}, 0), "50.00");
  EXPECT_EQ(text({0.0}, 20), "0.00 [0.00, 16.11]");  // Newcombe 1998
  EXPECT_EQ(text({0.4, 0.6}, 0), "50.00 [0.00, 100.00]");
  EXPECT_EQ(text({0.49, 0.5, 0.51}, 0), "50.00 +- 2.48");
}

}  // namespace
}  // namespace retort::tools
