// A training is the same bytes at any thread count, in both precisions, and after a resume:
// checkpoints in the middle of an epoch are compared file by file.
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class KdtrainBytes : public Kdtrain {
 protected:
  // 70 images in batches of 32: an epoch is 3 steps, so steps 2 and 4 are inside epochs.
  std::string recipe() const {
    images("a.bin", 70, 1);
    images("b.bin", 70, 2);
    images("t.bin", 30, 3);
    return write("bytes.toml", R"(
name = "bytes"
seeds = [1]
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], epochs = 1, batch = 32, lr = 0.05 }
[train]
epochs = 2
batch = 32
lr = 0.05
checkpoint_steps = 2
checkpoint_keep = 100
jobs = 1                 # one job at a time: the threads share each step
log_steps = 2
[[arm]]
name = "kd"
[[arm]]
name = "sr"
train.order = "curriculum"
train.window_shuffle = 2
distill.reliance.mode = "minmax"
train.optimizer = "adamw"
train.lr = 0.01
[[arm]]
name = "bf16"
train.precision = "bf16"
)");
  }

  // Every tensor file of every checkpoint, by name.
  static std::map<std::string, std::string> checkpoints(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().string().find("/ckpt-") != std::string::npos &&
          entry.path().extension() == ".safetensors")
        files[fs::relative(entry.path(), folder).string()] = hash_file(entry.path().string());
    return files;
  }
};

TEST_F(KdtrainBytes, checkpoints_inside_an_epoch_at_1_2_and_3_threads) {
  const std::string file = recipe();
  std::map<std::string, std::string> first;
  for (const char* threads : {"1", "2", "3"}) {
    const std::string out = std::string("t") + threads;
    const Result r = run({"run", file, "--device", "cpu", "--threads", threads, "--out", out});
    ASSERT_EQ(r.status, 0) << r.err;
    const auto files = checkpoints(folder_ / out);
    if (first.empty()) first = files;
    EXPECT_EQ(files, first) << threads << " threads";
  }
  // Teacher: steps 2 and 3; each arm: 2, 4 and 6; two files each.
  EXPECT_EQ(first.size(), 2u * (2 + 3 * 3));
  for (const char* arm : {"kd", "sr", "bf16"})
    EXPECT_TRUE(
        first.contains(std::string("arms/") + arm + "/seed1/ckpt-00000004/model.safetensors"))
        << first.begin()->first;
}

TEST_F(KdtrainBytes, a_run_killed_inside_an_epoch_goes_on_with_another_thread_count) {
  const std::string file = recipe();
  const Result whole = run({"run", file, "--device", "cpu", "--threads", "2", "--out", "whole"});
  ASSERT_EQ(whole.status, 0) << whole.err;
  // SIGKILL writes nothing: the newest checkpoint on the disk, inside an epoch, is what is left.
  const Result cut =
      interrupted({"run", file, "--device", "cpu", "--threads", "3", "--out", "cut"}, 4, SIGKILL);
  EXPECT_EQ(cut.status, 128 + SIGKILL) << cut.err;
  const Result rest =
      run({"run", file, "--device", "cpu", "--threads", "1", "--out", "cut", "--resume"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(checkpoints(folder_ / "cut"), checkpoints(folder_ / "whole"));
  EXPECT_EQ(content(folder_ / "cut"), content(folder_ / "whole"));
}

}  // namespace
}  // namespace retort::tools
