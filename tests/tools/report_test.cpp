#include "tools/report/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/io/json.h"
#include "kernels/common/check.h"
#include "tests/support/mutate.h"
#include "tools/report/results.h"
#include "tools/report/run_log.h"
#include "tools/report/svg.h"

int fuzz_run_log(const std::string& bytes);  // tests/fuzz/run_log_fuzz.cpp

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

class Report : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("retort_report_" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "curriculum");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }
  std::string read(const std::string& name) {
    std::ifstream in(folder_ / name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  fs::path folder_;
};

TEST_F(Report, student_t_matches_published_quantiles) {
  // Two-sided 95 % points of Student's t, from any printed table.
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062, 5e-5);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.77645, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.04227, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.025, 9), -2.26216, 5e-6);
  EXPECT_THROW(student_t_quantile(1, 3), Error);
}

TEST_F(Report, summary_of_hand_checked_numbers) {
  const Summary s = summarize({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_EQ(s.n, 8);
  EXPECT_DOUBLE_EQ(s.mean, 5);
  EXPECT_DOUBLE_EQ(s.median, 4.5);
  EXPECT_NEAR(s.sd, 2.13809, 1e-5);
  EXPECT_NEAR(s.high95 - s.mean, 2.36462 * 2.13809 / std::sqrt(8.0), 1e-4);
  EXPECT_TRUE(std::isnan(summarize({3}).low95));
}

TEST_F(Report, page_and_json_show_arms_pairs_and_notes) {
  write(
      "metrics.jsonl",
      "{\"arm\":\"teacher\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.9,\"parameters\":"
      "100}\n"
      "{\"arm\":\"unguided\",\"seed\":0,\"epoch\":1,\"step\":10,\"split\":\"test\",\"loss\":1.5,"
      "\"accuracy\":0.5}\n"
      "{\"arm\":\"unguided\",\"seed\":0,\"epoch\":2,\"step\":20,\"split\":\"test\",\"loss\":"
      "\"nan\",\"accuracy\":0.6}\n"
      "{\"arm\":\"unguided\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.6,\"wall_s\":3}\n"
      "{\"arm\":\"unguided\",\"seed\":1,\"split\":\"final\",\"test.accuracy\":0.62,\"wall_s\":3}\n"
      "{\"arm\":\"kd<b>\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.70}\n"
      "{\"arm\":\"kd<b>\",\"seed\":1,\"split\":\"final\",\"test.accuracy\":0.72}\n"
      "{\"arm\":\"kd<b>\",\"split\":\"note\",\"text\":\"untrained teacher allowed\"}\n"
      "{\"arm\":\"kd<b>\",\"torn");
  write("curriculum/teacher.csv",
        "rank,index,label,score,correct,group\n0,5,1,9.5,1,0\n1,2,0,3.5,0,0\n");
  write_report(folder_);
  const std::string json = read("results.json"), page = read("report.html");
  EXPECT_NE(json.find("\"baseline\":\"unguided\""), std::string::npos);
  EXPECT_NE(json.find("\"mean\":0.61,"), std::string::npos) << json;
  EXPECT_NE(json.find("\"arm\":\"kd<b>\",\"metric\":\"test.accuracy\",\"n\":2,\"mean\":0.1"),
            std::string::npos)
      << json;
  EXPECT_EQ(page.find("kd<b>"), std::string::npos) << "names are user input and must be escaped";
  EXPECT_NE(page.find("kd&lt;b&gt;"), std::string::npos);
  EXPECT_NE(page.find("untrained teacher allowed"), std::string::npos);
  EXPECT_NE(page.find("teacher wrong"), std::string::npos);
  EXPECT_EQ(page.find("http://"), std::string::npos) << "nothing is fetched";
  EXPECT_NE(results_table(folder_).find("61.00 %"), std::string::npos) << results_table(folder_);
}

TEST_F(Report, labels_stand_on_the_page_and_an_arm_called_teacher_something_is_an_arm) {
  write("metrics.jsonl",
        "{\"arm\":\"teacher\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.9}\n"
        "{\"arm\":\"unguided\",\"split\":\"note\",\"text\":\"said twice\"}\n"
        "{\"arm\":\"unguided\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.6,"
        "\"test.loss\":2686181529163383598743552}\n"
        "{\"arm\":\"teacher_twice\",\"split\":\"note\",\"text\":\"said twice\"}\n"
        "{\"arm\":\"teacher_twice\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.7,"
        "\"test.teacher_agreement\":0.5,\"fraction_clamped\":0.25}\n");
  write_report(folder_, {"my <run>", "What for.", {{"teacher_twice", "KD & twice"}}});
  const std::string json = read("results.json"), page = read("report.html");
  EXPECT_NE(json.find("\"name\":\"teacher_twice\",\"label\":\"KD & twice\""), std::string::npos);
  EXPECT_NE(json.find("\"arm\":\"teacher_twice\",\"metric\":\"test.accuracy\""), std::string::npos)
      << "it is compared with the baseline";
  EXPECT_NE(page.find("<h1>my &lt;run&gt;</h1><p>What for.</p>"), std::string::npos);
  EXPECT_NE(page.find("KD &amp; twice<span class=\"sub\">teacher_twice</span>"), std::string::npos);
  EXPECT_EQ(page.find("unguided<span class=\"sub\">unguided"), std::string::npos);
  const std::size_t others = page.find("<h2>Other metrics</h2>");
  ASSERT_NE(others, std::string::npos);
  EXPECT_GT(page.find("lambda clamped, %"), others);
  EXPECT_LT(page.find("test accuracy, %</th>"), others);
  EXPECT_NE(page.find("unguided, KD &amp; twice: said twice"), std::string::npos);
  EXPECT_NE(json.find("\"unguided, teacher_twice: said twice\""), std::string::npos);
  const std::string table = results_table(folder_);
  EXPECT_NE(table.find("teacher_twice"), std::string::npos) << table;
  EXPECT_EQ(table.find("clamped"), std::string::npos) << "the page has the rest";
  EXPECT_EQ(table.find("2686181529163383598743552"), std::string::npos) << table;
}

TEST_F(Report, time_and_memory_are_weighted_and_are_not_metrics) {
  // 30 steps at 100 samples/s and 10 at 20: 40 in 0.8 parts of the time; the share likewise.
  write(
      "metrics.jsonl",
      "{\"arm\":\"kd\",\"seed\":1,\"step\":30,\"split\":\"train\",\"loss\":1,\"samples_per_s\":100,"
      "\"share_student\":0.5,\"share_update\":0.1}\n"
      "{\"arm\":\"kd\",\"seed\":1,\"step\":40,\"split\":\"train\",\"loss\":1,\"samples_per_s\":20,"
      "\"share_student\":0.1,\"share_update\":0.1}\n"
      "{\"arm\":\"kd\",\"seed\":1,\"split\":\"final\",\"test.accuracy\":0.5,\"memory_mib\":7.5,"
      "\"memory_data_mib\":1.5}\n"
      "{\"arm\":\"kd\",\"seed\":2,\"split\":\"final\",\"test.accuracy\":0.5,\"memory_mib\":6.5,"
      "\"memory_data_mib\":2.5}\n");
  const RunResults results = gather_results(read_run_log(folder_ / "metrics.jsonl"));
  ASSERT_EQ(results.arms.size(), 1u);
  const ArmResult& arm = results.arms[0];
  EXPECT_DOUBLE_EQ(arm.steps.samples_per_s, 40 / (30 / 100.0 + 10 / 20.0));
  EXPECT_NEAR(arm.steps.shares.at("student"), (0.5 * 0.3 + 0.1 * 0.5) / 0.8, 1e-12);
  EXPECT_NEAR(arm.steps.shares.at("update"), 0.1, 1e-12);
  EXPECT_EQ(arm.memory_mib, (std::map<std::string, double>{{"total", 7.5}, {"data", 2.5}}));
  ASSERT_EQ(results.metrics.size(), 1u);
  EXPECT_EQ(results.metrics[0].name, "test.accuracy");
  write_report(folder_);
  const std::string page = read("report.html");
  EXPECT_NE(page.find("Time and memory"), std::string::npos);
  EXPECT_NE(page.find("<td>25 %</td>"), std::string::npos);
  EXPECT_NE(read("results.json").find("\"memory_mib\":{\"data\":2.5,\"total\":7.5}"),
            std::string::npos);
}

TEST_F(Report, a_seed_that_stopped_keeps_its_last_value_in_the_mean) {
  std::string log;
  const auto line = [&](int seed, int step, double accuracy) {
    log += "{\"arm\":\"a\",\"seed\":" + std::to_string(seed) + ",\"step\":" + std::to_string(step) +
           ",\"split\":\"test\",\"loss\":1,\"accuracy\":" + std::to_string(accuracy) + "}\n";
  };
  line(1, 10, 0.5);
  line(1, 20, 1.0);
  log += "{\"arm\":\"a\",\"seed\":1,\"split\":\"final\",\"test.accuracy\":1.0}\n";
  line(2, 10, 0.25);
  line(2, 20, 0.5);
  line(2, 25, 0.5);  // a point that seed 1 does not have
  line(2, 30, 0.5);
  line(3, 10, 0.0);  // not finished: it has no say beyond where it is
  write("metrics.jsonl", log);
  const RunResults results = gather_results(read_run_log(folder_ / "metrics.jsonl"));
  const Curve& curve = results.arms.at(0).curves.at("accuracy").at("test");
  EXPECT_EQ(curve.x, (std::vector<double>{10, 20, 25, 30}));
  EXPECT_EQ(curve.mean, (std::vector<double>{0.25, 0.75, 0.75, 0.75}));
}

TEST_F(Report, a_point_without_neighbours_is_drawn_and_counts_are_whole) {
  const double gap = std::nan("");
  const std::string svg = chart({"t", "epoch"}, {{"a", {1, 2, 3, 4}, {5, gap, 6, 7}, {}, {}, 0}});
  EXPECT_EQ(svg.find("class=\"point c0\""), svg.rfind("class=\"point c0\""));
  EXPECT_NE(svg.find("class=\"point c0\""), std::string::npos);
  const std::string two = chart({"t", "epoch"}, {{"a", {1, 2}, {5, 6}, {}, {}, 0}});
  EXPECT_EQ(two.find("class=\"point"), std::string::npos);
  EXPECT_EQ(two.find(">1.5<"), std::string::npos);
}

TEST_F(Report, bad_line_in_the_middle_names_file_and_line) {
  write("metrics.jsonl", "{\"arm\":\"a\"}\n{\"arm\":[1]}\n{\"arm\":\"a\"}\n");
  try {
    write_report(folder_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_NE(std::string(e.what()).find("metrics.jsonl:2"), std::string::npos) << e.what();
  }
  EXPECT_THROW(write_report(folder_ / "absent"), Error);
}

// Found by fuzzing: ticks between two values that differ in their last bits had no end.
TEST_F(Report, values_that_are_huge_or_all_but_equal_are_drawn_or_refused) {
  const auto drawn = [](std::vector<double> x, std::vector<double> y) {
    const std::string text = chart({"t", "x"}, {{"a", std::move(x), std::move(y), {}, {}, 0}});
    EXPECT_LT(text.size(), 20000u);
    EXPECT_EQ(text.find("nan"), std::string::npos) << text;
    EXPECT_EQ(text.find("inf"), std::string::npos) << text;
    return text.find("<svg") != std::string::npos;
  };
  EXPECT_TRUE(drawn({1, 2}, {1e16, 1e16 + 2}));
  EXPECT_TRUE(drawn({1e17, 1e17 + 16}, {1, 2}));
  EXPECT_TRUE(drawn({1, 2}, {-1e-300, 1e-300}));
  EXPECT_TRUE(drawn({1, 2}, {0, 5e-324}));
  EXPECT_TRUE(drawn({1, 2}, {0.5, 0.5}));
  EXPECT_TRUE(drawn({1}, {0}));
  EXPECT_FALSE(drawn({1, 2}, {-1e308, 1e308}));
  EXPECT_FALSE(drawn({-1e308, 1e308}, {1, 2}));
}

TEST_F(Report, bad_curriculum_lines_name_file_and_line) {
  write("metrics.jsonl", "");
  for (const char* row : {"0,5,-inf,9.5,1,0", "0,5,nan,9.5,1,0", "0,5,1e300,9.5,1,0", "0,5,1,9.5",
                          "0;5;1;9.5;1;0", "0,5,1,high,1,0"}) {
    write("curriculum/c.csv",
          "rank,index,label,score,correct,group\n0,5,1,9.5,1,0\n" + std::string(row) + "\n");
    try {
      write_report(folder_);
      ADD_FAILURE() << row;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find("c.csv:3: expected"), std::string::npos)
          << error.what();
    }
  }
}

TEST_F(Report, names_that_look_like_numbers_are_names) {
  write("metrics.jsonl",
        "{\"arm\":\"inf\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.6}\n"
        "{\"arm\":\"nan\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":\"nan\"}\n");
  const RunResults results = gather_results(read_run_log(folder_ / "metrics.jsonl"));
  ASSERT_EQ(results.arms.size(), 2u);
  EXPECT_EQ(results.arms[0].name, "inf");
  EXPECT_EQ(results.arms[1].name, "nan");
}

TEST_F(Report, hostile_logs_are_refused_with_their_line) {
  const auto error_of = [](const std::string& text) -> std::string {
    std::istringstream in(text);
    try {
      parse_run_log(in, "log");
      return "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
  };
  EXPECT_NE(error_of("{}\n{\"x\":1,\"x\":2}\n{}\n").find("log:2: byte "), std::string::npos);
  EXPECT_NE(error_of("{}\n" + std::string(2 << 20, ' ') + "\n").find("log:2: expected lines of"),
            std::string::npos);
  EXPECT_EQ(error_of("{}\n{\"torn"), "accepted") << "the last line of a run that was killed";

  const std::vector<std::string> corpus{
      "{\"arm\":\"kd\",\"seed\":1,\"step\":30,\"split\":\"train\",\"loss\":\"nan\",\"x\":[1]}\n{}"
      "\n",
      "rank,index,label,score,correct,group\n0,5,1,9.5,1,0\n1,2,0,3.5,0,0\n"};
  for (const std::string& text : corpus) fuzz_run_log(text);
  for (std::uint32_t i = 0; i < 3000; ++i)
    fuzz_run_log(test::mutated(corpus[i % corpus.size()], 5, i, "{}[]\",:0123456789-.eE\\\x80\n"));
}

// Names, units, directions and curves come from the table of kinds; a number that no table knows is
// shown too.
TEST_F(Report, every_metric_of_the_log_is_reported) {
  write("metrics.jsonl",
        "{\"arm\":\"kd\",\"seed\":0,\"epoch\":1,\"step\":5,\"split\":\"dev\",\"loss\":0.6,\"mean_"
        "kl\":0.25,"
        "\"lr\":0.1,\"new_number\":7,\"n\":166}\n"
        "{\"arm\":\"kd\",\"seed\":0,\"split\":\"final\",\"dev.macro_f1\":0.75,\"dev.accuracy\":0.5,"
        "\"dev.new_number\":7.25,\"dev.calibration_error\":0.125}\n");
  write_report(folder_);
  const std::string page = read("report.html");
  for (const char* text :
       {"dev macro F1, %", "75.00", "dev new number", "7.2500", "dev calibration error (ECE), %",
        "12.50", "Dev KL to the teacher, nats", "50.00 [42.48, 57.52]", "Wilson"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
  EXPECT_EQ(page.find("Dev new number", page.find("<h2>Curves</h2>")), std::string::npos)
      << "nobody said that it is a curve";
  const Json json = Json::read((folder_ / "results.json").string());
  const Json& accuracy = json.at("arms").items().at(0).at("metrics").at("dev.accuracy");
  EXPECT_EQ(accuracy.at("interval95").at("kind").as_string(), "wilson");
  EXPECT_EQ(accuracy.at("rows").as_integer(), 166);
  EXPECT_NEAR(accuracy.at("exact95").items().at(0).as_number(), 0.4215306, 1e-7);
  EXPECT_TRUE(accuracy.at("low95").is_null()) << "of one seed";
  EXPECT_EQ(json.at("metrics").at("dev.accuracy").at("unit").as_string(), "%");
  EXPECT_EQ(json.at("metrics").at("dev.accuracy").at("better").as_string(), "higher");
  EXPECT_EQ(json.at("metrics").at("dev.new_number").find("better"), nullptr);
}

TEST_F(Report, a_missing_key_is_not_a_zero) {
  write("metrics.jsonl",
        "{\"arm\":\"plain\",\"seed\":0,\"step\":1,\"split\":\"train\",\"loss\":1}\n"
        "{\"arm\":\"plain\",\"seed\":0,\"step\":1,\"split\":\"test\",\"loss\":1}\n"
        "{\"arm\":\"kd\",\"seed\":0,\"step\":1,\"split\":\"train\",\"loss\":1,\"lambda\":0.5,"
        "\"temperature\":4,\"samples_per_s\":10}\n");
  const RunResults results = gather_results(read_run_log(folder_ / "metrics.jsonl"));
  EXPECT_TRUE(results.arms.at(0).lambda.x.empty());
  EXPECT_TRUE(results.arms.at(0).temperature.x.empty());
  EXPECT_FALSE(results.arms.at(0).curves.contains("accuracy"));
  write_report(folder_);
  const std::string page = read("report.html");
  EXPECT_NE(page.find("Temperature (tau), constant: <b>4</b> for kd.</p>"), std::string::npos);
  EXPECT_NE(page.find("(lambda), constant: <b>0.5</b> for kd.</p>"), std::string::npos);
}

// Files from before keys were left out say temperature 1 where nothing is distilled.
TEST_F(Report, an_arm_without_a_teacher_has_no_temperature) {
  write("metrics.jsonl",
        "{\"arm\":\"plain\",\"seed\":0,\"step\":1,\"split\":\"train\",\"lambda\":0,\"temperature\":"
        "1}\n"
        "{\"arm\":\"ramp\",\"seed\":0,\"step\":1,\"split\":\"train\",\"lambda\":0,\"temperature\":"
        "2}\n"
        "{\"arm\":\"ramp\",\"seed\":0,\"step\":2,\"split\":\"train\",\"lambda\":1,\"temperature\":"
        "2}\n");
  write_report(folder_);
  const std::string page = read("report.html");
  EXPECT_NE(page.find("constant: <b>2</b> for ramp.</p>"), std::string::npos);
  EXPECT_NE(page.find("constant: <b>0</b> for plain.</p>"), std::string::npos);
  EXPECT_NE(page.find("<figcaption>Teacher reliance (lambda)</figcaption>"), std::string::npos);
}

TEST_F(Report, failed_jobs_are_told_until_they_finish) {
  write("metrics.jsonl",
        "{\"arm\":\"kd\",\"seed\":1,\"split\":\"final\",\"test.accuracy\":0.5}\n"
        "{\"arm\":\"kd\",\"seed\":2,\"split\":\"failed\",\"step\":120,\"reason\":\"the <loss> is "
        "NaN\"}\n"
        "{\"arm\":\"kd\",\"seed\":3,\"split\":\"failed\",\"step\":7,\"reason\":\"inf\"}\n"
        "{\"arm\":\"kd\",\"seed\":3,\"split\":\"final\",\"test.accuracy\":0.5}\n"
        "{\"arm\":\"sr\",\"seed\":1,\"split\":\"failed\",\"step\":9,\"reason\":\"nan\"}\n");
  write_report(folder_);
  const std::string page = read("report.html"), table = results_table(folder_);
  EXPECT_NE(page.find("kd, seed 2, at step 120: the &lt;loss&gt; is NaN"), std::string::npos);
  EXPECT_NE(page.find("kd (1 failed)"), std::string::npos);
  EXPECT_EQ(page.find("seed 3, at step"), std::string::npos) << "it was tried again";
  EXPECT_NE(table.find("2 (1 failed)"), std::string::npos) << table;
  EXPECT_NE(table.find("failed: sr, seed 1, step 9: nan\n"), std::string::npos) << table;
  const Json json = Json::read((folder_ / "results.json").string());
  const auto& arms = json.at("arms").items();
  ASSERT_EQ(arms.size(), 2u);
  EXPECT_EQ(arms[0].at("failed").items().size(), 1u);
  EXPECT_EQ(arms[1].at("failed").items().at(0).at("reason").as_string(), "nan");
  EXPECT_FALSE(arms[1].at("finished").as_bool());
}

TEST_F(Report, the_baseline_that_is_asked_for) {
  write("metrics.jsonl",
        "{\"arm\":\"unguided\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.5}\n"
        "{\"arm\":\"kd\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.75}\n");
  const auto log = read_run_log(folder_ / "metrics.jsonl");
  const auto difference = [&](const char* baseline) {
    ReportText text;
    text.baseline = baseline;
    const RunResults results = gather_results(log, text);
    return results.paired.empty()
               ? "none"
               : results.paired[0].arm + short_number(results.paired[0].summary.mean);
  };
  EXPECT_EQ(difference(""), "kd0.25");
  EXPECT_EQ(difference("kd"), "unguided-0.25");
  EXPECT_EQ(difference("later"), "none") << "it has not begun";
}

TEST_F(Report, differences_are_corrected_by_metric) {
  std::string log;
  const auto final_line = [&](const char* arm, int seed, double accuracy, double loss) {
    log += std::string("{\"arm\":\"") + arm + "\",\"seed\":" + std::to_string(seed) +
           ",\"split\":\"final\",\"test.accuracy\":" + std::to_string(accuracy) +
           ",\"test.loss\":" + std::to_string(loss) + "}\n";
  };
  for (int seed = 0; seed < 4; ++seed) {
    const double noise = 0.002 * ((seed % 2) + seed);
    final_line("base", seed, 0.5, 1);
    final_line("good", seed, 0.6 + noise, 1);
    final_line("same", seed, 0.5 + (seed % 2 ? noise : -noise), 1.5 + noise);
  }
  write("metrics.jsonl", log);
  const RunResults results = gather_results(read_run_log(folder_ / "metrics.jsonl"));
  ASSERT_EQ(results.paired.size(), 4u);
  for (const PairedDifference& d : results.paired)
    if (d.arm == "good" && d.metric == "test.accuracy") {
      EXPECT_LT(d.p, 1e-3);
      EXPECT_DOUBLE_EQ(d.p_holm, 2 * d.p);  // the smaller of two
    }
  write_report(folder_);
  const std::string page = read("report.html");
  const std::size_t section = page.find("<h2>Differences to base</h2>");
  ASSERT_NE(section, std::string::npos);
  EXPECT_NE(page.find("<b class=\"good\">better</b>", section), std::string::npos);
  EXPECT_NE(page.find("<b class=\"bad\">worse</b>", section), std::string::npos) << "more loss";
  EXPECT_NE(page.find("not told apart", section), std::string::npos);
}

TEST_F(Report, provenance_stands_on_the_page_and_in_the_results) {
  write("metrics.jsonl", "{\"arm\":\"kd\",\"seed\":0,\"split\":\"final\",\"test.accuracy\":0.5}\n");
  write_report(folder_);
  EXPECT_EQ(read("results.json").find("provenance"), std::string::npos);
  write("provenance.json",
        "{\"more\":true,\"commit\":\"1a2b3c4-dirty\",\"version\":\"0.4.0\",\"threads\":2,"
        "\"data\":{\"a&b.bin\":\"0123\"}}");
  write_report(folder_);
  const std::string page = read("report.html");
  EXPECT_NE(page.find("<td>version</td><td>0.4.0</td></tr><tr><td>commit</td><td>1a2b3c4-dirty<"),
            std::string::npos);
  EXPECT_NE(page.find("a&amp;b.bin <code>0123</code>"), std::string::npos);
  EXPECT_GT(page.find("<td>more</td><td>true</td>"), page.find("<td>threads</td><td>2</td>"));
  const Json json = Json::read((folder_ / "results.json").string());
  EXPECT_EQ(json.at("provenance").at("commit").as_string(), "1a2b3c4-dirty");
  write("provenance.json", "{\"commit\":");
  EXPECT_THROW(write_report(folder_), Error);
}

TEST_F(Report, links_lead_to_the_files) {
  write("metrics.jsonl", "");
  write("curriculum/my order.csv", "rank,index,label,score,correct,group\n0,5,1,9.5,1,0\n");
  write_report(folder_);
  const std::string page = read("report.html");
  EXPECT_NE(page.find("<a href=\"curriculum/my%20order.csv\">my order.csv</a>"), std::string::npos);
  EXPECT_NE(page.find("<a href=\"metrics.jsonl\">"), std::string::npos);
}

// A colour comes back after ten, dashed; with so many lines their ends bear numbers.
TEST_F(Report, more_than_ten_arms_are_told_apart) {
  std::vector<Series> series;
  for (int k = 0; k < 12; ++k)
    series.push_back({"arm" + std::to_string(k), {0, 1}, {0, 1.0 * k}, {}, {}, k});
  const std::string many = chart({"t", "x"}, series);
  EXPECT_NE(many.find("class=\"line c1\""), std::string::npos);
  EXPECT_NE(many.find("class=\"line c1 d1\""), std::string::npos);
  EXPECT_NE(many.find("%\">12</b>"), std::string::npos);
  EXPECT_NE(many.find("<b>12</b> arm11"), std::string::npos);
  series.resize(10);
  EXPECT_EQ(chart({"t", "x"}, series).find("<b"), std::string::npos);
}

TEST_F(Report, long_series_are_thinned_but_keep_their_extremes) {
  Series s{"long", {}, {}, {}, {}, 0};
  for (int i = 0; i < 100000; ++i)
    s.x.push_back(i), s.y.push_back(i == 54321 ? 1000 : std::sin(i * 0.01));
  const std::string svg = chart({"t", "x"}, {s});
  EXPECT_LT(svg.size(), 60000u);
  EXPECT_EQ(short_number(1000), "1000");
  EXPECT_EQ(short_number(12000), "12k");
}

}  // namespace
}  // namespace retort::tools
