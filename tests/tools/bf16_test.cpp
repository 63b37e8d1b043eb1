// train.precision and teacher.precision = "bf16": whole trainings, not only ops.
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class KdtrainBf16 : public Kdtrain {
 protected:
  double metric(const std::string& out, const std::string& arm, const char* name) const {
    const Json results = Json::read(path(out + "/results.json"));
    for (const Json& one : results.at("arms").items())
      if (one.at("name").as_string() == arm)
        return one.at("metrics").at(name).at("mean").as_number();
    return -1;
  }
  // Training losses that the log holds of an arm's first epoch.
  std::vector<double> first_losses(const std::string& out, const std::string& arm) const {
    std::vector<double> losses;
    std::istringstream log(read(folder_ / out / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      const Json line = Json::parse(text, "metrics.jsonl");
      if (line.at("arm").as_string() == arm && line.at("split").as_string() == "train" &&
          line.at("epoch").as_number() < 1)
        losses.push_back(line.at("loss").as_number());
    }
    return losses;
  }
  // Dtypes of everything a checkpoint holds.
  std::set<DType> dtypes(const std::string& file) const {
    std::set<DType> all;
    const SafetensorsReader reader(path(file));
    for (const SafetensorsEntry& entry : reader.header().entries)
      if (entry.dtype) all.insert(*entry.dtype);
    return all;
  }
};

TEST_F(KdtrainBf16, learns_as_f32_does_and_keeps_f32_master_weights) {
  image_recipe();
  images("a.bin", 200, 1);
  images("b.bin", 200, 2);
  images("t.bin", 100, 3);
  const std::vector<std::string> common = {"run",
                                           "images.toml",
                                           "seeds=1",
                                           "train.epochs=4",
                                           "teacher.train.epochs=3",
                                           "train.batch=20",
                                           "teacher.train.batch=20",
                                           "--device",
                                           "cpu",
                                           "--threads",
                                           "2"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> args = common;
    args.insert(args.end(), more.begin(), more.end());
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
  };
  with({"--out", "f32"});
  with({"train.precision=bf16", "teacher.precision=bf16", "--out", "bf16"});
  for (const char* arm : {"unguided", "kd_cl_inverse_sr"})
    EXPECT_NE(hash_file(path(std::string("f32/arms/") + arm + "/seed1/model.safetensors")),
              hash_file(path(std::string("bf16/arms/") + arm + "/seed1/model.safetensors")));
  // From the same weights the first epoch's losses differ by rounding alone; later the paths part.
  for (const char* arm : {"teacher", "unguided"}) {
    const std::vector<double> wide = first_losses("f32", arm), narrow = first_losses("bf16", arm);
    ASSERT_EQ(wide.size(), 3u);
    ASSERT_EQ(narrow.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(narrow[i] / wide[i], 1, 0.04) << arm << i;
  }
  for (const char* out : {"f32", "bf16"})
    EXPECT_GT(metric(out, "unguided", "test.accuracy"), 0.5) << out;  // ten classes
  EXPECT_EQ(dtypes("bf16/arms/unguided/seed1/model.safetensors"), std::set<DType>{DType::kF32});
}

TEST_F(KdtrainBf16, resumes_to_the_same_bytes) {
  const std::string recipe = image_recipe();
  const std::vector<std::string> args = {"run",      recipe, "train.precision=bf16",
                                         "--device", "cpu",  "--threads"};
  const auto with = [&](const char* threads, std::vector<std::string> more) {
    std::vector<std::string> all = args;
    all.push_back(threads);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Result whole = run(with("2", {"--out", "whole"}));
  ASSERT_EQ(whole.status, 0) << whole.err;
  const Result cut = interrupted(with("3", {"--out", "cut"}), 12, SIGINT);
  EXPECT_EQ(cut.status, 130) << cut.err;
  const Result rest = run(with("1", {"--out", "cut", "--resume"}));
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(content(folder_ / "cut"), content(folder_ / "whole"));
}

// The same program on the CUDA plug-in; here its kernels run in the emulator, so few and small.
TEST_F(KdtrainBf16, trains_and_resumes_on_the_emulated_device) {
  image_recipe();
  images("a.bin", 10, 1);
  images("b.bin", 10, 2);
  images("t.bin", 10, 3);
  const auto args = [&](const std::string& out) {
    return std::vector<std::string>{"run",
                                    "images.toml",
                                    "arms=kd_cl_inverse_sr",
                                    "seeds=1",
                                    "train.batch=4",
                                    "train.epochs=1",
                                    "train.log_steps=1",
                                    "train.checkpoint_steps=1",
                                    "teacher.train.batch=5",
                                    "train.precision=bf16",
                                    "teacher.precision=bf16",
                                    "--device",
                                    "cuda",
                                    "--out",
                                    out};
  };
  const Result whole = run(args("whole"));
  ASSERT_EQ(whole.status, 0) << whole.err;
  // Teacher: 2 steps; student: 3. Cut after the student's first line.
  const Result cut = interrupted(args("cut"), 5, SIGTERM);
  EXPECT_EQ(cut.status, 143) << cut.err;
  std::vector<std::string> again = args("cut");
  again.push_back("--resume");
  const Result rest = run(again);
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(content(folder_ / "cut"), content(folder_ / "whole"));
  // A host clock says nothing about launches, so no shares are claimed.
  EXPECT_THAT(read(folder_ / "whole/metrics.jsonl"), Not(HasSubstr("share_")));
}

}  // namespace
}  // namespace retort::tools
