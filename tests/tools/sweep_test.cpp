// `kdtrain sweep`: drawn values, trials as runs of their own, halving, going on after a signal.
#include <chrono>
#include <cmath>
#include <csignal>
#include <set>
#include <thread>

#include "tests/tools/table_fixture.h"
#include "tools/kdtrain/recipe.h"
#include "tools/kdtrain/sweep_ranges.h"
#include "tools/report/sweep_page.h"

namespace retort::tools {
namespace {

TEST(SweepRanges, are_read_and_drawn) {
  const SweepRange log = parse_sweep_range(" train.lr = log(1e-5, 1e-3) ");
  EXPECT_EQ(log.key, "train.lr");
  EXPECT_EQ(log.text, "log(1e-5, 1e-3)");
  const SweepRange uniform = parse_sweep_range("distill.lambda=uniform(0.25,0.75)"),
                   integers = parse_sweep_range("train.batch = integers(3, 5)"),
                   choice = parse_sweep_range("distill.divergence = choice(forward_kl, js)");
  double below = 0, sum = 0;
  std::set<std::string> counts, words;
  constexpr int kTrials = 2000;
  for (int trial = 1; trial <= kTrials; ++trial) {
    const double rate = std::stod(log.draw(1, trial)), share = std::stod(uniform.draw(1, trial));
    EXPECT_TRUE(rate >= 1e-5 && rate <= 1e-3) << rate;
    EXPECT_TRUE(share >= 0.25 && share <= 0.75) << share;
    below += rate < 1e-4 ? 1 : 0;
    sum += share;
    counts.insert(integers.draw(1, trial));
    words.insert(choice.draw(1, trial));
  }
  // Half of a logarithmic range lies below its geometric mean. Bounds: 5 standard deviations.
  EXPECT_NEAR(below / kTrials, 0.5, 5 * 0.5 / std::sqrt(kTrials));
  EXPECT_NEAR(sum / kTrials, 0.5, 5 * 0.5 / std::sqrt(12.0 * kTrials));
  EXPECT_EQ(counts, (std::set<std::string>{"3", "4", "5"}));
  EXPECT_EQ(words, (std::set<std::string>{"forward_kl", "js"}));
  // Of seed, key and trial alone.
  EXPECT_EQ(log.draw(1, 7), parse_sweep_range("train.lr = log(1e-5, 1e-3)").draw(1, 7));
  EXPECT_NE(log.draw(1, 7), log.draw(2, 7));
  EXPECT_NE(log.draw(1, 7), log.draw(1, 8));
  EXPECT_NE(log.draw(1, 7), parse_sweep_range("teacher.train.lr = log(1e-5, 1e-3)").draw(1, 7));
}

TEST(SweepRanges, what_is_wrong_is_said) {
  const auto refused = [](const std::string& line, const char* why) {
    try {
      parse_sweep_range(line);
      ADD_FAILURE() << "accepted: " << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr(why)) << line;
    }
  };
  for (const char* line : {"", "train.lr", "train.lr = 3", "train.lr = log(1", "= log(1, 2)",
                           "train.lr = normal(1, 2)", "train.lr = log(1, 2, 3)", "log(1, 2) = x"})
    refused(line, "expected KEY = log(LOW, HIGH)");
  refused("a = log(0, 1)", "expected LOW > 0");
  refused("a = uniform(2, 1)", "expected LOW < HIGH");
  refused("a = uniform(1, nan)", "expected numbers as ends");
  refused("a = uniform(1, 2x)", "expected numbers as ends");
  refused("a = integers(1, 2.5)", "expected integers");
  refused("a = choice(x)", "at least two values");
  refused("a = choice(x, )", "at least two values");
}

class KdtrainSweep : public KdtrainTable {
 protected:
  std::string swept(const std::string& rest) const {
    return recipe("[sweep]\nmetric = \"test.accuracy\"\n" + rest + arm("a") +
                  arm("b", "distill.lambda = 0.0"));
  }
  Result sweep(std::vector<std::string> words) {
    words.insert(words.begin(), "sweep");
    words.insert(words.end(), {"--device", "cpu"});
    return run(words);
  }
  Json sweep_json(const std::string& out) const { return Json::read(path(out + "/sweep.json")); }
};

TEST_F(KdtrainSweep, trials_are_runs_with_drawn_values) {
  const std::string file =
      swept("ranges = [\"train.lr = log(1e-3, 1.0)\", \"distill.temperature = choice(1, 4)\"]\n");
  const Result r = sweep({file, "--trials", "4", "--out", "s"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("chosen by the test set"));
  const auto trials = sweep_json("s").at("trials").items();
  ASSERT_EQ(trials.size(), 4u);
  double before = 1;
  for (const Json& trial : trials) {  // the best first
    const double value = trial.at("value").as_number();
    EXPECT_LE(value, before);
    before = value;
    // What it says is what its run has, with the arm that is judged alone.
    const std::string folder = "s/" + trial.at("folder").as_string();
    const Json results = Json::read(path(folder + "/results.json"));
    ASSERT_EQ(results.at("arms").items().size(), 1u);
    EXPECT_EQ(results.at("arms").items()[0].at("name").as_string(), "a");
    EXPECT_EQ(
        results.at("arms").items()[0].at("metrics").at("test.accuracy").at("mean").as_number(),
        value);
    const RecipeResult resolved =
        parse_recipe("r", read(folder_ / folder / "recipe.resolved.toml"), {});
    EXPECT_EQ(resolved.recipe.base.number("train.lr"),
              std::stod(trial.at("values").at("train.lr").as_string()));
    EXPECT_EQ(resolved.recipe.base.number("distill.temperature"),
              std::stod(trial.at("values").at("distill.temperature").as_string()));
    // The teacher is trained once, for all.
    EXPECT_FALSE(fs::exists(path(folder + "/arms/teacher/seed1/model.safetensors")));
  }
  EXPECT_TRUE(fs::exists(path("s/teacher/arms/teacher/seed1/model.safetensors")));
  EXPECT_THAT(r.out, HasSubstr("best: trial "));
  EXPECT_THAT(r.out, HasSubstr("kdtrain run"));
  EXPECT_THAT(read(folder_ / "s/sweep.html"), HasSubstr("<svg"));
  // A trial is the run that its words make.
  const Json& best = trials[0];
  const std::string teacher = path("s/teacher/arms/teacher/seed1/model.safetensors");
  run_into("alone",
           {file, "arms=a", "teacher.weights=" + teacher,
            "train.lr=" + best.at("values").at("train.lr").as_string(),
            "distill.temperature=" + best.at("values").at("distill.temperature").as_string()});
  EXPECT_EQ(values(weights("alone", "a")),
            values(weights("s/" + best.at("folder").as_string(), "a")));
  // More trials leave the first ones as they are.
  const auto stamp = fs::last_write_time(
      path("s/" + best.at("folder").as_string() + "/arms/a/seed1/model.safetensors"));
  EXPECT_EQ(sweep({file, "--trials", "5", "--out", "s"}).status, 2);
  const Result more = sweep({file, "--trials", "5", "--out", "s", "--resume"});
  ASSERT_EQ(more.status, 0) << more.err;
  EXPECT_EQ(sweep_json("s").at("trials").items().size(), 5u);
  EXPECT_EQ(fs::last_write_time(
                path("s/" + best.at("folder").as_string() + "/arms/a/seed1/model.safetensors")),
            stamp);
  // Other ranges are another sweep.
  const Result other = sweep({file, "sweep.seed=2", "--trials", "5", "--out", "s", "--resume"});
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, HasSubstr("train.lr was"));
}

TEST_F(KdtrainSweep, halving_trains_the_better_ones_longer) {
  const std::string file =
      swept("ranges = [\"train.lr = log(1e-4, 1.0)\"]\nhalving = 2\nrungs = 3\n");
  const Result r = sweep({file, "--trials", "5", "--out", "s"});
  ASSERT_EQ(r.status, 0) << r.err;
  std::map<std::int64_t, std::map<std::int64_t, double>> rungs;  // rung: trial: value
  std::map<std::int64_t, std::string> trained;
  const Json json = sweep_json("s");
  for (const Json& trial : json.at("trials").items()) {
    const std::int64_t rung = trial.at("rung").as_integer();
    rungs[rung][trial.at("trial").as_integer()] = trial.at("value").as_number();
    trained[rung] = trial.at("trained").as_string();
  }
  ASSERT_EQ(rungs.size(), 3u);
  EXPECT_EQ(rungs[1].size(), 5u);
  EXPECT_EQ(rungs[2].size(), 3u);
  EXPECT_EQ(rungs[3].size(), 2u);
  EXPECT_EQ(trained[1] + trained[2] + trained[3], "1 step2 steps4 steps");
  for (const std::int64_t rung : {1, 2})  // nobody who went on was worse than one who did not
    for (const auto& [on, value] : rungs[rung])
      for (const auto& [out, other] : rungs[rung])
        if (rungs[rung + 1].contains(on) && !rungs[rung + 1].contains(out)) {
          EXPECT_GE(value, other) << rung << ": " << on << ", " << out;
        }
}

TEST_F(KdtrainSweep, a_trial_that_diverges_is_the_last) {
  const std::string file = swept("ranges = [\"train.weight_decay = choice(0.0, 100)\"]\n");
  const Result r = sweep({file, "train.steps=80", "--trials", "6", "--out", "s"});
  ASSERT_EQ(r.status, 0) << r.err;
  const auto trials = sweep_json("s").at("trials").items();
  ASSERT_EQ(trials.size(), 6u);
  bool failed = false;
  for (const Json& trial : trials) {
    const bool wild = trial.at("values").at("train.weight_decay").as_string() == "100";
    EXPECT_EQ(trial.find("failed") != nullptr, wild);
    EXPECT_TRUE(wild || !failed);
    failed |= wild;
  }
  EXPECT_TRUE(failed);
  EXPECT_THAT(read(folder_ / "s/sweep.html"), HasSubstr("class=\"failed\""));
}

TEST_F(KdtrainSweep, mistakes_are_told_before_the_first_trial) {
  const auto refused = [&](const std::string& lines, const std::string& why) {
    const Result r = sweep({swept(lines), "--out", "s"});
    EXPECT_EQ(r.status, 2) << lines;
    EXPECT_THAT(r.err, HasSubstr(why));
    EXPECT_FALSE(fs::exists(path("s")));
  };
  refused("", "sweep.ranges: expected at least one");
  refused("ranges = [\"train.lrr = log(1e-3, 1)\"]\n", "unknown key 'train.lrr'");
  refused("ranges = [\"train.lr = uniform(-1, 1)\"]\n", "train.lr: expected");
  refused("ranges = [\"train.lr = log(1e-3, 1)\", \"train.lr = log(1e-4, 1)\"]\n",
          "is there twice");
  refused("ranges = [\"train.steps = integers(1, 3)\"]\nhalving = 2\n", "sweep.halving sets");
  refused("ranges = [\"train.lr = log(1e-3, 1)\"]\narm = \"c\"\n", "there is no arm 'c'");
  refused(
      "ranges = [\"train.lr = log(1e-3, 1)\"]\nhalving = 2\n[[task]]\nname = \"t\"\ntrain.steps = "
      "3\n",
      "sweep.halving sets train.steps, and task 't' has its own");
  const std::string one = "ranges = [\"train.lr = log(1e-3, 1)\"]\n";
  for (const char* metric : {"test.n", "validation.accuracy", "test.nothing", "wall"})
    EXPECT_EQ(sweep({swept(one), std::string("sweep.metric=") + metric, "--out", "s"}).status, 2)
        << metric;
  expect({"sweep", swept(one), "--out", "s", "--resume"}, 2, "it holds no sweep.json");
  expect({"validate", swept("ranges = [\"train.lr = log(0, 1)\"]\n")}, 2,
         "sweep.ranges: a logarithmic range expected LOW > 0");
  expect({"sweep", swept(one), "--trials", "0"}, 2, "--trials");
}

// Judged by a set that only the last task has; each trial trains its own teacher.
TEST_F(KdtrainSweep, trials_go_through_tasks) {
  table("held.csv", 20, 3);
  const std::string file = swept("ranges = [\"task.late.train.lr = log(1e-3, 1.0)\"]\n");
  write("table.toml", read(file) + "[[task]]\nname = \"early\"\n[[task]]\nname = \"late\"\n" +
                          "data.validation_files = [\"held.csv\"]\n");
  const Result r = sweep({file, "sweep.metric=validation.accuracy", "--trials", "2", "--out", "s"});
  ASSERT_EQ(r.status, 0) << r.err;
  const Json json = sweep_json("s");
  for (const Json& trial : json.at("trials").items()) {
    const std::string folder = "s/" + trial.at("folder").as_string();
    const auto lines = lines_of(folder, "a", "validation");
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(trial.at("value").as_number(), lines.back().at("accuracy").as_number());
    EXPECT_TRUE(fs::exists(path(folder + "/arms/teacher/seed1/early/model.safetensors")));
  }
}

TEST_F(KdtrainSweep, goes_on_after_a_signal) {
  const std::string file = swept("ranges = [\"train.lr = log(1e-3, 1.0)\"]\n");
  const auto args = [&](const std::string& out, bool resume) {
    std::vector<std::string> all{
        "sweep",    file,  "--trials", "3", "train.epochs=300", "train.checkpoint_steps=7",
        "--device", "cpu", "--out",    out};
    if (resume) all.push_back("--resume");
    return all;
  };
  ASSERT_EQ(run(args("x", false)).status, 0);
  const pid_t pid = start(args("y", false));
  const auto begin = std::chrono::steady_clock::now();
  while (lines(folder_ / "y/trials/0002/metrics.jsonl") < 3 &&
         std::chrono::steady_clock::now() - begin < std::chrono::minutes(2))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::kill(pid, SIGTERM);
  const Result cut = finish(pid);
  EXPECT_EQ(cut.status, 143) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("the sweep goes on with --resume"));
  const Result rest = run(args("y", true));
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(read(folder_ / "y/sweep.csv"), read(folder_ / "x/sweep.csv"));
}

TEST(SweepPage, escapes_and_survives_odd_trials) {
  SweepResults results;
  results.title = "a <b>";
  results.metric = MetricText("test.accuracy");
  results.axes = {{"train.lr", "log(1e-3, 1)", true, {}},
                  {"x", "choice(<i>, j)", false, {"<i>", "j"}}};
  results.trials = {{1, 0, "", {"0.01", "<i>"}, 0.5, "", "trials/0001"},
                    {2, 0, "", {"0.01", "j"}, 0.5, "", "trials/0002"},
                    {3, 0, "", {"1", "j"}, std::nan(""), "NaN at <step>", "trials/0003"}};
  const std::string page = sweep_page(results);
  EXPECT_THAT(page, Not(HasSubstr("<i>,")));
  EXPECT_THAT(page, Not(HasSubstr("<step>")));
  EXPECT_THAT(page, Not(HasSubstr("nan ")));
  EXPECT_THAT(page, HasSubstr("50.00"));
  EXPECT_THAT(sweep_table(results, 20), HasSubstr("failed"));
  results.trials.resize(1);  // nothing to draw
  EXPECT_THAT(sweep_page(results), Not(HasSubstr("<svg")));
}

}  // namespace
}  // namespace retort::tools
