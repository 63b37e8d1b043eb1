// Work that ranks share out, what they are told, and what a run leaves behind that nobody ended. Under each MPI that
// was found; the recipe is small, so that only counted work says anything.
#include <regex>

#include "tests/support/launch.h"
#include "tests/tools/kdtrain_fixture.h"
#include "tools/kdtrain/step_costs.h"

namespace retort::tools {
namespace {

using test::family_of;
using test::known_mpis;
using test::Launched;
using test::MpiAtHand;

class RanksShare : public Kdtrain, public ::testing::WithParamInterface<MpiAtHand> {
 protected:
  void SetUp() override {
    if (GetParam().launcher.empty()) GTEST_SKIP() << "no " << GetParam().family << " here";
    if (const std::string& why = test::why_not_two(GetParam()); !why.empty()) GTEST_SKIP() << why;
    Kdtrain::SetUp();
  }
  void TearDown() override {
    if (!folder_.empty()) Kdtrain::TearDown();
  }

  // 48 samples, two students of two seeds for three epochs, in orders that differ.
  std::string tables(const std::string& more = "") const {
    for (const auto& [name, rows] : {std::pair{"train", 48}, {"test", 30}}) {
      std::string text = "a,b,label\n";
      for (int i = 0; i < rows; ++i) {
        const int label = i * 7 % 3;
        text += std::to_string(label + 0.1 * (i % 11)) + "," + std::to_string(0.2 * (i % 5)) + "," +
                std::to_string(label) + "\n";
      }
      write(std::string("data/") + name + ".csv", text);
    }
    return write("tables.toml", R"(
name = "tables"
seeds = [1, 2]
data = { format = "table", root = ")" +
                                    path("data") +
                                    R"(", train_files = ["train.csv"], test_files = ["test.csv"] }
[teacher]
arch = "mlp"
hidden = [16]
train = { steps = 60, batch = 16, lr = 0.2, slices = 4 }
[student]
arch = "mlp"
hidden = [8]
[train]
epochs = 3
batch = 16
lr = 0.1
log_steps = 1
slices = 4
[[arm]]
name = "a"
[[arm]]
name = "b"
train.optimizer = "adamw"
train.lr = 0.01
)" + more);
  }
  // Long enough to be met in the middle.
  std::string long_run() const {
    return write("long.toml", R"(
name = "long"
seeds = [1]
data = { format = "parity", bits = 12, support = 3, test_size = 50 }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 20, batch = 8, slices = 8 }
[student]
arch = "mlp"
hidden = [256, 256]
[train]
steps = 4000
batch = 64
log_steps = 10
checkpoint_steps = 100
probe = false
slices = 8
[[arm]]
name = "a"
)");
  }

  static const std::vector<std::string>& variables() {
    static const std::vector<std::string> all{
        "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        "OMPI_MCA_btl_vader_single_copy_mechanism=none", "OMPI_MCA_rmaps_base_oversubscribe=1"};
    return all;
  }
  Launched on(int ranks, std::vector<std::string> words, std::vector<std::string> more = {}) const {
    words.insert(words.begin(), RETORT_KDTRAIN);
    std::vector<std::string> all = variables();
    all.insert(all.end(), more.begin(), more.end());
    return test::launch(GetParam(), ranks, words, all);
  }
  // Shell on one of them: `$KDTRAIN` is the program.
  Launched each_its_own(int ranks, int other, const std::string& first, const std::string& second,
                        std::vector<std::string> more = {}) const {
    more.insert(more.end(), variables().begin(), variables().end());
    const std::string script =
        std::string("KDTRAIN=") + RETORT_KDTRAIN +
        "; if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = " + std::to_string(other) +
        " ]; then exec $KDTRAIN " + second + "; fi; exec $KDTRAIN " + first;
    return test::launch(GetParam(), ranks, {"/bin/sh", "-c", script}, more);
  }
  static int count(const std::string& text, const std::string& word) {
    int n = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
    return n;
  }
  // Ranks whose command line has this word; by what the launcher left in the environment.
  static std::map<int, pid_t> processes(const std::string& word) {
    std::map<int, pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string pid = entry.path().filename().string();
      if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
      std::error_code gone;
      if (fs::read_symlink(entry.path() / "exe", gone) != fs::canonical(RETORT_KDTRAIN)) continue;
      if (read(entry.path() / "cmdline").find(word) == std::string::npos) continue;
      const std::string all = std::string(1, '\0') + read(entry.path() / "environ");
      for (const char* name : {"OMPI_COMM_WORLD_RANK=", "PMI_RANK="})
        if (const auto at = all.find(std::string(1, '\0') + name); at != std::string::npos)
          found[std::atoi(all.c_str() + at + 1 + std::strlen(name))] = std::stoi(pid);
    }
    return found;
  }
  static bool wait_until(const std::function<bool()>& done) {
    const auto begin = std::chrono::steady_clock::now();
    while (!done()) {
      if (std::chrono::steady_clock::now() - begin > std::chrono::minutes(2)) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
};
INSTANTIATE_TEST_SUITE_P(Mpi, RanksShare, ::testing::ValuesIn(known_mpis()), family_of);

// 4 jobs of 3 epochs ask 576 times for the teacher's logits of 48 samples.
TEST_P(RanksShare, the_teacher_computes_a_sample_once_over_all_ranks) {
  const std::string file = tables(), once = "teachers' logits: 48 samples computed, 528 kept";
  const Result one = run({"run", file, "--device", "cpu", "--out", path("one"), "--threads", "1"});
  ASSERT_EQ(one.status, 0) << one.err;
  EXPECT_EQ(count(one.err, once), 1) << one.err;
  for (const int ranks : {2, 4}) {
    const std::string out = "on" + std::to_string(ranks);
    const Launched r = on(ranks, {"run", file, "--device", "cpu", "--out", path(out)});
    ASSERT_EQ(r.status, 0) << r.all();
    EXPECT_EQ(count(r.text, once), 1) << r.all();
    EXPECT_EQ(whole_content(folder_ / out), whole_content(folder_ / "one"));
  }
  // Without room for them each job asks for each sample in each epoch.
  const Launched off =
      on(2, {"run", file, "teacher.cache=off", "--device", "cpu", "--out", path("off")});
  ASSERT_EQ(off.status, 0) << off.all();
  EXPECT_EQ(count(off.text, "teachers' logits: 576 samples computed, 0 kept"), 1) << off.all();
  EXPECT_EQ(content_but_ranks(folder_ / "off"), content_but_ranks(folder_ / "one"));
}

TEST_P(RanksShare, a_teacher_that_knows_nothing_is_told_once) {
  const std::string file = tables();
  const Launched trained = on(2, {"run", file, "teacher.train.lr=1e-9", "teacher.train.steps=1",
                                  "--device", "cpu", "--out", path("x")});
  EXPECT_EQ(trained.status, 3) << trained.all();
  EXPECT_EQ(count(trained.text, "error[RT0310]"), 1) << trained.all();
  // A given one before there is a folder.
  const std::string weights = path("x/arms/teacher/seed1/model.safetensors");
  ASSERT_TRUE(fs::exists(weights));
  const Launched given =
      on(2, {"run", file, "teacher.weights=" + weights, "--device", "cpu", "--out", path("y")});
  EXPECT_EQ(given.status, 3) << given.all();
  EXPECT_EQ(count(given.text, "error[RT0310]"), 1) << given.all();
  EXPECT_FALSE(fs::exists(folder_ / "y"));
}

TEST_P(RanksShare, other_commands_and_recipes_are_told_by_name) {
  const std::string file = tables(), other = long_run(), out = " --device cpu --out " + path("x");
  const Launched command = each_its_own(2, 1, "run " + file + out, "plan " + file);
  EXPECT_EQ(command.status, 2) << command.all();
  EXPECT_EQ(count(command.text, "error[RT0222]: rank 1 ("), 1) << command.all();
  EXPECT_THAT(command.text, HasSubstr("has other command: plan instead of run"));
  const Launched scored = each_its_own(2, 1, "run " + file + out, "score " + file + out);
  EXPECT_EQ(scored.status, 2) << scored.all();
  EXPECT_THAT(scored.text, HasSubstr("has other command: score instead of run"));
  const Launched recipe = each_its_own(2, 1, "run " + file + out, "run " + other + out);
  EXPECT_EQ(recipe.status, 2) << recipe.all();
  EXPECT_EQ(count(recipe.text, "has other recipe: long instead of tables"), 1) << recipe.all();
  EXPECT_FALSE(fs::exists(folder_ / "x"));
  const Launched copies = on(2, {"ls"});  // nothing to share: so many copies
  EXPECT_EQ(copies.status, 0) << copies.all();
  EXPECT_EQ(count(copies.text, "parity_extraction"),
            2 * count(run({"ls"}).out, "parity_extraction"));
}

TEST_P(RanksShare, doctor_names_a_rank_that_is_stopped) {
  Launched r;
  bool stopped = false;
  std::thread stopping([&] {
    stopped = wait_until([&] {
      const auto all = processes("--threads" + std::string(1, '\0') + "7");
      const auto at = all.find(1);
      if (at == all.end()) return false;
      // It holds the arrays of the exchange: MPI has started, and ranks watch each other.
      const std::string pages = read("/proc/" + std::to_string(at->second) + "/statm");
      const std::size_t space = pages.find(' ');
      if (space == std::string::npos || std::atol(pages.c_str() + space) < (64 << 20) / 4096)
        return false;
      ::kill(at->second, SIGSTOP);
      return true;
    });
  });
  r = on(2, {"doctor", "--threads", "7"});
  stopping.join();
  ASSERT_TRUE(stopped);
  EXPECT_NE(r.status, 0) << r.all();
  EXPECT_THAT(r.text, ::testing::ContainsRegex("error\\[RT0799\\]: rank 1 \\(.*, pid [0-9]+\\) was "
                                               "not heard of for"))
      << r.all();
}

// Stopped for most of the time, but never for long. Steps are long beside their exchange, where all
// would wait alike.
TEST_P(RanksShare, a_slow_rank_is_told_in_a_note) {
  const std::string file = long_run(), out = path("x");
  std::atomic<bool> over = false;
  std::thread delaying([&] {
    wait_until([&] { return over || lines(folder_ / "x/metrics.jsonl") > 3; });
    const auto all = processes(out);
    const auto at = all.find(1);
    while (!over && at != all.end() && ::kill(at->second, SIGSTOP) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      ::kill(at->second, SIGCONT);
      std::this_thread::sleep_for(std::chrono::milliseconds(6));
    }
    if (at != all.end()) ::kill(at->second, SIGCONT);
  });
  std::thread ending([&] {  // a signal ends all where the note has been told, or in a while
    const auto begin = std::chrono::steady_clock::now();
    while (!over && std::chrono::steady_clock::now() - begin < std::chrono::seconds(12))
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto all = processes(out);
    if (const auto at = all.find(0); at != all.end()) ::kill(at->second, SIGTERM);
  });
  const Launched r = on(2, {"run", file, "train.batch=2048", "train.log_steps=1", "--device", "cpu",
                            "--out", out, "--threads", "1"});
  over = true;
  delaying.join();
  ending.join();
  EXPECT_THAT(r.text,
              ::testing::ContainsRegex("note: rank 1 \\(.*\\) computes [0-9]+\\.[0-9] times "
                                       "as long as the median of the ranks"))
      << r.all();
  EXPECT_THAT(read(folder_ / "x/metrics.jsonl"), Not(HasSubstr("median of the ranks")));
}

TEST_P(RanksShare, a_run_that_ended_without_a_word_is_told) {
  const std::string file = long_run();
  const std::vector<std::string> words{"run", file,    "train.steps=400", "--device",
                                       "cpu", "--out", path("x")};
  std::thread killing([&] {
    wait_until(
        [&] { return read(folder_ / "x/status.json").find("\"step\":100,") != std::string::npos; });
    for (const auto& [rank, pid] : processes(path("x"))) ::kill(pid, SIGSTOP);
    // While somebody holds the folder it is no news that it says "running".
    const Result held = run({"report", path("x")});
    EXPECT_EQ(held.status, 0) << held.err;
    EXPECT_THAT(held.err, Not(HasSubstr("without a word")));
    for (const auto& [rank, pid] : processes(path("x"))) ::kill(pid, SIGKILL);
  });
  const Launched killed = on(2, words);
  killing.join();
  EXPECT_NE(killed.status, 0) << killed.all();
  EXPECT_EQ(Json::read(path("x/status.json")).at("state").as_string(), "running");
  const Result report = run({"report", path("x")});
  EXPECT_THAT(report.err, ::testing::ContainsRegex(
                              "note: the run ended without a word after step [0-9]+: rank 0 "
                              "\\(.*, pid [0-9]+\\) last told of itself at 20"));
  const Result rest =
      run({"run", file, "train.steps=400", "--device", "cpu", "--out", path("x"), "--resume"});
  EXPECT_THAT(rest.err, HasSubstr("note: the sitting before ended without a word after step "));
}

class PlanForRanks : public Kdtrain {};

TEST_F(PlanForRanks, refuses_what_the_run_would_refuse) {
  const std::string file = image_recipe();
  expect(
      {"plan", file, "--ranks", "3", "train.slices=8", "teacher.train.slices=8", "--device", "cpu"},
      2, "error[RT0224]: ");
  expect({"plan", file, "--ranks", "4", "train.slices=2", "--device", "cpu"}, 2,
         "slices = 2 goes with 1 or 2 ranks, got 4");
}

// A rank's share as it is counted; memory of a real run on two ranks within 15 %.
TEST_F(PlanForRanks, says_what_a_rank_takes) {
  images("a.bin", 48, 1);
  images("t.bin", 20, 3);
  const std::vector<std::string> recipe{"cifar10_six_arms",
                                        "data.root=" + path("data"),
                                        "data.train_files=a.bin",
                                        "data.validation_files=[]",
                                        "data.test_files=t.bin",
                                        "data.train_per_file=0",
                                        "arms=unguided",
                                        "student.arch=resnet18",
                                        "train.epochs=1",
                                        "train.batch=16",
                                        "train.slices=4",
                                        "train.optimizer=adamw",
                                        "train.nesterov=false",
                                        "seeds=1",
                                        "--device",
                                        "cpu",
                                        "--threads",
                                        "1"};
  const auto planned = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args{"plan"};
    args.insert(args.end(), recipe.begin(), recipe.end());
    args.insert(args.end(), more.begin(), more.end());
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
    return r.out;
  };
  EXPECT_THAT(planned({"--ranks", "2"}), HasSubstr("Each of 2 ranks"));
  const Json one = Json::parse(planned({"--json"}), "plan"),
             two = Json::parse(planned({"--json", "--ranks", "2"}), "plan");
  const Json &alone = one.at("jobs").items().at(0), &job = two.at("jobs").items().at(0),
             &own = job.at("of_rank");
  EXPECT_EQ(alone.find("of_rank"), nullptr);
  EXPECT_EQ(two.at("ranks").as_integer(), 2);
  EXPECT_EQ(own.at("samples").as_integer(), 8);
  EXPECT_EQ(own.at("slices").as_integer(), 2);
  EXPECT_EQ(job.at("steps").as_integer(), alone.at("steps").as_integer());
  EXPECT_EQ(job.at("steps_per_epoch").as_integer(), 3);
  const double model = job.at("model_mib").as_number();
  EXPECT_NEAR(own.at("sent_mib").as_number(), model, 0.01 * model);  // half of it, twice
  EXPECT_NEAR(own.at("optimizer_mib").as_number(),
              alone.at("memory_mib").at("optimizer").as_number() / 2, 0.01 * model);
  for (const MpiAtHand& mpi : known_mpis()) {
    if (mpi.launcher.empty() || !test::why_not_two(mpi).empty()) continue;
    std::vector<std::string> words{RETORT_KDTRAIN, "run"};
    words.insert(words.end(), recipe.begin(), recipe.end());
    words.insert(words.end(), {"--out", path("x")});
    const Launched r = test::launch(mpi, 2, words);
    ASSERT_EQ(r.status, 0) << r.all();
    const std::string told = "memory of tensors: peak ";
    const std::size_t at = r.text.find(told);
    ASSERT_NE(at, std::string::npos) << r.all();
    const double peak = std::atof(r.text.c_str() + at + told.size());
    EXPECT_NEAR(peak, two.at("peak_mib").as_number(), 0.15 * peak);
    break;
  }
}

TEST(SlowRank, is_told_once_and_by_much_alone) {
  SlowRank slow;
  EXPECT_FALSE(slow.look({10, 11, 12, 13}));  // not half as much again
  EXPECT_FALSE(slow.look({0.1, 0.1, 0.1, 0.2}));
  SlowRank short_time;
  EXPECT_FALSE(short_time.look({0.1, 0.5}));  // less than a second
  SlowRank other;
  const auto told = other.look({2, 2, 4, 2});
  ASSERT_TRUE(told);
  EXPECT_EQ(told->first, 2);
  EXPECT_EQ(told->second, "computes 2.0 times as long as the median of the ranks");
  EXPECT_FALSE(other.look({2, 2, 4, 2}));
  EXPECT_EQ(other.look({9, 2, 4, 2}).value().first, 0);
}

}  // namespace
}  // namespace retort::tools
