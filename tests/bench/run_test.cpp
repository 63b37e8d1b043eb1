// A run's exit status and what it leaves, on planted cases.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/harness/commands.h"
#include "bench/harness/record.h"
#include "tests/support/temporary_folder.h"

namespace retort::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// y += 1, with this error.
Case planted(const std::string& name, std::optional<double> error, DType dtype = DType::kF32) {
  Case c;
  c.name = name;
  c.dtype = dtype;
  c.bytes = c.working_set = 1e6;
  c.make = [error](const Case&) {
    const Tensor y = Tensor::zeros({1000}, DType::kF32);
    Work w;
    w.run = [y] { y.fill(1); };
    w.outputs = [y] { return std::vector<Tensor>{y}; };
    if (error) w.error = [error] { return *error; };
    return w;
  };
  return c;
}

// Each run leaves another value.
Case wandering(const std::string& name) {
  Case c = planted(name, 0.0);
  c.make = [](const Case&) {
    const Tensor y = Tensor::zeros({1000}, DType::kF32);
    Work w;
    w.run = [y, k = std::make_shared<int>(0)] { y.fill(++*k); };
    w.outputs = [y] { return std::vector<Tensor>{y}; };
    return w;
  };
  return c;
}

// Fails at its nth call with this code: the first is made with the work, the next ones find out how
// long it takes.
Case failing(const std::string& name, int nth, ErrorCode code) {
  Case c = planted(name, 0.0);
  c.make = [nth, code](const Case&) {
    Work w;
    w.run = [nth, code, k = std::make_shared<int>(0)] {
      if (++*k >= nth) fail(code, "planted");
    };
    return w;
  };
  return c;
}

class Run : public testing::Test {
 protected:
  int run(std::vector<Case> cases, Arguments more = {}) {
    // Google Benchmark keeps its options for the next run of the process.
    Arguments arguments{"--smoke",
                        "--device",
                        "cpu",
                        "--json",
                        json(),
                        "--benchmark_filter=.",
                        "--benchmark_repetitions=1",
                        "--benchmark_enable_random_interleaving=false"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    made_ = 0;
    return run_command(arguments, [&](Device device, bool smoke) {
      Plan plan;
      plan.device = device;
      plan.smoke = smoke;
      for (const Case& c : cases) plan.add(c);
      for (Case& c : plan.cases)
        c.make = [this, make = c.make](const Case& of) {
          ++made_;
          return make(of);
        };
      return plan;
    });
  }
  std::string json() const { return folder_ / "a.json"; }
  ErrorCode code_of(Arguments more, std::vector<Case> cases = {planted("good", 0.0)}) {
    testing::internal::CaptureStdout();
    ErrorCode code = ErrorCode::kOk;
    try {
      run(cases, more);
    } catch (const Error& e) {
      code = e.code();
      message_ = e.what();
    }
    printed_ = testing::internal::GetCapturedStdout();
    return code;
  }
  test::TemporaryFolder folder_;
  int made_ = 0;
  std::string message_, printed_;
};

TEST_F(Run, right_results_end_with_0) {
  EXPECT_EQ(
      run({planted("good/1", 1e-7), planted("good/2", {}), planted("good/3", 1e-3, DType::kBF16)}),
      0);
  const Report report = read_report(json());
  ASSERT_EQ(report.records.size(), 3u);
  EXPECT_EQ(report.records[0].max_error, 1e-7);
  EXPECT_EQ(report.records[0].error_bound, default_error_bound(DType::kF32));
  EXPECT_EQ(report.records[1].max_error, std::nullopt);
  EXPECT_NE(report.environment.at("build").as_string(), "");
  EXPECT_FALSE(std::filesystem::exists(json() + ".partial"));
}

TEST_F(Run, a_wrong_result_fails_and_is_named) {
  constexpr int kWrong = static_cast<int>(ErrorCode::kNumerics);
  const auto said = [&](const Case& c) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(run({planted("good", 0.0), c}), kWrong);
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(said(planted("off", 1e-3)).find("FAILED cpu/off/f32: error 0.001"), std::string::npos);
  EXPECT_NE(said(planted("off", 0.9, DType::kBF16)).find("cpu/off/bf16"), std::string::npos);
  EXPECT_NE(said(planted("nan", kNan)).find("FAILED cpu/nan/f32: error nan"), std::string::npos);
  EXPECT_NE(test::slurp(json()).find("\"max_error\":\"nan\""), std::string::npos);
  EXPECT_TRUE(std::isnan(read_report(json()).records[1].max_error.value()));
  EXPECT_NE(said(wandering("wanders")).find("FAILED cpu/wanders/f32: two runs"), std::string::npos);
  Case wide = planted("wide", 1e-3);
  wide.error_bound = 2e-3;
  EXPECT_EQ(run({wide}), 0);
}

TEST_F(Run, a_case_that_fails_has_no_record_and_gives_its_code) {
  // Before any sample, and in the middle of them.
  EXPECT_EQ(run({failing("early", 1, ErrorCode::kMemory), planted("good", 0.0)}),
            static_cast<int>(ErrorCode::kMemory));
  EXPECT_EQ(run({failing("late", 7, ErrorCode::kDevice), planted("good", 0.0)}),
            static_cast<int>(ErrorCode::kDevice));
  const Report report = read_report(json());
  ASSERT_EQ(report.records.size(), 1u);
  EXPECT_EQ(report.records[0].name, "good");
  EXPECT_EQ(test::slurp(json()).find("nan"), std::string::npos);
}

TEST_F(Run, repetitions_are_blocks) {
  EXPECT_EQ(run({planted("a", 0.0), planted("b", 0.0)},
                {"--benchmark_repetitions=3", "--benchmark_enable_random_interleaving=true"}),
            0);
  for (const Record& r : read_report(json()).records) EXPECT_EQ(r.samples_ms.size(), 3u);
}

TEST_F(Run, a_filter_sees_the_name_of_the_case_alone) {
  const auto kept = [&](const std::string& filter) {
    EXPECT_EQ(code_of({"--benchmark_filter=" + filter},
                      {planted("op/1x2", 0.0), planted("op/1x2", 0.0, DType::kBF16)}),
              ErrorCode::kOk);
    std::string names;
    for (const Record& r : read_report(json()).records) names += r.full_name() + " ";
    return names;
  };
  EXPECT_EQ(kept("f32$"), "cpu/op/1x2/f32 ");
  EXPECT_EQ(kept("^cpu/op/1x2/bf16$"), "cpu/op/1x2/bf16 ");
  EXPECT_EQ(kept("-bf16$"), "cpu/op/1x2/f32 ");
  EXPECT_EQ(kept("op"), "cpu/op/1x2/f32 cpu/op/1x2/bf16 ");
  EXPECT_EQ(printed_.find("iterations:1"), std::string::npos);
  EXPECT_EQ(code_of({"--benchmark_filter=("}), ErrorCode::kUsage);
}

TEST_F(Run, what_cannot_be_done_is_said_before_anything_is_measured) {
  EXPECT_EQ(code_of({"--benchmark_filter=nothing"}), ErrorCode::kUsage);
  EXPECT_NE(message_.find("no case matches"), std::string::npos);
  EXPECT_EQ(printed_.find("GB/s"), std::string::npos);  // no roofs either
  EXPECT_FALSE(std::filesystem::exists(json() + ".partial"));
  std::filesystem::create_directory(folder_ / "taken");
  for (const std::string& path : {folder_ / "no such folder/a.json", folder_ / "taken"}) {
    EXPECT_THROW(run_command({"--smoke", "--device", "cpu", "--json", path},
                             [&](Device device, bool) {
                               Plan plan;
                               plan.device = device;
                               plan.add(failing("measured", 1, ErrorCode::kDevice));
                               return plan;
                             }),
                 Error)
        << path;
  }
}

TEST_F(Run, arguments_are_checked_and_named) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"--seconds", "soon"},
                                                        {"--seconds", "-1"},
                                                        {"--seconds", "1s"},
                                                        {"--seconds", "nan"},
                                                        {"--budget", "x"},
                                                        {"--threads", "0"},
                                                        {"--threads", "two"},
                                                        {"--threads", "2.5"}}) {
    EXPECT_EQ(code_of({name, value}), ErrorCode::kUsage) << name << " " << value;
    EXPECT_NE(message_.find(name + " expects"), std::string::npos) << message_;
    EXPECT_NE(message_.find("'" + value + "'"), std::string::npos) << message_;
  }
  EXPECT_THROW(run_command({"--device", "gpu"}, [](Device, bool) { return Plan{}; }), Error);
}

TEST_F(Run, figures_are_plain_numbers) {
  EXPECT_EQ(code_of({}), ErrorCode::kOk);
  // "mad_ms=2.5m" would be 0.0025 ms.
  const std::size_t at = printed_.find("median_ms=");
  ASSERT_NE(at, std::string::npos) << printed_;
  const std::string figure = printed_.substr(at + 10, printed_.find_first_of(" \n", at) - at - 10);
  EXPECT_EQ(figure.find_first_not_of("0123456789.e-+"), std::string::npos) << figure;
  // The spread of repetitions is a time; that of a figure such as same_bits means nothing.
  EXPECT_EQ(code_of({"--benchmark_repetitions=2"}), ErrorCode::kOk);
  EXPECT_NE(printed_.find("_stddev"), std::string::npos);
  EXPECT_EQ(printed_.find("same_bits=0"), std::string::npos) << printed_;
}

}  // namespace
}  // namespace retort::bench
