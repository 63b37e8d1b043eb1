// Results do not depend on how work is cut: samples made ready at once, what is kept of a teacher's
// answers, threads. Through `run`, `score` and `eval`, with several passes over every set.
#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainCuts : public KdtrainTable {
 protected:
  // A run as the recipe says, then with other cuts.
  void expect_no_cut_matters(const std::vector<std::string>& args) const {
    run_into("whole", args);
    const std::string want = content(folder_ / "whole");
    const std::vector<std::string> cuts[] = {
        {"train.evaluate_batch=1", "teacher.cache=off", "--threads", "1"},
        {"train.evaluate_batch=7", "teacher.cache=on", "--threads", "2"},
        {"train.evaluate_batch=64", "teacher.cache_mib=1", "train.jobs=1", "--threads", "2"}};
    int k = 0;
    for (const auto& cut : cuts) {
      std::vector<std::string> all = args;
      all.insert(all.end(), cut.begin(), cut.end());
      const std::string out = "cut" + std::to_string(++k);
      run_into(out, all);
      EXPECT_EQ(content(folder_ / out), want) << cut[0];
    }
  }
  // What `eval` says of a student: the same at any batch, and what its run logged.
  void expect_eval(const std::string& arm, const std::string& arch,
                   const std::vector<std::string>& data) const {
    const std::vector<Json> logged = lines_of("whole", arm, "test");
    ASSERT_FALSE(logged.empty());
    std::string first;
    for (const char* batch : {"1", "7", "64", "500"})
      for (const char* threads : {"1", "2"}) {
        std::vector<std::string> args{
            "eval",     "--model", weights("whole", arm),
            "--arch",   arch,      std::string("train.evaluate_batch=") + batch,
            "--device", "cpu",     "--threads",
            threads};
        args.insert(args.end(), data.begin(), data.end());
        const Result r = run(args);
        ASSERT_EQ(r.status, 0) << r.err;
        if (first.empty()) first = r.out;
        EXPECT_EQ(r.out, first) << batch << " " << threads;
      }
    const Json found = Json::parse(first, "eval");
    for (const char* key : {"loss", "accuracy", "perplexity", "calibration_error"})
      if (logged.back().find(key) != nullptr) {
        EXPECT_EQ(found.at(key).as_number(), logged.back().at(key).as_number())
            << arm << " " << key;
      }
  }
};

TEST_F(KdtrainCuts, of_tables) {
  recipe(arm("kd") + arm("sr", "train.order = \"curriculum\"\ndistill.reliance.mode = \"minmax\"") +
         arm("narrow", "train.precision = \"bf16\""));
  table("test.csv", 1300, 2);
  table("train.csv", 600, 1);
  expect_no_cut_matters({"table.toml", "teacher.precision=bf16"});
  for (const char* one : {"kd", "narrow"})
    expect_eval(one, "mlp",
                {"data.format=table", "data.root=data", "data.train_files=train.csv",
                 "data.test_files=test.csv", "data.standardize=true", "student.hidden=[8]"});
}

TEST_F(KdtrainCuts, of_images) {
  image_recipe();
  images("a.bin", 90, 1);
  images("t.bin", 150, 3);
  for (const char* precision : {"f32", "bf16"}) {
    fs::remove_all(folder_ / "whole");
    for (const char* out : {"cut1", "cut2", "cut3"}) fs::remove_all(folder_ / out);
    expect_no_cut_matters({"images.toml", "seeds=1", "train.epochs=1",
                           std::string("train.precision=") + precision,
                           std::string("teacher.precision=") + precision});
    expect_eval("kd_cl_inverse_sr", "resnet8",
                {"data.format=cifar10", "data.root=data", "data.test_files=t.bin"});
  }
}

}  // namespace
}  // namespace retort::tools
