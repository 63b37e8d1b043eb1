// Jobs of a run stand for themselves: what one of them meets is not the others' loss. And what they
// leave in their folders is known by its content.
#include "tests/tools/kdtrain_fixture.h"

#include "engine/io/file.h"
#include "engine/io/manifest.h"

namespace retort::tools {
namespace {

class Jobs : public Kdtrain {
 protected:
  // Three arms; the second diverges within its first steps.
  std::vector<std::string> three_arms(const std::string& out) const {
    const std::string recipe = write("three.toml", R"(
name = "three"
data = { format = "parity", bits = 12, support = 3, test_size = 100 }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 40, batch = 16, lr = 0.2 }
[student]
arch = "mlp"
hidden = [8]
[train]
steps = 120
batch = 16
lr = 0.05
evaluate_steps = 60
log_steps = 10
checkpoint_steps = 30
[[arm]]
name = "first"
[[arm]]
name = "broken"
train = { lr = 1000.0, momentum = 0.99 }
distill.lambda = 0.0
[[arm]]
name = "last"
)");
    return {"run", recipe, "--device", "cpu", "--threads", "1", "--out", out};
  }
  static std::vector<std::string> with(std::vector<std::string> args,
                                       const std::vector<std::string>& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  std::vector<Json> arms(const std::string& out) const {
    const Json results = Json::parse(read(folder_ / out / "results.json"), "results.json");
    return results.at("arms").items();
  }
};

TEST_F(Jobs, one_that_diverges_does_not_stop_the_others) {
  const Result r = run(three_arms("x"));
  EXPECT_EQ(r.status, 6) << r.err;
  EXPECT_THAT(r.err, HasSubstr("1 of 4 jobs failed"));
  EXPECT_THAT(r.err, HasSubstr("broken/1: the loss is "));
  EXPECT_THAT(r.err, HasSubstr("--resume --retry-failed"));
  EXPECT_THAT(r.out, HasSubstr("0 (1 failed)"));
  EXPECT_THAT(r.out, HasSubstr("failed: broken, seed 1, step "));
  EXPECT_THAT(read(folder_ / "x/report.html"), HasSubstr("the loss is "));
  for (const Json& arm : arms("x")) {
    const bool broken = arm.at("name").as_string() == "broken";
    EXPECT_EQ(arm.at("finished").as_bool(), !broken);
    EXPECT_EQ(arm.at("failed").items().size(), broken ? 1u : 0u);
  }

  // Nothing is missing: the failure stands, and nothing is trained again.
  const std::string before = content(folder_ / "x");
  const Result again = run(with(three_arms("x"), {"--resume"}));
  EXPECT_EQ(again.status, 6);
  EXPECT_EQ(content(folder_ / "x"), before);
  EXPECT_THAT(again.err, Not(HasSubstr("samples/s")));

  // What is missing runs, what failed does not.
  fs::remove_all(folder_ / "x/arms/last");
  EXPECT_EQ(run(with(three_arms("x"), {"--resume"})).status, 6);
  EXPECT_EQ(content(folder_ / "x"), before);
}

TEST_F(Jobs, a_failed_one_is_tried_again_with_another_rate) {
  ASSERT_EQ(run(three_arms("x")).status, 6);
  expect(with(three_arms("x"), {"arm.broken.train.lr=0.05", "--resume"}), 2,
         "arm.broken.train.lr was 1000.0, is 0.05");
  const Result r =
      run(with(three_arms("x"), {"arm.broken.train.lr=0.05", "--resume", "--retry-failed"}));
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("changed since the last sitting: arm.broken.train.lr was 1000.0"));
  for (const Json& arm : arms("x"))
    EXPECT_TRUE(arm.at("finished").as_bool() && arm.at("failed").items().empty());
  // Once it is there, the changed rate is the run's.
  EXPECT_EQ(run(with(three_arms("x"), {"arm.broken.train.lr=0.05", "--resume"})).status, 0);
}

// The saved recipe says what a job was trained by: another rate is refused for what is done, and for
// who was stopped in the middle.
TEST_F(Jobs, another_rate_is_for_what_failed_alone) {
  ASSERT_EQ(run(three_arms("x")).status, 6);
  const std::vector<std::string> again{"arm.broken.train.lr=0.05", "--resume", "--retry-failed"};
  expect(with(with(three_arms("x"), again), {"train.lr=0.04"}), 2,
         "arm.first.train.lr was 0.05, is 0.04, and first/1 has not failed: give it to who has");
  for (const char* late : {"model.safetensors", "files.json", "ckpt-00000120"})
    ASSERT_GT(fs::remove_all(folder_ / "x/arms/last/seed1" / late),
              0u);  // as if it had been stopped
  expect(with(with(three_arms("x"), again), {"arm.last.train.lr=0.04"}), 2,
         "last/1 did not fail: it would go on with another");
  EXPECT_EQ(run(with(three_arms("x"), again)).status, 0);
}

// Of several seeds, those that failed take it, and the others stay.
TEST_F(Jobs, a_rate_for_some_seeds_is_told) {
  const std::vector<std::string> two = with(three_arms("x"), {"seeds=1,2", "arms=last"});
  ASSERT_EQ(run(two).status, 0);
  const fs::path arm = folder_ / "x/arms/last";
  const std::string first = read(arm / "seed1/model.safetensors");
  const std::uint64_t lines = read(arm / "seed2/lines.jsonl").size();
  for (const char* late : {"model.safetensors", "files.json", "ckpt-00000120"})
    ASSERT_GT(fs::remove_all(arm / "seed2" / late), 0u);
  write("x/arms/last/seed2/failed.json",
        "{\"step\":99,\"reason\":\"the loss is NaN\",\"data\":\"\",\"lines\":" +
            FileMark{lines, hash_bytes(read(arm / "seed2/lines.jsonl"))}.json().dump() + "}");
  const Result r = run(with(two, {"arm.last.train.lr=0.01", "--resume", "--retry-failed"}));
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err,
              HasSubstr("arm.last.train.lr was 0.05, is 0.01: last/2 with it, last/1 as before"));
  EXPECT_EQ(read(arm / "seed1/model.safetensors"), first);
  const std::string second = read(arm / "seed2/lines.jsonl");
  EXPECT_THAT(second.substr(second.size() / 2), HasSubstr("\"lr\":0.01"));
}

TEST_F(Jobs, who_needs_a_failed_teacher_fails_with_it) {
  const std::vector<std::string> args =
      with(three_arms("x"), {"teacher.train.lr=1000", "arm.broken.train.lr=0.05"});
  const Result r = run(args);
  EXPECT_EQ(r.status, 6) << r.err;
  EXPECT_THAT(r.err, HasSubstr("3 of 4 jobs failed"));
  EXPECT_THAT(r.err, HasSubstr("last/1: its teacher teacher/1 failed"));
  for (const Json& arm : arms("x"))  // broken learns from nobody
    EXPECT_EQ(arm.at("finished").as_bool(), arm.at("name").as_string() == "broken");
  EXPECT_EQ(run(with(args, {"--resume"})).status, 6);
}

// Lines stand in one file of the job, and a checkpoint only says how far it went.
TEST_F(Jobs, checkpoints_do_not_grow_with_the_log) {
  ASSERT_EQ(run(with(three_arms("x"), {"arms=first", "train.steps=2000", "train.log_steps=1",
                                       "train.checkpoint_steps=500", "train.checkpoint_keep=10"}))
                .status,
            0);
  const fs::path job = folder_ / "x/arms/first/seed1";
  EXPECT_GT(fs::file_size(job / "lines.jsonl"), 200'000u);
  EXPECT_LT(fs::file_size(job / "ckpt-00002000/state.json"), 2000u);
  EXPECT_LT(fs::file_size(job / "ckpt-00002000/state.json"),
            fs::file_size(job / "ckpt-00000500/state.json") + 500);
  EXPECT_THAT(read(folder_ / "x/metrics.jsonl"), HasSubstr(read(job / "lines.jsonl")));
}

TEST_F(Jobs, weights_that_are_lost_or_damaged_come_back_from_the_checkpoint) {
  const std::vector<std::string> args = with(three_arms("x"), {"arms=first,last"});
  ASSERT_EQ(run(args).status, 0);
  const std::string before = content(folder_ / "x");
  fs::remove(folder_ / "x/arms/first/seed1/model.safetensors");
  for (const char* arm : {"last", "teacher"}) {
    const std::string file = path(std::string("x/arms/") + arm + "/seed1/model.safetensors");
    std::string bytes = read(file);
    bytes[bytes.size() - 3] ^= 1;
    std::ofstream(file, std::ios::binary) << bytes;
  }
  EXPECT_NE(content(folder_ / "x"), before);
  EXPECT_EQ(run(with(args, {"--resume"})).status, 0);
  EXPECT_EQ(content(folder_ / "x"), before);
}

TEST_F(Jobs, a_damaged_moment_of_the_teacher_is_refused_by_name) {
  const std::vector<std::string> args = {"run",
                                         parity_recipe(),
                                         "seeds=1",
                                         "teacher.seeds=1",
                                         "arms=progressive",
                                         "--device",
                                         "cpu",
                                         "--threads",
                                         "1",
                                         "--out",
                                         "x"};
  ASSERT_EQ(run(args).status, 0);
  fs::path moment;
  for (const auto& entry : fs::directory_iterator(folder_ / "x/arms/teacher/seed1"))
    if (entry.path().filename().string().starts_with("above_")) moment = entry.path();
  ASSERT_FALSE(moment.empty());
  const std::string whole = read(moment);
  std::string bytes = whole;
  bytes[bytes.size() - 3] ^= 1;
  const auto expect_refused = [&](const std::string& what) {
    const Result r = run(with(args, {"--resume"}));
    EXPECT_EQ(r.status, 3) << r.err;
    EXPECT_THAT(r.err, HasSubstr(what));
    EXPECT_THAT(r.err, Not(HasSubstr("distill.progressive.accuracies")))
        << "no fault of the recipe";
  };
  const auto hold = [&](const std::string& text) {
    std::ofstream(moment, std::ios::binary) << text;
  };
  hold(bytes);
  expect_refused("has another content than was written");
  hold("short");
  expect_refused("error[RT0317]");
  fs::remove(moment);
  expect_refused("is missing; to train it again, remove x/arms/teacher/seed1");
  hold(whole);
  const fs::path list = moment.parent_path() / "files.json";
  fs::resize_file(list, 5);
  expect_refused("the list of files is damaged; bring it back from a copy, or remove it");
  fs::remove(list);  // as it says
  expect_refused("is not in files.json; to train it again, remove x/arms/teacher/seed1");
  fs::remove_all(moment.parent_path());  // as it says
  EXPECT_EQ(run(with(args, {"--resume"})).status, 0);
  EXPECT_EQ(read(moment), whole);
}

TEST_F(Jobs, a_list_of_files_may_be_removed_where_all_that_it_names_can_be_made_again) {
  const std::vector<std::string> args = with(three_arms("x"), {"arms=first"});
  ASSERT_EQ(run(args).status, 0);
  const std::string before = content(folder_ / "x");
  for (const char* job : {"teacher", "first"}) {
    const std::string list = path(std::string("x/arms/") + job + "/seed1/files.json");
    fs::resize_file(list, 5);
    expect(with(args, {"--resume"}), 3, "error[RT0316]");
    fs::remove(list);
    EXPECT_EQ(run(with(args, {"--resume"})).status, 0);
    EXPECT_EQ(content(folder_ / "x"), before);
  }
}

TEST_F(Jobs, a_damaged_checkpoint_that_is_passed_over_is_told) {
  const std::vector<std::string> args = with(three_arms("x"), {"arms=first"});
  ASSERT_EQ(run(args).status, 0);
  const std::string before = content(folder_ / "x");
  const std::string file = path("x/arms/first/seed1/ckpt-00000120/model.safetensors");
  std::string bytes = read(file);
  bytes[bytes.size() - 3] ^= 1;
  std::ofstream(file, std::ios::binary) << bytes;
  const Result r = run(with(args, {"--resume"}));
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("first/1 goes on from step 90: "));
  EXPECT_THAT(r.err, HasSubstr("ckpt-00000120: model.safetensors: tensor '"));
  EXPECT_EQ(content(folder_ / "x"), before);
}

}  // namespace
}  // namespace retort::tools
