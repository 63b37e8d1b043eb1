// train.slices: what a recipe gives depends on the number of slices, and on nothing else.
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class KdtrainSlices : public Kdtrain {
 protected:
  static std::string arm(const std::string& name, const std::string& keys) {
    return "[[arm]]\nname = \"" + name + "\"\n" + keys;
  }
  // Batch norm. 35 images in batches of 16: the last batch has three, fewer than the four slices.
  std::string image_recipe(const std::string& arms) const {
    images("a.bin", 35, 1);
    images("b.bin", 35, 2);
    images("t.bin", 10, 3);
    return write("images.toml", R"(
name = "images"
seeds = [1]
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], steps = 1, batch = 16, lr = 0.02 }
[student]
arch = "resnet8"
[train]
steps = 4
batch = 16
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 2
checkpoint_keep = 100
jobs = 1                 # one job at a time: the threads share each step
log_steps = 2
)" + arms);
  }
  std::string parity_recipe(const std::string& arms) const {
    return write("parity.toml", R"(
name = "parity"
seeds = [1]
data = { format = "parity", bits = 12, support = 3, test_size = 50 }
[teacher]
arch = "mlp"
hidden = [32]
allow_untrained = true
train = { steps = 60, batch = 32, lr = 0.1 }
[student]
arch = "mlp"
hidden = [16]
[train]
steps = 60
batch = 18
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 20
jobs = 1
log_steps = 10
probe = false
)" + arms);
  }
  // The log and all weights, at several numbers of threads, and of a run that was killed.
  void same_however_it_runs(const std::string& file, std::size_t kill_after_lines) const {
    std::string first;
    for (const char* threads : {"1", "2", "3"}) {
      const std::string out = std::string("t") + threads;
      const Result r = run({"run", file, "--device", "cpu", "--threads", threads, "--out", out});
      ASSERT_EQ(r.status, 0) << r.err;
      if (first.empty()) first = content(folder_ / out);
      EXPECT_EQ(content(folder_ / out), first) << threads << " threads";
    }
    const Result cut =
        interrupted({"run", file, "--device", "cpu", "--threads", "2", "--out", "cut"},
                    kill_after_lines, SIGKILL);
    EXPECT_EQ(cut.status, 128 + SIGKILL) << cut.err;
    const Result rest =
        run({"run", file, "--device", "cpu", "--threads", "1", "--out", "cut", "--resume"});
    ASSERT_EQ(rest.status, 0) << rest.err;
    EXPECT_EQ(content(folder_ / "cut"), first);
  }
  // Their values alone: a file says whose they are, too.
  std::vector<float> weights(const std::string& out, const std::string& arm) const {
    std::vector<float> all;
    for (const auto& [name, tensor] :
         read_safetensors((folder_ / out / "arms" / arm / "seed1/model.safetensors").string())) {
      const std::vector<float> own = tensor.to_vector<float>();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }
};

TEST_F(KdtrainSlices, batch_norms_give_the_same_bytes_however_they_run) {
  same_however_it_runs(
      image_recipe(arm("sgd", "train.slices = 4\ntrain.momentum = 0.9\n") +
                   arm("adamw",
                       "train.slices = 3\ntrain.micro_batch = 3\n"
                       "train.optimizer = \"adamw\"\ntrain.lr = 0.01\n"
                       "train.order = \"curriculum\"\n"
                       "distill.reliance = { mode = \"literal\", s = \"first_batch\", "
                       "per = \"sample\" }\n")),
      6);
}

TEST_F(KdtrainSlices, an_mlp_gives_the_same_bytes_however_it_runs) {
  same_however_it_runs(
      parity_recipe(arm("sgd", "train.slices = 4\n") +
                    arm("adamw", "train.slices = 6\ntrain.optimizer = \"adamw\"\n")),
      12);
}

TEST_F(KdtrainSlices, captured_steps_give_the_bytes_of_eager_ones) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "GraphedStep's own tests run there";
#endif
  const std::string file = parity_recipe(
      arm("sgd", "train.slices = 4\n") +
      arm("adamw", "train.slices = 3\ntrain.batch = 2\ntrain.optimizer = \"adamw\"\n"));
  const auto trained = [&](const std::string& out, const std::string& graph) {
    const Result r = run({"run", file, "train.steps=24", "teacher.train.steps=8", graph, "--device",
                          "cuda", "--out", out});
    EXPECT_EQ(r.status, 0) << r.err;
    return content(folder_ / out);
  };
  const std::string eager = trained("eager", "train.graph=false");
  EXPECT_THAT(eager, HasSubstr("adamw"));
  EXPECT_EQ(trained("graph", "train.graph=true"), eager);
}

TEST_F(KdtrainSlices, one_slice_is_the_whole_batch_and_more_are_another_recipe) {
  const std::string file = image_recipe(arm("none", "") + arm("one", "train.slices = 1\n") +
                                        arm("two", "train.slices = 2\n"));
  const Result r = run({"run", file, "train.steps=2", "--device", "cpu", "--out", "x"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(weights("x", "one"), weights("x", "none"));
  EXPECT_NE(weights("x", "two"), weights("x", "none"));
  EXPECT_THAT(r.err, HasSubstr("train.slices = 2 leaves 8 of 16 samples to a slice"));
  EXPECT_THAT(r.err, Not(HasSubstr("train.slices = 1 leaves")));
  EXPECT_THAT(read(folder_ / "x/metrics.jsonl"), HasSubstr("train.slices = 2 leaves 8 of 16"));
  expect({"run", file, "train.steps=2", "arm.two.train.slices=4", "--device", "cpu", "--out", "x",
          "--resume"},
         2, "train.slices was 2, is 4");
}

TEST_F(KdtrainSlices, the_slice_that_diverged_is_named) {
  const std::string file = parity_recipe(arm("a", "train.slices = 4\ntrain.lr = 1000.0\n"));
  expect({"run", file, "train.clip_norm=0.0", "--device", "cpu", "--out", "x"}, 6,
         "first in slice ");
}

TEST_F(KdtrainSlices, teachers_are_trained_in_slices_too) {
  const std::string file = parity_recipe(arm("a", ""));
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
  // Its last stage sees one pixel: a sample of its own has no variance there.
  const std::string file = image_recipe(arm("a", "student.arch = \"resnet18\"\n"));
  expect({"validate", file, "train.slices=3"}, 2, "train.slices = 3 leaves 1 of 16 samples");
  EXPECT_EQ(run({"validate", file, "train.slices=2"}).status, 2);  // the last three
  EXPECT_EQ(run({"validate", file, "data.train_sample=32", "train.slices=4"}).status, 0);
  expect({"validate", file, "train.slices=1025"}, 2, "train.slices");
}

// A slice's gradient waits for its neighbour: of 8 slices three of them do.
TEST_F(KdtrainSlices, plan_counts_the_gradients_that_wait) {
  const std::string file = parity_recipe(arm("a", "student.hidden = [512, 512]\n"));
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
