// kdtrain run on several ranks: the bytes of one rank, all end together, one writes. Under each MPI
// that was found. Over 500 lines: four recipes, one for each kind of training, and what all tests do
// with them.
#include <algorithm>
#include <functional>

#include "tests/support/launch.h"
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

using test::family_of;
using test::known_mpis;
using test::Launched;
using test::MpiAtHand;

const std::vector<std::string> kRoot{"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                     "OMPI_MCA_btl_vader_single_copy_mechanism=none",
                                     "OMPI_MCA_rmaps_base_oversubscribe=1"};

class RanksRun : public Kdtrain, public ::testing::WithParamInterface<MpiAtHand> {
 protected:
  void SetUp() override {
    if (GetParam().launcher.empty()) GTEST_SKIP() << "no " << GetParam().family << " here";
    if (const std::string& why = test::why_not_two(GetParam()); !why.empty()) GTEST_SKIP() << why;
    Kdtrain::SetUp();
  }
  void TearDown() override {
    if (!folder_.empty()) Kdtrain::TearDown();
  }

  // -- recipes ------------------------------------------------------------------------------------
  // A batch of 18 in slices of 2 and 3, of 5 in 8 slices; a plateau that ends stages; clipping.
  std::string parity(const std::string& more = "") const {
    return write("parity.toml", R"(
name = "parity"
seeds = [1]
data = { format = "parity", bits = 12, support = 3, test_size = 50 }
[teacher]
arch = "mlp"
hidden = [32]
allow_untrained = true
train = { steps = 40, batch = 5, lr = 0.1, slices = 8 }
[student]
arch = "mlp"
hidden = [16]
[train]
steps = 40
batch = 18
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 20
checkpoint_keep = 100
log_steps = 10
probe = false
evaluate_batch = 16
slices = 8
)" + (more.empty() ? R"([[arm]]
name = "sgd"
train.momentum = 0.9
[[arm]]
name = "adamw"
train.optimizer = "adamw"
train.micro_batch = 1
[[arm]]
name = "head"
distill.method = "extraction"
distill.extraction.variant = "head"
distill.extraction.width = 4
distill.extraction.window = 5
distill.extraction.steps = 20
train.micro_batch = 2
)"
                   : more));
  }
  // Batch norm; 35 images in batches of 16: the last one has fewer than slices.
  std::string pictures() const {
    images("a.bin", 35, 1);
    images("b.bin", 35, 2);
    images("t.bin", 10, 3);
    return write("images.toml", R"(
name = "images"
seeds = [1]
data = { format = "cifar10", root = ")" +
                                    path("data") +
                                    R"(", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], steps = 1, batch = 16, lr = 0.02, slices = 4 }
[student]
arch = "resnet8"
[train]
steps = 4
batch = 16
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 2
checkpoint_keep = 100
log_steps = 2
evaluate_batch = 4
slices = 4
[[arm]]
name = "sgd"
train.momentum = 0.9
[[arm]]
name = "adamw"
train.micro_batch = 3
train.optimizer = "adamw"
train.lr = 0.01
train.order = "curriculum"
distill.reliance = { mode = "literal", s = "first_batch", per = "sample" }
)");
  }
  // Masked words, a curriculum by the student itself that is scored again, dropout, tokens a batch.
  std::string texts() const {
    std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n";
    for (int w = 0; w < 30; ++w) vocab += "w" + std::to_string(w) + "\n";
    write("data/vocab.txt", vocab);
    for (const auto& [name, count] : {std::pair{"train.txt", 26}, {"test.txt", 8}}) {
      std::string all;
      for (int i = 0; i < count; ++i) {
        for (int w = 0; w < 3 + i * 5 % 7; ++w) all += "w" + std::to_string((i + 2 * w) % 30) + " ";
        all += ".\n";
      }
      write(std::string("data/") + name, all);
    }
    return write("text.toml", R"(
name = "text"
seeds = [1]
[data]
format = "text"
root = ")" + path("data") + R"("
vocab = "vocab.txt"
case = "cased"
train_files = ["train.txt"]
test_files = ["test.txt"]
[teacher]
arch = "bert"
layers = 2
hidden_size = 16
heads = 2
intermediate = 32
allow_untrained = true
train = { epochs = 1, batch = 8, lr = 1e-3, optimizer = "adamw", slices = 4 }
[student]
arch = "bert"
layers = 1
hidden_size = 8
heads = 1
intermediate = 16
[train]
epochs = 2
batch = 8
lr = 1e-3
optimizer = "adamw"
log_steps = 1
evaluate_batch = 3
slices = 4
[[arm]]
name = "triple"
distill.loss = "distilbert_triple"
[[arm]]
name = "rescored"
train.order = "curriculum"
curriculum.scorer = "student"
curriculum.rescore_epochs = 1
[[arm]]
name = "tokens"
train.batch_tokens = 40
)");
  }

  // Models that learn from models, tasks that go on with weights, moments of a teacher: all that ranks
  // are handed out of the run folder.
  std::string tables() const {
    for (const auto& [name, rows] : {std::pair{"train", 40}, {"other", 50}, {"test", 30}}) {
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
data = { format = "table", root = ")" +
                                    path("data") +
                                    R"(", train_files = ["train.csv"], test_files = ["test.csv"] }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 40, batch = 10, lr = 0.2, checkpoint_steps = 10, slices = 4 }
[student]
arch = "mlp"
hidden = [8]
[distill]
progressive.steps = 2
progressive.accuracies = [0.1]
[train]
steps = 6
batch = 10
lr = 0.1
log_steps = 1
slices = 4
evaluate_batch = 7
[[task]]
name = "pretrain"
[[task]]
name = "finetune"
data.train_files = ["other.csv"]
[[model]]
name = "middle"
student.hidden = [12]
[[arm]]
name = "a"
distill.method = "progressive"
[[arm]]
name = "b"
teachers = ["middle"]
train.order = "curriculum"
)");
  }

  // -- runs ---------------------------------------------------------------------------------------
  std::vector<std::string> words(const std::string& file, const std::string& out,
                                 std::vector<std::string> more) const {
    std::vector<std::string> all{RETORT_KDTRAIN, "run", file};
    all.insert(all.end(), more.begin(), more.end());
    all.insert(all.end(), {"--device", "cpu", "--out", path(out)});
    return all;
  }
  Launched on(int ranks, const std::string& file, const std::string& out,
              std::vector<std::string> more = {}) const {
    return test::launch(GetParam(), ranks, words(file, out, std::move(more)), kRoot);
  }
  // Something else on one of them: `prepare` is shell before kdtrain, `more` behind its words.
  Launched with_one_other(int ranks, int other, const std::string& file, const std::string& out,
                          const std::string& prepare, const std::string& more = "") const {
    std::string command;
    for (const std::string& word : words(file, out, {})) command += word + " ";
    const std::string script =
        "if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = " + std::to_string(other) + " ]; then " +
        prepare + " exec " + command + more + "; fi; exec " + command;
    return test::launch(GetParam(), ranks, {"/bin/sh", "-c", script}, kRoot);
  }
  Result alone(const std::string& file, const std::string& out,
               std::vector<std::string> more = {}) const {
    std::vector<std::string> all = words(file, out, std::move(more));
    all.erase(all.begin());
    return run(all);
  }
  void same_on(int ranks, const std::string& file, const std::string& out, const std::string& want,
               const std::vector<std::string>& more) const {
    const Launched r = on(ranks, file, out, more);
    ASSERT_EQ(r.status, 0) << r.all();
    EXPECT_EQ(whole_content(folder_ / out), want) << out;
    EXPECT_EQ(status(out).at("state").as_string(), "done");
  }
  Json status(const std::string& out) const { return Json::read(path(out + "/status.json")); }

  // The process of a rank, by what the launcher left in its environment; 0: there is none.
  pid_t process_of(const std::string& out, int rank) const {
    const std::string wanted = path(out), number = std::to_string(rank);
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string pid = entry.path().filename().string();
      if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
      std::error_code gone;
      if (fs::read_symlink(entry.path() / "exe", gone) != fs::canonical(RETORT_KDTRAIN)) continue;
      const std::string line = read(entry.path() / "cmdline"), all = read(entry.path() / "environ");
      if (line.find(wanted) == std::string::npos) continue;
      for (const char* name : {"OMPI_COMM_WORLD_RANK=", "PMI_RANK="})
        if (all.find(std::string(1, '\0') + name + number + std::string(1, '\0')) !=
            std::string::npos)
          return std::stoi(pid);
    }
    return 0;
  }
  // Runs, and does something to a rank's process when the log has some lines.
  Launched met(int ranks, const std::string& file, const std::string& out, int rank,
               const std::function<void(pid_t)>& meet,
               const std::vector<std::string>& more = {"--threads", "1"}) const {
    pid_t hit = 0;
    std::thread meeting([&] {
      const auto begin = std::chrono::steady_clock::now();
      while (lines(folder_ / out / "metrics.jsonl") < 8) {
        if (std::chrono::steady_clock::now() - begin > std::chrono::minutes(2)) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      hit = process_of(out, rank);
      if (hit > 0) meet(hit);
    });
    Launched r = on(ranks, file, out, more);
    meeting.join();
    EXPECT_GT(hit, 0) << "rank " << rank << " was over before it was met\n" << r.all();
    return r;
  }
  Launched signalled(int ranks, const std::string& file, const std::string& out, int rank,
                     int signal) const {
    return met(ranks, file, out, rank, [signal](pid_t process) { ::kill(process, signal); });
  }
  void all_have_left(const std::string& out, int ranks) const {
    const auto begin = std::chrono::steady_clock::now();
    for (int r = 0; r < ranks; ++r)
      while (process_of(out, r) != 0) {
        ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30))
            << "rank " << r << " is still there";
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
  }
  static int count(const std::string& text, const std::string& word) {
    int n = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
    return n;
  }
  // Long enough to be met in the middle.
  std::string long_parity() const {
    std::string arms =
        "[[arm]]\nname = \"a\"\ntrain.steps = 1500\ntrain.optimizer = \"adamw\"\n"
        "[[arm]]\nname = \"b\"\n";
    const std::string file = parity(arms);
    std::string text = read(file);
    text.replace(text.find("checkpoint_steps = 20"), 21, "checkpoint_steps = 300");
    return write("long.toml", text);
  }
};
INSTANTIATE_TEST_SUITE_P(Mpi, RanksRun, ::testing::ValuesIn(known_mpis()), family_of);

TEST_P(RanksRun, an_mlp_has_the_bytes_of_one_rank) {
  const std::string file = parity();
  ASSERT_EQ(alone(file, "one", {"--threads", "1"}).status, 0);
  const std::string want = whole_content(folder_ / "one");
  ASSERT_NE(want.find("ckpt-"), std::string::npos);
  same_on(2, file, "two", want, {"--threads", "2"});
  same_on(4, file, "four", want, {"--threads", "1"});
}

TEST_P(RanksRun, batch_norm_and_a_curriculum_have_the_bytes_of_one_rank) {
  const std::string file = pictures();
  ASSERT_EQ(alone(file, "one", {"--threads", "2"}).status, 0);
  const std::string want = whole_content(folder_ / "one");
  ASSERT_NE(want.find("curriculum/"), std::string::npos);
  same_on(2, file, "two", want, {"--threads", "1"});
  same_on(4, file, "four", want, {"--threads", "1", "teacher.cache=off"});
}

TEST_P(RanksRun, masked_words_have_the_bytes_of_one_rank) {
  const std::string file = texts();
  const Result one = alone(file, "one", {"--threads", "1"});
  ASSERT_EQ(one.status, 0) << one.err;
  const std::string want = whole_content(folder_ / "one");
  same_on(2, file, "two", want, {"--threads", "2"});
  same_on(4, file, "four", want, {"--threads", "1"});
}

TEST_P(RanksRun, chains_and_tasks_have_the_bytes_of_one_rank) {
  const std::string file = tables();
  const Result one = alone(file, "one", {"--threads", "1"});
  ASSERT_EQ(one.status, 0) << one.err;
  const std::string want = whole_content(folder_ / "one");
  same_on(4, file, "four", want, {"--threads", "1"});
  const Launched again = on(2, file, "four");
  EXPECT_EQ(again.status, 2) << again.all();
  EXPECT_EQ(count(again.text, "error[RT0203]"), 1) << again.all();
  same_on(2, file, "four", want, {"--resume"});  // all is done: states and weights are handed out
}

TEST_P(RanksRun, what_four_began_two_and_eight_end) {
  const std::string file = long_parity();
  ASSERT_EQ(alone(file, "one", {"--threads", "1"}).status, 0);
  const std::string want = content_but_ranks(folder_ / "one");
  for (const auto& [out, rank, signal, code] :
       {std::tuple{"x", 2, SIGTERM, 143}, std::tuple{"y", 0, SIGINT, 130}}) {
    const Launched cut = signalled(4, file, out, rank, signal);
    EXPECT_NE(cut.status, 0) << cut.all();
    EXPECT_EQ(count(cut.text, "after a checkpoint; to go on:"), 1) << cut.all();
    const Json said = status(out);
    EXPECT_EQ(said.at("state").as_string(), "stopped");
    EXPECT_EQ(said.at("code").as_integer(), code);
    const int others = rank == 2 ? 2 : 8;
    const Launched rest = on(others, file, out, {"--threads", "1", "--resume"});
    ASSERT_EQ(rest.status, 0) << rest.all();
    EXPECT_EQ(content_but_ranks(folder_ / out), want);
  }
}

TEST_P(RanksRun, a_killed_rank_ends_all_and_the_last_checkpoint_stands) {
  const std::string file = long_parity();
  const Launched cut = signalled(2, file, "x", 1, SIGKILL);
  EXPECT_NE(cut.status, 0) << cut.all();
  EXPECT_THAT(cut.text, ::testing::ContainsRegex("signal 9|was not heard of|left after an error"))
      << cut.all();
  all_have_left("x", 2);
  ASSERT_EQ(alone(file, "one", {"--threads", "1"}).status, 0);
  const Result rest = alone(file, "x", {"--threads", "1", "--resume"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(content_but_ranks(folder_ / "x"), content_but_ranks(folder_ / "one"));
  EXPECT_FALSE(fs::exists(folder_ / "x/status.json"));  // it was about several ranks
}

TEST_P(RanksRun, a_stopped_rank_is_named_and_all_leave) {
  const Launched cut = signalled(2, long_parity(), "x", 1, SIGSTOP);
  EXPECT_NE(cut.status, 0) << cut.all();
  EXPECT_THAT(cut.text, ::testing::ContainsRegex("error\\[RT0799\\]: rank 1 \\(.*, pid [0-9]+\\) "
                                                 "was not heard of for"))
      << cut.all();
  all_have_left("x", 2);
  const Json said = status("x");
  EXPECT_EQ(said.at("state").as_string(), "lost");
  EXPECT_EQ(said.at("code").as_integer(), 7);
  EXPECT_EQ(said.at("rank").as_integer(), 1);
}

TEST_P(RanksRun, a_full_disk_of_rank_0_is_everybodys_error) {
  // From then on no file of rank 0's may grow.
  const Launched r = met(2, long_parity(), "x", 0, [](pid_t process) {
    const rlimit none{1, 1};
    ::prlimit(process, RLIMIT_FSIZE, &none, nullptr);
  });
  EXPECT_EQ(r.status, 4) << r.all();
  EXPECT_EQ(count(r.text, "kdtrain: error[RT04"), 1) << r.all();
  EXPECT_EQ(count(r.text, "error["), 1) << r.all();
  EXPECT_THAT(r.text, HasSubstr("to go on when the cause is gone"));
  all_have_left("x", 2);
}

TEST_P(RanksRun, ranks_that_differ_are_named_before_anything_is_written) {
  const std::string file = parity();
  const Launched keys = with_one_other(2, 1, file, "x", "", "arm.sgd.train.lr=0.06");
  EXPECT_EQ(keys.status, 2) << keys.all();
  EXPECT_EQ(count(keys.text, "error[RT0222]: rank 1 ("), 1) << keys.all();
  EXPECT_THAT(keys.text, HasSubstr("has other arm.sgd.train.lr: 0.06 instead of 0.05"));
  const Launched wrong = with_one_other(2, 1, file, "x", "", "train.lr=none");
  EXPECT_EQ(wrong.status, 2) << wrong.all();
  EXPECT_EQ(count(wrong.text, "rank 1 ("), 1) << wrong.all();
  pictures();
  fs::create_directories(folder_ / "other");
  fs::copy_file(folder_ / "data/b.bin", folder_ / "other/a.bin");
  for (const char* name : {"b.bin", "t.bin"})
    fs::copy_file(folder_ / "data" / name, folder_ / "other" / name);
  std::string text = read(folder_ / "images.toml");
  text.replace(text.find(path("data")), path("data").size(), "");
  const std::string rootless = write("rootless.toml", text);
  ::setenv("RETORT_DATA", path("data").c_str(), 1);
  const Launched data =
      with_one_other(2, 1, rootless, "x", "RETORT_DATA=" + path("other") + "; export RETORT_DATA;");
  ::unsetenv("RETORT_DATA");
  EXPECT_EQ(data.status, 2) << data.all();
  EXPECT_EQ(count(data.text, "has other training data: "), 1) << data.all();
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_P(RanksRun, slices_and_ranks_must_fit) {
  const std::string file = parity();
  const Launched three = on(3, file, "x");
  EXPECT_EQ(three.status, 2) << three.all();
  EXPECT_EQ(count(three.text, "error[RT0224]: "), 1) << three.all();
  EXPECT_THAT(three.text, HasSubstr("slices = 8 goes with 1, 2, 4 or 8 ranks, got 3"));
  EXPECT_FALSE(fs::exists(folder_ / "x"));
  // As many as ranks where nothing is said; whoever goes on keeps that.
  const std::string none = parity("[[arm]]\nname = \"a\"\n");
  const std::vector<std::string> zero{"train.slices=0", "teacher.train.slices=0"};
  ASSERT_EQ(on(2, none, "two", zero).status, 0);
  EXPECT_THAT(read(folder_ / "two/recipe.resolved.toml"), HasSubstr("slices = 2"));
  std::vector<std::string> again = zero;
  again.push_back("--resume");
  const Result rest = alone(none, "two", again);
  EXPECT_EQ(rest.status, 0) << rest.err;
  ASSERT_EQ(alone(none, "one", {"train.slices=2", "teacher.train.slices=2"}).status, 0);
  EXPECT_EQ(content_but_ranks(folder_ / "two"), content_but_ranks(folder_ / "one"));
}

TEST_P(RanksRun, a_loss_that_is_no_number_ends_its_job_on_all_ranks) {
  const std::string file = parity(
      "[[arm]]\nname = \"a\"\ntrain.lr = 1000.0\ntrain.clip_norm = 0.0\n"
      "[[arm]]\nname = \"b\"\n");
  const Result one = alone(file, "one");
  ASSERT_EQ(one.status, 6) << one.err;
  const Launched r = on(2, file, "x");
  EXPECT_EQ(r.status, 6) << r.all();
  EXPECT_EQ(count(r.text, "error[RT0601]"), 1) << r.all();
  EXPECT_EQ(whole_content(folder_ / "x"), whole_content(folder_ / "one"));
}

TEST_P(RanksRun, the_short_form_starts_mpirun_and_hands_on_what_it_is_asked) {
  const std::string file = long_parity();
  std::vector<std::string> command = words(file, "x", {"--ranks", "2", "--threads", "1"}),
                           variables = kRoot;
  variables.push_back("RETORT_MPIRUN=" + GetParam().launcher);
  std::thread sender([&] {
    while (lines(folder_ / "x/metrics.jsonl") < 8)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    // The one that was not started by a launcher: neither variable is in its environment.
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string line = read(entry.path() / "cmdline"), all = read(entry.path() / "environ");
      if (line.find(path("x")) == std::string::npos || !line.starts_with(RETORT_KDTRAIN)) continue;
      if (all.find("RETORT_STARTED_BY_RANKS") != std::string::npos) continue;
      ::kill(std::stoi(entry.path().filename().string()), SIGINT);
    }
  });
  const Launched cut = test::run_program(command, variables);
  sender.join();
  EXPECT_EQ(cut.status, 143) << cut.all();  // of SIGUSR1, which it was handed on as
  EXPECT_EQ(count(cut.text, "2 ranks x 1 thread on 1 node, 8 slices of 3 rows, "), 1) << cut.all();
  EXPECT_EQ(status("x").at("state").as_string(), "stopped");
  command.push_back("--resume");
  const Launched rest = test::run_program(command, variables);
  EXPECT_EQ(rest.status, 0) << rest.all();
  ASSERT_EQ(alone(file, "one", {"--threads", "1"}).status, 0);
  EXPECT_EQ(content_but_ranks(folder_ / "x"), content_but_ranks(folder_ / "one"));
  std::thread killer([&] {
    pid_t rank = 0;
    while (lines(folder_ / "z/metrics.jsonl") < 8 || rank == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      rank = process_of("z", 1);
    }
    ::kill(rank, SIGKILL);
  });
  const Launched lost =
      test::run_program(words(file, "z", {"--ranks", "2", "--threads", "1"}), variables);
  killer.join();
  EXPECT_EQ(lost.status, 7) << lost.all();  // the launchers say 137 and 9
  EXPECT_EQ(status("z").at("state").as_string(), "lost");
  // The code of what went wrong is the program's, whatever the launcher says.
  command = words(file, "y", {"--ranks", "3"});
  EXPECT_EQ(test::run_program(command, variables).status, 2);
  variables.back() = "RETORT_MPIRUN=/no/such/mpirun";
  EXPECT_NE(test::run_program(command, variables).status, 0);
}

}  // namespace
}  // namespace retort::tools
