// The program as people run it, in a folder of its own, on synthetic data.
#pragma once
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/io/json.h"
#include "engine/io/safetensors.h"
#include "kernels/common/philox.h"

namespace retort::tools {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

inline std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Result {
  int status = -1;  // 128 + signal for a death by signal
  std::string out, err;
};

class Kdtrain : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("retort_kdtrain_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "data");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return path(name);
  }

  // CIFAR-10 records whose colour tells the class, with noise: a small net learns them quickly.
  void images(const std::string& name, int count, std::uint32_t seed) const {
    std::string text;
    for (int i = 0; i < count; ++i) {
      const int label = i % 10;
      text += static_cast<char>(label);
      for (std::uint32_t p = 0; p < 3072; p += 4) {
        const Philox4 r = philox(seed, p, static_cast<std::uint32_t>(i), 0, 0);
        const std::uint32_t base = static_cast<std::uint32_t>(label) * 20 + (p / 1024) * 13 % 50;
        for (const std::uint32_t v : r.v) text += static_cast<char>(base + v % 24);
      }
    }
    std::ofstream(folder_ / "data" / name, std::ios::binary) << text;
  }

  pid_t start(const std::vector<std::string>& args, rlim_t file_limit = 0) const {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    const int out = ::open(path("out").c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    const int err = ::open(path("err").c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ::dup2(out, 1);
    ::dup2(err, 2);
    ::chdir(folder_.c_str()) == 0 ? void() : ::_exit(99);
    // Threads of several processes on few cores must not spin for each other.
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    if (file_limit != 0) {
      const rlimit limit{file_limit, file_limit};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (address_limit_ != 0) {
      const rlimit limit{address_limit_, address_limit_};
      ::setrlimit(RLIMIT_AS, &limit);
    }
    std::vector<char*> argv{const_cast<char*>(RETORT_KDTRAIN)};
    for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    ::execv(RETORT_KDTRAIN, argv.data());
    ::_exit(98);
  }
  Result finish(pid_t pid) const {
    int status = 0;
    ::waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read(path("out")),
            read(path("err"))};
  }
  Result run(const std::vector<std::string>& args, rlim_t file_limit = 0) const {
    return finish(start(args, file_limit));
  }
  void expect(const std::vector<std::string>& args, int status, const std::string& message) const {
    const Result r = run(args);
    EXPECT_EQ(r.status, status) << r.err;
    EXPECT_THAT(r.err + r.out, HasSubstr(message));
    EXPECT_THAT(r.err, Not(HasSubstr("internal error")));
  }

  // Tiny images: teacher and students are ResNet-8s, a handful of steps each.
  std::string image_recipe() const {
    images("a.bin", 40, 1);
    images("b.bin", 40, 2);
    images("t.bin", 30, 3);
    return write("images.toml", R"(
name = "tiny"
seeds = [1, 2]
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], epochs = 1, batch = 10, lr = 0.05 }
[train]
epochs = 2
batch = 10
lr = 0.05
log_steps = 3
schedule = "cosine"
[[arm]]
name = "unguided"
distill.lambda = 0.0
[[arm]]
name = "kd_cl_inverse_sr"
train.order = "curriculum"
train.window_shuffle = 2
curriculum.inverse = "reverse_exact"
distill.reliance = { mode = "literal", s = "first_batch", per = "sample" }
)");
  }
  // Tiny parity: every kind of stage, a few milliseconds each.
  std::string parity_recipe() const {
    return write("parity.toml", R"(
name = "tiny"
seeds = [1, 2]
data = { format = "parity", bits = 12, support = 3, test_size = 200 }
[teacher]
arch = "mlp"
hidden = [32]
seeds = [1, 2]
train = { steps = 1500, batch = 32, lr = 0.2, momentum = 0.0, checkpoint_steps = 50 }
[student]
arch = "mlp"
hidden = [16]
[distill]
temperature = 1.0
lambda = 1.0
extraction.steps = 150
progressive.steps = 150
[train]
steps = 700
batch = 16
lr = 0.05
evaluate_steps = 70
log_steps = 64
checkpoint_steps = 130
probe = false
[[arm]]
name = "one_shot"
[[arm]]
name = "progressive"
distill.method = "progressive"
[[arm]]
name = "head"
distill.method = "extraction"
distill.extraction.variant = "head"
distill.extraction.width = 4
train.optimizer = "adamw"
train.lr = 0.01
)");
  }

  // What must be equal: weights, curricula, and the log but for times.
  static std::string content(const fs::path& folder);
  // The same of a run on several ranks: what only they tell is left out, too.
  static std::string content_but_ranks(const fs::path& folder);
  // That, and every checkpoint.
  static std::string whole_content(const fs::path& folder);

  static std::size_t lines(const fs::path& file) {
    const std::string text = read(file);
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  // Starts, waits until the log has some lines, sends the signal. On a busy machine a short run may
  // be over before this process sees the lines: then again, at most three times.
  Result interrupted(const std::vector<std::string>& args, std::size_t after_lines,
                     int signal) const {
    const std::string out = args.back();
    Result result;
    for (int attempt = 0; attempt < 3 && (attempt == 0 || result.status == 0); ++attempt) {
      fs::remove_all(folder_ / out);
      const pid_t pid = start(args);
      const auto begin = std::chrono::steady_clock::now();
      while (lines(folder_ / out / "metrics.jsonl") < after_lines &&
             std::chrono::steady_clock::now() - begin < std::chrono::minutes(2))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ::kill(pid, signal);
      result = finish(pid);
    }
    return result;
  }

  fs::path folder_;
  rlim_t address_limit_ = 0;  // of the programs started from now on; 0: none
};

}  // namespace retort::tools
