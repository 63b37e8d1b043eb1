// What users meet when something is in the way: signals, pipes, closed streams, kills, broken
// files.
#include <pty.h>
#include <sys/stat.h>

#include "engine/io/file.h"
#include "tests/tools/kdtrain_fixture.h"
#include "tools/kdtrain/progress.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/toml_reader.h"

namespace retort::tools {
namespace {

class Robustness : public Kdtrain {
 protected:
  // A process that ran and is gone.
  static std::string dead_process() {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(0);
    ::waitpid(pid, nullptr, 0);
    return std::to_string(pid);
  }
  std::vector<std::string> short_run(const std::string& out) const {
    return {"run",
            image_recipe(),
            "seeds=1",
            "arms=unguided",
            "train.epochs=1",
            "--device",
            "cpu",
            "--threads",
            "1",
            "--out",
            out};
  }
};

TEST_F(Robustness, every_signal_leaves_a_checkpoint) {
  const std::string recipe = parity_recipe();
  for (const auto& [signal, name, status] :
       {std::tuple{SIGHUP, "SIGHUP", 143}, {SIGUSR1, "SIGUSR1", 143}, {SIGQUIT, "SIGQUIT", 130}}) {
    const std::string out = std::string("x") + name;
    const Result cut =
        interrupted({"run", recipe, "seeds=1", "arms=one_shot", "teacher.seeds=1",
                     "train.steps=200000", "train.checkpoint_steps=0", "train.checkpoint_epochs=0",
                     "--device", "cpu", "--threads", "1", "--out", out},
                    40, signal);
    EXPECT_EQ(cut.status, status) << cut.err;
    EXPECT_THAT(cut.err, HasSubstr(std::string("stopped by ") + name + " after a checkpoint"));
    bool checkpoint = false;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / out / "arms"))
      checkpoint = checkpoint || entry.path().filename() == "MANIFEST.json";
    EXPECT_TRUE(checkpoint);
  }
}

// A large set takes minutes to score: a scheduler that is about to kill does not wait so long.
TEST_F(Robustness, a_signal_ends_a_pass_before_training) {
  const std::string recipe = image_recipe();
  images("a.bin", 6000, 1);
  const pid_t pid = start({"run", recipe, "--device", "cpu", "--out", "x"});
  const auto begin = std::chrono::steady_clock::now();
  // Its last line comes before it is asked about the students' samples.
  while (read(folder_ / "x/metrics.jsonl").find("\"final\"") == std::string::npos &&
         std::chrono::steady_clock::now() - begin < std::chrono::minutes(2))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::kill(pid, SIGTERM);
  const Result cut = finish(pid);
  EXPECT_EQ(cut.status, 143) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("stopped by SIGTERM"));
  EXPECT_FALSE(fs::exists(folder_ / "x/curriculum/logit_reverse_exact.csv"));  // it did not end
}

TEST_F(Robustness, a_second_signal_quits_at_once) {
  for (const auto& [first, second, status] :
       {std::tuple{SIGTERM, SIGTERM, 143}, {SIGINT, SIGINT, 130}, {SIGUSR1, SIGQUIT, 130}}) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::close(STDERR_FILENO);
      install_signal_handlers();
      ::raise(first);
      if (stop_requested() != first || !stop_wanted()) ::_exit(1);
      ::raise(second);
      ::_exit(2);
    }
    int ended = 0;
    ::waitpid(pid, &ended, 0);
    ASSERT_TRUE(WIFEXITED(ended));
    EXPECT_EQ(WEXITSTATUS(ended), status);
  }
  EXPECT_STREQ(signal_name(SIGHUP), "SIGHUP");
}

TEST_F(Robustness, a_hangup_that_nohup_ignores_stays_ignored) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::signal(SIGHUP, SIG_IGN);
    install_signal_handlers();
    ::raise(SIGHUP);
    ::_exit(stop_requested() == 0 ? 0 : 1);
  }
  int ended = 0;
  ::waitpid(pid, &ended, 0);
  EXPECT_EQ(ended, 0);
}

TEST_F(Robustness, pipes_in_the_place_of_files_are_errors_and_no_waits) {
  const std::string recipe = image_recipe();
  ASSERT_EQ(::mkfifo(path("data/pipe.bin").c_str(), 0600), 0);
  ASSERT_EQ(::mkfifo(path("pipe.safetensors").c_str(), 0600), 0);
  const auto with = [&](const std::string& override) {
    expect({"run", recipe, override, "--device", "cpu", "--out", "x"}, 4, "got a pipe");
    EXPECT_FALSE(fs::exists(folder_ / "x"));
  };
  ASSERT_EQ(::mkfifo(path("recipe.fifo").c_str(), 0600), 0);
  expect({"validate", "recipe.fifo"}, 4, "recipe.fifo: the pipe is empty, or nobody writes to it");
  with("data.train_files=pipe.bin");
  with("teacher.weights=" + path("pipe.safetensors"));
  expect({"eval", "--model", "pipe.safetensors", "--arch", "resnet8", "data.root=data",
          "data.test_files=t.bin"},
         4, "got a pipe");
}

TEST_F(Robustness, closed_standard_streams_take_no_number_from_a_file) {
  const std::vector<std::string> args = short_run("x");
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::chdir(folder_.c_str()) != 0) ::_exit(99);
    for (int i = 0; i < 3; ++i) ::close(i);
    std::vector<char*> argv{const_cast<char*>(RETORT_KDTRAIN)};
    for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    ::execv(RETORT_KDTRAIN, argv.data());
    ::_exit(98);
  }
  int ended = 0;
  ::waitpid(pid, &ended, 0);
  ASSERT_TRUE(WIFEXITED(ended));
  EXPECT_EQ(WEXITSTATUS(ended), 0);
  std::istringstream log(read(folder_ / "x/metrics.jsonl"));
  int count = 0;
  for (std::string line; std::getline(log, line); ++count)
    EXPECT_NO_THROW(Json::parse(line, "metrics.jsonl")) << line;
  EXPECT_GT(count, 3);
}

TEST_F(Robustness, a_run_killed_before_its_recipe_was_there_can_be_started_and_resumed) {
  for (const bool resume : {false, true}) {
    const std::string out = resume ? "resumed" : "started";
    fs::create_directories(folder_ / out);
    write(out + "/recipe.resolved.toml.tmp-" + dead_process(), "half a rec");
    write(out + "/recipe.resolved.toml.tmp-1", "its number is another's by now");
    std::vector<std::string> args = short_run(out);
    if (resume) args.emplace_back("--resume");
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
    for (const auto& entry : fs::directory_iterator(folder_ / out))
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
  // A folder with anything else in it is still somebody's.
  fs::create_directories(folder_ / "other");
  write("other/notes.txt", "mine");
  expect(short_run("other"), 2, "is not empty");
  EXPECT_EQ(read(folder_ / "other/notes.txt"), "mine");
}

TEST_F(Robustness, the_next_start_clears_up_after_a_kill) {
  std::vector<std::string> args = short_run("x");
  ASSERT_EQ(run(args).status, 0);
  const std::string dead = dead_process(), seed = "x/arms/unguided/seed1/";
  const std::vector<std::string> rubbish{"x/metrics.jsonl.tmp-" + dead,
                                         "x/metrics.jsonl.tmp-1",  // a number that was given anew
                                         "x/report.html." + dead + ".tmp",
                                         seed + "model.safetensors.tmp-" + dead};
  ASSERT_TRUE(fs::is_directory(folder_ / seed));
  for (const std::string& name : rubbish) write(name, "half");
  args.emplace_back("--resume");
  EXPECT_EQ(run(args).status, 0);
  for (const std::string& name : rubbish) EXPECT_FALSE(fs::exists(folder_ / name)) << name;
}

TEST_F(Robustness, when_every_checkpoint_is_damaged_nothing_starts_anew_by_itself) {
  std::vector<std::string> args = short_run("x");
  ASSERT_EQ(run(args).status, 0);
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "x/arms/unguided"))
    if (entry.path().filename() == "state.json") fs::resize_file(entry.path(), 10);
  args.emplace_back("--resume");
  expect(args, 3, "every checkpoint is damaged");
}

// Wherever memory ends, in a library's first call too, it is exit 5 and no signal.
TEST_F(Robustness, little_memory_is_5) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "a sanitizer reserves more addresses than the limit leaves";
#endif
  const std::string recipe = write("little.toml", R"(
data = { format = "parity", bits = 8, support = 2, test_size = 32 }
[teacher]
arch = "mlp"
hidden = [8]
allow_untrained = true
train = { steps = 2, batch = 4 }
[student]
arch = "mlp"
hidden = [4]
[train]
steps = 2
batch = 4
)");
  int begun = 0, refused = 0;
  for (rlim_t mib = 40; mib <= 136; mib += 6) {
    address_limit_ = mib << 20;
    for (const char* command : {"validate", "run"}) {
      std::vector<std::string> args{command, recipe};
      if (args[0] == "run")
        args.insert(args.end(), {"--device", "cpu", "--threads", "1", "--out", "x"});
      fs::remove_all(folder_ / "x");
      const Result r = run(args);
      if (r.status == 127) continue;  // its libraries found no room
      ++begun;
      refused += r.status == 5;
      EXPECT_TRUE(r.status == 0 || r.status == 5) << command << " " << mib << ": " << r.status;
      EXPECT_TRUE(r.status == 0 || r.err.find("error[RT05") != std::string::npos) << r.err;
    }
  }
  address_limit_ = 0;
  EXPECT_GT(begun, 4);
  EXPECT_GT(refused, 0);
}

// As "$OUT" of a variable that is not set is.
TEST_F(Robustness, an_empty_name_is_not_the_default_one) {
  for (const char* command : {"run", "score"}) {
    std::vector<std::string> args = short_run("");
    args[0] = command;
    expect(args, 2, "--out: expected a name, got an empty one");
    EXPECT_FALSE(fs::exists(folder_ / "runs"));
  }
}

TEST_F(Robustness, a_broken_plugin_is_a_sentence_and_the_cpu) {
  const std::string library = std::getenv("RETORT_CUDA_LIBRARY"), cut = path("cut.so");
  fs::copy_file(RETORT_EMULATED_PLUGIN, cut);
  fs::resize_file(cut, fs::file_size(cut) / 2);
  ::setenv("RETORT_CUDA_LIBRARY", cut.c_str(), 1);
  std::vector<std::string> args = short_run("x");
  expect({"doctor"}, 0, "not usable: no CUDA plug-in: " + cut + ": it was cut");
  for (std::string& word : args)
    if (word == "cpu") word = "auto";
  const Result r = run(args);
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("note: no CUDA plug-in: " + cut + ": it was cut"));
  EXPECT_THAT(r.err, HasSubstr("on cpu"));
  for (std::string& word : args)
    if (word == "auto") word = "cuda";
  args.back() = "y";
  expect(args, 8, cut + ": it was cut");
  ::setenv("RETORT_CUDA_LIBRARY", library.c_str(), 1);
}

TEST(TomlReader, a_byte_order_mark_is_skipped) {
  const TomlResult result = read_toml("\xEF\xBB\xBFname = \"x\"\n");
  EXPECT_TRUE(result.problems.empty());
  ASSERT_EQ(result.entries.size(), 1u);
  EXPECT_EQ(result.entries[0].place.column, 1);
  EXPECT_FALSE(read_toml("a = 1\n\xEF\xBB\xBF").problems.empty());
}

// Standard error is a terminal while one lives.
class Terminal {
 public:
  Terminal() {
    winsize size{25, 120, 0, 0};
    EXPECT_EQ(::openpty(&here_, &there_, nullptr, nullptr, &size), 0);
    before_ = ::dup(STDERR_FILENO);
    ::dup2(there_, STDERR_FILENO);
    ::setenv("TERM", "xterm", 1);
  }
  ~Terminal() {
    ::dup2(before_, STDERR_FILENO);
    for (const int descriptor : {here_, there_, before_}) ::close(descriptor);
  }
  std::string text() const {  // since the last call
    ::fcntl(here_, F_SETFL, O_NONBLOCK);
    std::string all(65536, '\0');
    const ssize_t n = ::read(here_, all.data(), all.size());
    all.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return all;
  }

 private:
  int here_ = -1, there_ = -1, before_ = -1;
};

constexpr const char* kErase = "\r\x1b[K";

TEST(Progress, the_line_is_gone_when_nothing_goes_on) {
  const Terminal terminal;
  Progress progress;
  progress.set_total(2, 20);
  progress.update("a/1", 5, 10, "loss 1.0");
  EXPECT_THAT(terminal.text(), HasSubstr("25% 0/2"));
  progress.finish("a/1", 10);
  std::string text = terminal.text();
  EXPECT_TRUE(text.ends_with(kErase)) << text;
  progress.line("a note");
  text = terminal.text();
  EXPECT_TRUE(text.ends_with("a note\r\n")) << text;
}

TEST(Progress, a_sign_of_life_each_second) {
  const Terminal terminal;
  Progress progress;
  progress.set_total(1, 10);
  progress.beat("scoring teacher/1", 3, 10);
  EXPECT_THAT(terminal.text(), HasSubstr("scoring teacher/1 3/10"));
  std::string text;
  for (int i = 0; i < 600 && text.find("0m02s") == text.npos; ++i) {  // each second another time
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    text += terminal.text();
  }
  EXPECT_THAT(text, HasSubstr("0m01s"));
  EXPECT_THAT(text, HasSubstr("0m02s"));
  progress.rest("scoring teacher/1");
  EXPECT_TRUE(terminal.text().ends_with(kErase));
}

}  // namespace
}  // namespace retort::tools
