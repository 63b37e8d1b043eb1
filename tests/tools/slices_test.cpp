// train.slices: what a recipe gives depends on the number of slices, and on nothing else.
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class KdtrainSlices : public Kdtrain {
 protected:
  // 35 images in batches of 16: the last batch has three, fewer than the four slices.
  std::string recipe(const std::string& arms) const {
    images("a.bin", 35, 1);
    images("b.bin", 35, 2);
    images("t.bin", 20, 3);
    return write("slices.toml", R"(
name = "slices"
seeds = [1]
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "mlp"
hidden = [12]
allow_untrained = true
train = { files = ["b.bin"], epochs = 1, batch = 16, lr = 0.02 }
[student]
arch = "mlp"
hidden = [8]
[train]
epochs = 2
batch = 16
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 2
checkpoint_keep = 100
jobs = 1                 # one job at a time: the threads share each step
log_steps = 2
)" + arms);
  }
  std::string all() const {
    return recipe(R"(
[[arm]]
name = "norms"
student.arch = "resnet8"
train.slices = 4
train.momentum = 0.9
[[arm]]
name = "adamw"
train.slices = 4
train.optimizer = "adamw"
train.lr = 0.01
train.order = "curriculum"
distill.reliance = { mode = "literal", s = "first_batch", per = "sample" }
[[arm]]
name = "norms_adamw"
student.arch = "resnet8"
train.slices = 3
train.micro_batch = 3
train.optimizer = "adamw"
train.lr = 0.01
)");
  }
  std::string weights(const std::string& out, const std::string& arm) const {
    return hash_file((folder_ / out / "arms" / arm / "seed1/model.safetensors").string());
  }
};

TEST_F(KdtrainSlices, the_same_bytes_at_1_2_and_3_threads_and_after_a_stop) {
  const std::string file = all();
  std::string first;
  for (const char* threads : {"1", "2", "3"}) {
    const std::string out = std::string("t") + threads;
    const Result r = run({"run", file, "--device", "cpu", "--threads", threads, "--out", out});
    ASSERT_EQ(r.status, 0) << r.err;
    if (first.empty()) first = content(folder_ / out);
    EXPECT_EQ(content(folder_ / out), first) << threads << " threads";
  }
  EXPECT_THAT(first, HasSubstr("norms_adamw"));
  const Result cut =
      interrupted({"run", file, "--device", "cpu", "--threads", "2", "--out", "cut"}, 4, SIGKILL);
  EXPECT_EQ(cut.status, 128 + SIGKILL) << cut.err;
  const Result rest =
      run({"run", file, "--device", "cpu", "--threads", "1", "--out", "cut", "--resume"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(content(folder_ / "cut"), first);
}

TEST_F(KdtrainSlices, one_slice_is_the_whole_batch_and_more_are_another_recipe) {
  const std::string file = recipe(R"(
[[arm]]
name = "none"
student.arch = "resnet8"
[[arm]]
name = "one"
student.arch = "resnet8"
train.slices = 1
[[arm]]
name = "two"
student.arch = "resnet8"
train.slices = 2
)");
  const Result r = run({"run", file, "--device", "cpu", "--out", "x"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(weights("x", "one"), weights("x", "none"));
  EXPECT_NE(weights("x", "two"), weights("x", "none"));
  EXPECT_THAT(r.err, HasSubstr("train.slices = 2 leaves 8 of 16 samples to a slice"));
  EXPECT_THAT(r.err, Not(HasSubstr("train.slices = 1 leaves")));
  EXPECT_THAT(read(folder_ / "x/metrics.jsonl"), HasSubstr("train.slices = 2 leaves 8 of 16"));
  expect({"run", file, "arm.two.train.slices=4", "--device", "cpu", "--out", "x", "--resume"}, 2,
         "train.slices was 2, is 4");
}

TEST_F(KdtrainSlices, teachers_are_trained_in_slices_too) {
  const std::string file = recipe("[[arm]]\nname = \"a\"\n");
  const auto teacher = [&](const std::string& out, const std::string& slices) {
    const Result r =
        run({"run", file, "teacher.train.slices=" + slices, "--device", "cpu", "--out", out});
    EXPECT_EQ(r.status, 0) << r.err;
    EXPECT_THAT(r.err, Not(HasSubstr("samples to a slice")));  // no batch norm
    return weights(out, "teacher");
  };
  EXPECT_NE(teacher("x", "8"), teacher("y", "0"));
}

TEST_F(KdtrainSlices, what_cannot_be_is_said_before_anything_runs) {
  const std::string file = recipe("[[arm]]\nname = \"a\"\nstudent.arch = \"resnet18\"\n");
  // Its last stage sees one pixel: a sample of its own has no variance there.
  expect({"validate", file, "train.slices=3"}, 2, "train.slices = 3 leaves one sample to a slice");
  EXPECT_EQ(run({"validate", file, "train.batch=8", "train.slices=2"}).status, 2);  // of 35
  EXPECT_EQ(run({"validate", file, "data.train_sample=32", "train.slices=4"}).status, 0);
  expect({"validate", file, "train.slices=1025"}, 2, "train.slices");
}

// A slice's gradient waits for its neighbour: of 8 slices three of them do.
TEST_F(KdtrainSlices, plan_counts_the_gradients_that_wait) {
  const std::string file = recipe("[[arm]]\nname = \"a\"\nstudent.hidden = [512]\n");
  const auto gradients = [&](const std::string& slices) {
    const Result r = run({"plan", file, "--device", "cpu", "--json", "train.slices=" + slices});
    EXPECT_EQ(r.status, 0) << r.err;
    const Json plan = Json::parse(r.out, "plan");
    return plan.at("phases").items().back().at("memory_mib").at("gradients").as_number();
  };
  const double whole = gradients("0"), eight = gradients("8");
  EXPECT_GT(whole, 1);
  EXPECT_NEAR(eight / whole, 4, 0.2);
}

}  // namespace
}  // namespace retort::tools
