// Who may score a curriculum beside the teacher: files, the student as it starts, other models.
#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

constexpr const char* kOrder = "train.order = \"curriculum\"\ncurriculum.stratify = false\n";

class KdtrainScorers : public KdtrainTable {
 protected:
  // The curricula of a run, whatever they are called.
  std::vector<std::string> curricula(const std::string& out) const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder_ / out / "curriculum"))
      all.push_back(fs::relative(entry.path(), folder_).string());
    return all;
  }

  // The scores of a curriculum file are the losses of what `eval --logits` wrote to logits.bin, the
  // smallest first.
  void expect_losses_of_logits(const std::string& file) const {
    const std::string bytes = read(folder_ / "logits.bin");
    ASSERT_EQ(bytes.size(), 40u * 3 * 4);
    std::vector<float> z(120);
    std::memcpy(z.data(), bytes.data(), bytes.size());
    const auto order = column(file, 1), label = column(file, 2), score = column(file, 3);
    ASSERT_EQ(order.size(), 40u);
    double before = -1;
    for (std::size_t rank = 0; rank < 40; ++rank) {
      const float* row = &z[3 * static_cast<std::size_t>(order[rank])];
      double sum = 0;
      for (int c = 0; c < 3; ++c) sum += std::exp(static_cast<double>(row[c]));
      const double loss =
          std::log(sum) - static_cast<double>(row[static_cast<std::size_t>(label[rank])]);
      EXPECT_NEAR(score[rank], loss, 1e-5) << rank;
      EXPECT_GE(loss, before - 1e-5) << rank;  // easiest first
      before = loss;
    }
  }
};

TEST_F(KdtrainScorers, a_file_feeds_what_score_wrote) {
  const std::string file = recipe(arm("a", kOrder));
  run_into("x", {file});
  const std::string teacher = "teacher.weights=" + weights("x", "teacher");
  const Result scored = run({"score", file, teacher, "--out", "scores.csv"});
  EXPECT_EQ(scored.status, 0) << scored.err;
  EXPECT_EQ(read(folder_ / "scores.csv"), read(folder_ / "x/curriculum/logit_unstratified.csv"));
  run_into("y", {file, teacher, "arm.a.curriculum.scorer=file",
                 "arm.a.curriculum.file=" + path("scores.csv")});
  EXPECT_EQ(values(weights("y", "a")), values(weights("x", "a")));
  ASSERT_EQ(curricula("y").size(), 1u);
  EXPECT_EQ(column(curricula("y")[0], 1), column("scores.csv", 1));

  // Scores alone, of the samples in their own order: sorted here.
  const auto order = column("scores.csv", 1);
  std::string scores = "index,score\n";
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto rank = std::find(order.begin(), order.end(), static_cast<double>(i));
    scores += std::to_string(i) + "," + std::to_string(order.end() - rank) + "\n";
  }
  write("own.csv", scores);
  run_into("z", {file, teacher, "arm.a.curriculum.scorer=file",
                 "arm.a.curriculum.file=" + path("own.csv")});
  ASSERT_EQ(curricula("z").size(), 1u);
  EXPECT_EQ(column(curricula("z")[0], 1), order);
}

// `score` has no student that starts, and one teacher.
TEST_F(KdtrainScorers, score_refuses_what_only_a_run_can_order) {
  const std::string file = recipe(arm("a", kOrder));
  run_into("x", {file});
  const std::string teacher = "teacher.weights=" + weights("x", "teacher");
  expect({"score", file, teacher, "curriculum.scorer=student", "--out", "s.csv"}, 2,
         "arm 'a' has one by its student or by another model");
  const std::string chain = recipe("[[model]]\nname = \"mid\"\n" +
                                   arm("a", kOrder + std::string("teachers = [\"mid\"]\n")));
  expect({"score", chain, teacher, "--out", "s.csv"}, 2, "by its student or by another model");
  const std::string tasks = recipe("[[task]]\nname = \"one\"\n" + arm("a", kOrder));
  expect({"score", tasks, teacher, "--out", "s.csv"}, 2, "expected a recipe without tasks");
  EXPECT_FALSE(fs::exists(path("s.csv")));
}

// The teacher is trained for it, and nobody who learns from other models.
TEST_F(KdtrainScorers, score_trains_the_teacher_of_a_chain) {
  const std::string file =
      recipe("[[model]]\nname = \"mid\"\n" + arm("a", kOrder) + arm("b", "teachers = [\"mid\"]"));
  run_into("x", {file});
  expect({"score", file, "--device", "cpu", "--out", "s.csv"}, 0, "40 samples");
  EXPECT_EQ(read(folder_ / "s.csv"), read(folder_ / "x/curriculum/logit_unstratified.csv"));
}

// What `score` advises can be done.
TEST_F(KdtrainScorers, score_says_what_helps) {
  const std::string file = recipe(arm("a", kOrder));
  const auto score = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"score", file, "--device", "cpu"});
    return run(more);
  };
  fs::create_directories(folder_ / "mine.csv.teacher");
  write("mine.csv.teacher/notes.txt", "not a run");
  Result r = score({"--out", "mine.csv"});
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, HasSubstr("remove that folder, or name another FILE"));
  EXPECT_THAT(r.err, Not(HasSubstr("--resume")));
  EXPECT_EQ(read(folder_ / "mine.csv.teacher/notes.txt"), "not a run");

  // A teacher that diverged is trained again with the rate that was advised.
  r = score({"--out", "s.csv", "teacher.train.lr=1000", "teacher.train.momentum=0.99"});
  EXPECT_EQ(r.status, 6) << r.err;
  EXPECT_THAT(r.err, HasSubstr("a smaller teacher.train.lr"));
  EXPECT_FALSE(fs::exists(folder_ / "s.csv"));
  r = score({"--out", "s.csv", "teacher.train.lr=0.01", "teacher.train.momentum=0.99"});
  EXPECT_EQ(r.status, 0) << r.err;
  // One that is there is not thrown away for another.
  r = score({"--out", "s.csv", "teacher.train.lr=0.02", "teacher.train.momentum=0.99"});
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, HasSubstr("teacher.train.lr was 0.01, is 0.02"));
  EXPECT_THAT(r.err, HasSubstr("remove that folder, or name another FILE"));

  // Before a teacher is trained for it.
  fs::create_directories(folder_ / "place");
  r = score({"--out", "place"});
  EXPECT_EQ(r.status, 4);
  EXPECT_THAT(r.err, HasSubstr("is a folder: expected the name of a file"));
  EXPECT_FALSE(fs::exists(folder_ / "place.teacher"));
  r = score({"--out", "nowhere/s.csv"});
  EXPECT_EQ(r.status, 4);
  EXPECT_FALSE(fs::exists(folder_ / "nowhere"));
}

TEST_F(KdtrainScorers, samples_without_a_score_are_refused_or_left_out) {
  std::string scores = "index,score\n";
  for (int i = 5; i < 40; ++i) scores += std::to_string(i) + "," + std::to_string(i) + "\n";
  write("some.csv", scores);
  const std::string file =
      recipe(arm("a", kOrder + ("distill.lambda = 0.0\ncurriculum.scorer = \"file\"\n"
                                "curriculum.file = \"" +
                                path("some.csv") + "\"")));
  const Result refused = run({"run", file, "--device", "cpu", "--out", "x"});
  EXPECT_NE(refused.status, 0);
  EXPECT_THAT(refused.err, HasSubstr("sample 0 cannot be scored"));
  EXPECT_FALSE(fs::exists(folder_ / "x")) << "told before anything is trained";
  run_into("y", {file, "arm.a.curriculum.nan=drop"});
  ASSERT_EQ(curricula("y").size(), 1u);
  std::vector<double> index = column(curricula("y")[0], 1);
  EXPECT_EQ(index.front(), 39);  // the largest score is the easiest
  std::sort(index.begin(), index.end());
  std::vector<double> all(35);
  std::iota(all.begin(), all.end(), 5);
  EXPECT_EQ(index, all);
}

TEST_F(KdtrainScorers, the_student_as_it_starts_sorts_by_its_own_loss) {
  const std::string file = recipe(
      arm("a", kOrder + std::string("curriculum.scorer = \"student\"\ncurriculum.score = \"loss\"\n"
                                    "distill.lambda = 0.0\ntrain.lr = 0.0")));
  run_into("x", {file});
  // At rate 0 the weights are still those of the start.
  const Result logits =
      run({"eval", "--model", weights("x", "a"), "--arch", "mlp", "student.hidden=[8]",
           "data.format=table", "data.root=data", "data.train_files=[\"train.csv\"]",
           "data.test_files=[\"test.csv\"]", "data.standardize=true", "--split", "train",
           "--logits", "logits.bin"});
  ASSERT_EQ(logits.status, 0) << logits.err;
  ASSERT_EQ(curricula("x").size(), 1u);
  expect_losses_of_logits(curricula("x")[0]);
}

// A peer is a [[model]] that nobody learns from; several models score by the mean of what they say.
TEST_F(KdtrainScorers, peers_and_ensembles_score) {
  const std::string loss = kOrder + std::string("curriculum.score = \"loss\"\n"),
                    models = loss + "distill.lambda = 0.0\ncurriculum.scorer = \"models\"\n";
  const std::string file =
      recipe("[[model]]\nname = \"peer\"\ndistill.lambda = 0.0\n" + arm("by_teacher", loss) +
             arm("by_peer", models + "curriculum.models = [\"peer\"]\n") +
             arm("by_both", models + "curriculum.models = [\"teacher\", \"peer\"]\n"));
  run_into("x", {file});
  const Result logits =
      run({"eval", "--model", weights("x", "peer"), "--arch", "mlp", "student.hidden=[8]",
           "data.format=table", "data.root=data", "data.train_files=[\"train.csv\"]",
           "data.test_files=[\"test.csv\"]", "data.standardize=true", "--split", "train",
           "--logits", "logits.bin"});
  ASSERT_EQ(logits.status, 0) << logits.err;
  const std::string by_teacher = "x/curriculum/loss_unstratified.csv",
                    by_peer = "x/curriculum/loss_of_peer_unstratified.csv",
                    by_both = "x/curriculum/loss_of_teacher_peer_unstratified.csv";
  EXPECT_THAT(curricula("x"), testing::UnorderedElementsAre(by_teacher, by_peer, by_both));
  expect_losses_of_logits(by_peer);
  const auto of_samples = [&](const std::string& csv) {
    const auto order = column(csv, 1), score = column(csv, 3);
    std::map<double, double> all;
    for (std::size_t rank = 0; rank < order.size(); ++rank) all[order[rank]] = score[rank];
    return all;
  };
  auto teacher = of_samples(by_teacher), peer = of_samples(by_peer);
  double before = -1;
  const auto order = column(by_both, 1), score = column(by_both, 3);
  ASSERT_EQ(order.size(), 40u);
  for (std::size_t rank = 0; rank < 40; ++rank) {
    EXPECT_NEAR(score[rank], (teacher.at(order[rank]) + peer.at(order[rank])) / 2, 1e-5);
    EXPECT_GE(score[rank], before - 1e-5);
    before = score[rank];
  }
  // Fed in that order: the samples of the first step of both arms differ.
  EXPECT_NE(logged("x", "by_peer", "loss"), logged("x", "by_both", "loss"));
}

TEST_F(KdtrainScorers, scorers_that_are_not_there_are_told) {
  const std::string peer = "[[model]]\nname = \"peer\"\ndistill.lambda = 0.0\n";
  const auto refused = [&](const std::string& keys, const char* what) {
    expect({"validate", recipe(peer + arm("a", kOrder + keys)), "--no-data"}, 2, what);
  };
  const std::string by = "curriculum.scorer = \"models\"\n";
  refused(by, "needs curriculum.models");
  refused(by + "curriculum.models = [\"per\"]", "there is no model 'per'");
  refused(by + "curriculum.models = [\"peer\", \"peer\"]", "named twice");
  refused("curriculum.models = [\"peer\"]", "is read with curriculum.scorer = \"models\" only");
  expect({"validate",
          recipe("[[model]]\nname = \"peer\"\n" + (kOrder + by) +
                 "curriculum.models = [\"teacher\"]\n" + arm("a", "teachers = [\"peer\"]")),
          "--no-data"},
         2, "is scored for by its teacher or by itself");
}

constexpr const char* kSnapshots =
    "curriculum.scorer = \"student\"\ncurriculum.score = \"loss\"\ndistill.lambda = 0.0\n"
    "curriculum.rescore_epochs = 1\n";

// Epoch by epoch by hand: the weights of an epoch go into a run of one epoch, fed in the order that
// the run with rescoring wrote.
TEST_F(KdtrainScorers, the_student_scores_again_after_each_epoch) {
  const std::string file = recipe(arm("a", kOrder + std::string(kSnapshots)));
  run_into("one", {file});
  const Result two = run_into("two", {file, "train.steps=8"});
  const std::string made = "two/curriculum/rescored/";
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder_ / made))
    files.push_back(entry.path().filename().string());
  ASSERT_EQ(files.size(), 1u) << "after 4 of 8 steps; behind the last nothing is fed";
  EXPECT_THAT(files[0], HasSubstr("_a_seed1_step4.csv"));
  EXPECT_NE(column(made + files[0], 1), column(curricula("one")[0], 1));
  EXPECT_EQ(logged("two", "a", "loss").size(), 8u);
  const Result logits =
      run({"eval", "--model", weights("one", "a"), "--arch", "mlp", "student.hidden=[8]",
           "data.format=table", "data.root=data", "data.train_files=[\"train.csv\"]",
           "data.test_files=[\"test.csv\"]", "data.standardize=true", "--split", "train",
           "--logits", "logits.bin"});
  ASSERT_EQ(logits.status, 0) << logits.err;
  expect_losses_of_logits(made + files[0]);

  run_into("by_hand", {file, "arm.a.curriculum.scorer=file", "arm.a.curriculum.rescore_epochs=0",
                       "arm.a.curriculum.name=own", "arm.a.student.weights=" + weights("one", "a"),
                       "arm.a.curriculum.file=" + path(made + files[0])});
  EXPECT_EQ(values(weights("by_hand", "a")), values(weights("two", "a")));
  EXPECT_NE(values(weights("one", "a")), values(weights("two", "a")));
}

// Killed before a new order is made, when it is due, and while it is fed; lambda hangs on it too.
TEST_F(KdtrainScorers, a_resumed_run_goes_on_in_the_order_of_its_checkpoint) {
  const std::string file =
      recipe(arm("a", kOrder + std::string(kSnapshots) + "distill.reliance.mode = \"minmax\"\n"));
  const std::vector<std::string> args{file, "train.steps=9", "train.checkpoint_steps=1",
                                      "train.checkpoint_keep=20"};
  run_into("whole", args);
  const std::string want = content(folder_ / "whole");
  EXPECT_FALSE(fs::exists(path("whole/arms/a/seed1/ckpt-00000004/curriculum.safetensors")));
  EXPECT_TRUE(fs::exists(path("whole/arms/a/seed1/ckpt-00000005/curriculum.safetensors")));
  for (const int step : {3, 4, 5, 8}) {
    const std::string out = "cut" + std::to_string(step);
    fs::copy(folder_ / "whole", folder_ / out, fs::copy_options::recursive);
    for (int later = step + 1; later <= 9; ++later)
      fs::remove_all(folder_ / out / ("arms/a/seed1/ckpt-0000000" + std::to_string(later)));
    std::vector<std::string> again = args;
    again.push_back("--resume");
    run_into(out, again);
    EXPECT_TRUE(content(folder_ / out) == want) << "behind step " << step;
  }
}

// Orders that a failed job made behind its last checkpoint stand in nobody's way.
TEST_F(KdtrainScorers, a_job_that_failed_behind_a_rescoring_is_tried_again) {
  const std::string file =
      recipe(arm("a", kOrder + std::string(kSnapshots) + "student.hidden = [8, 8, 8, 8, 8]\n"));
  const std::vector<std::string> args{file, "train.steps=24", "train.checkpoint_epochs=0",
                                      "train.evaluate_steps=24"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"run"};
    all.insert(all.end(), args.begin(), args.end());
    all.insert(all.end(), more.begin(), more.end());
    all.insert(all.end(), {"--device", "cpu", "--out", "x"});
    return run(all);
  };
  const Result failed = with({"train.lr=100"});
  ASSERT_EQ(failed.status, 6) << failed.err;
  ASSERT_TRUE(fs::exists(folder_ / "x/curriculum/rescored"))
      << "it failed too early: " << failed.err;
  const Result again = with({"train.lr=0.1", "--resume", "--retry-failed"});
  EXPECT_EQ(again.status, 0) << again.err;
}

TEST_F(KdtrainScorers, rescoring_that_nobody_does_is_told) {
  const std::string file = recipe(arm("a", kOrder + std::string("curriculum.rescore_epochs = 2")));
  expect({"validate", file}, 2, "curriculum.rescore_epochs: is read with");
}

TEST_F(KdtrainScorers, competence_starts_with_the_easiest_and_goes_on_to_all) {
  const std::string keys = kOrder + std::string("distill.reliance.mode = \"minmax\"\n");
  run_into("x",
           {recipe(arm("all", keys) + arm("paced", keys + "curriculum.pacing = \"competence\"\n"
                                                          "curriculum.start = 0.25\n"
                                                          "curriculum.full_at = 0.75"))});
  // A quarter of 40 is one batch: the easiest ten, as in the first batch of the whole order.
  const auto all = logged("x", "all", "lambda"), paced = logged("x", "paced", "lambda");
  ASSERT_EQ(paced.size(), 4u);
  EXPECT_NEAR(paced[0], all[0], 1e-6);
  EXPECT_GT(std::abs(paced[3] - paced[0]), 1e-3);
}

}  // namespace
}  // namespace retort::tools
