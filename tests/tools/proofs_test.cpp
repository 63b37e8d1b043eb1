// What recipes may ask of a training, each against what it has to come to.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainProofs : public KdtrainTable {};

TEST_F(KdtrainProofs, a_table_is_learned_and_a_bad_cell_told) {
  const std::string file = recipe(arm("a", "distill.lambda = 0.0\ntrain.steps = 200"));
  run_into("x", {file, "train.evaluate_steps=200"});
  EXPECT_GT(logged("x", "a", "accuracy", "test").back(), 0.9);
  write("data/test.csv", "a,b,c,d,label\n1,2,3,4,0\n1,2,three,4,0\n");
  expect({"run", file, "--device", "cpu", "--out", "y"}, 3,
         "test.csv:3: column 3 (c): expected a finite number, got 'three'");
  EXPECT_FALSE(fs::exists(path("y")));
}

TEST_F(KdtrainProofs, micro_batches_add_up_to_the_batch) {
  const std::string file = recipe(arm("whole") + arm("three", "train.micro_batch = 3") +
                                  arm("one", "train.micro_batch = 1"));
  run_into("x", {file});
  const auto loss = logged("x", "whole", "loss");
  const auto whole = values(weights("x", "whole"));
  ASSERT_EQ(loss.size(), 4u);
  for (const char* split : {"three", "one"}) {
    const auto other = logged("x", split, "loss");
    ASSERT_EQ(other.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(other[i], loss[i], 1e-6) << split;
    const double apart = distance(values(weights("x", split)), whole);
    EXPECT_LT(apart, 1e-5) << split;
    EXPECT_GT(apart, 0) << split;  // summed in another order: it did pass in parts
  }
  expect(
      {"run", file, "arm.three.train.micro_batch=5", "--device", "cpu", "--out", "x", "--resume"},
      2, "train.micro_batch was 3, is 5");
}

TEST_F(KdtrainProofs, logits_in_parts_give_the_loss_of_the_whole) {
  // 32 bytes hold the logits of student and teacher for two rows, or one.
  const std::string little = "distill.logits_memory = 3e-5";
  run_into("x", {recipe(arm("whole") + arm("parts", little) +
                        arm("twice", little + "\ndistill.recompute_logits = true"))});
  const auto loss = logged("x", "whole", "loss"), accuracy = logged("x", "whole", "accuracy");
  const auto whole = values(weights("x", "whole"));
  for (const char* name : {"parts", "twice"}) {
    const auto other = logged("x", name, "loss");
    ASSERT_EQ(other.size(), loss.size());
    for (std::size_t i = 0; i < loss.size(); ++i) EXPECT_NEAR(other[i], loss[i], 1e-6) << name;
    EXPECT_EQ(logged("x", name, "accuracy"), accuracy);
    const double apart = distance(values(weights("x", name)), whole);
    EXPECT_LT(apart, 1e-5) << name;
    EXPECT_GT(apart, 0) << name;  // summed in another order: it did pass in parts
  }
}

TEST_F(KdtrainProofs, the_parameter_reaches_the_divergence) {
  const std::string skew = "distill.divergence = \"skew_kl\"\n";
  run_into("x", {recipe(arm("kl") + arm("none", skew + "distill.parameter = 0.0") +
                        arm("usual", skew) + arm("tenth", skew + "distill.parameter = 0.1") +
                        arm("half", skew + "distill.parameter = 0.5"))});
  const auto kd = [&](const char* name) { return logged("x", name, "loss_kd").at(0); };
  EXPECT_NEAR(kd("none"), kd("kl"), 1e-6);  // KL(t || 0 t + s)
  EXPECT_EQ(kd("usual"), kd("tenth"));
  EXPECT_LT(kd("half"), kd("tenth"));  // nearer to the teacher itself
  EXPECT_LT(kd("tenth"), kd("kl") - 1e-4);
}

TEST_F(KdtrainProofs, a_student_starts_from_the_teachers_layers) {
  const std::string still = "student.hidden = [16]\ntrain.lr = 0.0\n";
  run_into("x", {recipe(arm("all", still + "student.init = \"teacher\"") +
                        arm("first", still + "student.init = \"teacher\"\n"
                                             "student.init_layers = [\"fc1.=fc1.\"]") +
                        arm("seed", still))});
  EXPECT_EQ(values(weights("x", "all")), values(weights("x", "teacher")));
  EXPECT_EQ(logged("x", "all", "accuracy", "test").back(),
            logged("x", "teacher", "accuracy", "test").back());
  EXPECT_EQ(values(weights("x", "first"), "fc1."), values(weights("x", "teacher"), "fc1."));
  EXPECT_EQ(values(weights("x", "first"), "fc2."), values(weights("x", "seed"), "fc2."));
  EXPECT_NE(values(weights("x", "seed"), "fc1."), values(weights("x", "teacher"), "fc1."));
}

// The teacher has 16 units; that the student's layers are others is told before it is trained.
TEST_F(KdtrainProofs, layers_to_start_from_are_compared_before_anything_is_trained) {
  const std::string narrow = recipe(arm("a", "student.init = \"teacher\"\nstudent.hidden = [8]"));
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"validate", narrow},
        {"plan", narrow, "--device", "cpu"},
        {"run", narrow, "--device", "cpu", "--out", "narrow"}})
    expect(command, 2, "student.init: [copy_layers] the student's 'fc1.weight' is (8, ");
  EXPECT_FALSE(fs::exists(folder_ / "narrow/arms"));
}

TEST_F(KdtrainProofs, the_teachers_share_ends_at_the_cutoff) {
  run_into("x", {recipe(arm("a", "distill.cutoff = 0.5") + arm("b"))});
  EXPECT_EQ(logged("x", "a", "lambda"), (std::vector<double>{0.5, 0.5, 0, 0}));
  EXPECT_EQ(logged("x", "b", "lambda"), (std::vector<double>{0.5, 0.5, 0.5, 0.5}));
  const auto lines = lines_of("x", "a");
  for (std::size_t i = 0; i < 4; ++i) {
    const bool taught = i < 2;
    EXPECT_EQ(lines[i].find("loss_kd") != nullptr, taught) << i;
    EXPECT_EQ(lines[i].find("teacher_accuracy") != nullptr, taught) << i;
    const double labels = lines[i].at("loss_ce").as_number();
    if (!taught) {
      EXPECT_NEAR(lines[i].at("loss").as_number(), labels, 1e-6);
    }
  }
}

TEST_F(KdtrainProofs, terms_are_logged_by_name_and_add_up) {
  run_into("x",
           {recipe(arm("a", "distill.hidden_mse.weight = 0.5\ndistill.cosine.weight = 0.25") +
                   arm("zero", "distill.hidden_mse.weight = 0.0\ndistill.cosine.weight = 0.0") +
                   arm("plain"))});
  for (const Json& line : lines_of("x", "a")) {
    const auto of = [&](const char* key) { return line.at(key).as_number(); };
    EXPECT_GT(of("loss_hidden"), 0);
    EXPECT_GT(of("loss_cos"), 0);
    EXPECT_NEAR(
        of("loss"),
        0.5 * of("loss_ce") + 0.5 * of("loss_kd") + 0.5 * of("loss_hidden") + 0.25 * of("loss_cos"),
        2e-6);
  }
  EXPECT_EQ(hash_file(weights("x", "zero")).size(), 32u);
  EXPECT_EQ(values(weights("x", "zero")), values(weights("x", "plain")));
  EXPECT_NE(values(weights("x", "a")), values(weights("x", "plain")));
}

TEST_F(KdtrainProofs, a_term_asks_the_teacher_without_the_divergence) {
  const std::string labels = "distill.lambda = 0.0\n";
  run_into("x",
           {recipe(arm("plain", labels) + arm("hint", labels + "distill.hidden_mse.weight = 1.0") +
                   arm("cos", labels + "distill.cosine.weight = 1.0"))});
  EXPECT_GT(logged("x", "hint", "loss_hidden").at(0), 0);
  EXPECT_GT(logged("x", "cos", "loss_cos").at(0), 0);
  for (const char* name : {"hint", "cos"})
    EXPECT_NE(values(weights("x", name)), values(weights("x", "plain"))) << name;
}

TEST_F(KdtrainProofs, clipping_bounds_an_arms_step) {
  const std::string one = "train.steps = 1\n";
  run_into("x", {recipe(arm("still", one + "train.lr = 0.0") + arm("free", one) +
                        arm("clipped", one + "train.clip_norm = 0.01"))});
  const auto start = values(weights("x", "still"));
  EXPECT_GT(distance(values(weights("x", "free")), start), 0.005);
  EXPECT_NEAR(distance(values(weights("x", "clipped")), start), 0.1 * 0.01, 1e-7);
}

TEST_F(KdtrainProofs, a_rule_of_any_metric_stops_an_arm) {
  const std::string keys = "train.steps = 60\ntrain.evaluate_steps = 4\n";
  run_into("x", {recipe(arm("stops", keys + "train.stop_at = \"loss <= 0.6\"") + arm("goes", keys) +
                        arm("never", keys + "train.stop_at = \"loss <= 0.0\""))});
  const auto losses = logged("x", "goes", "loss", "test");
  const auto first = std::find_if(losses.begin(), losses.end(), [](double l) { return l <= 0.6; });
  ASSERT_TRUE(first != losses.begin() && first != losses.end());
  const double step = 4 * static_cast<double>(first - losses.begin() + 1);
  EXPECT_EQ(logged("x", "stops", "step", "final"), std::vector<double>{step});
  EXPECT_EQ(logged("x", "stops", "steps_to_loss_0.6", "final"), std::vector<double>{step});
  EXPECT_EQ(logged("x", "never", "steps_to_loss_0", "final"), std::vector<double>{60});
}

TEST_F(KdtrainProofs, snapshots_of_the_teacher_by_its_steps) {
  const std::string file =
      recipe(arm("a",
                 "distill.method = \"progressive\"\ndistill.progressive.steps = 1\n"
                 "distill.progressive.teacher_steps = [10, 20]"));
  run_into("x", {file});
  run_into("early", {file, "teacher.train.steps=20", "arm.a.distill.method=one_shot"});
  const std::string kept = path("x/arms/teacher/seed1/");
  EXPECT_EQ(values(kept + "step_20.safetensors"), values(weights("early", "teacher")));
  EXPECT_NE(values(kept + "step_10.safetensors"), values(kept + "step_20.safetensors"));
  // Its share of the loss comes from another teacher in each stage.
  EXPECT_NE(logged("x", "a", "loss_kd").at(0), logged("early", "a", "loss_kd").at(0));
  expect({"run", file, "teacher.train.steps=19", "--device", "cpu", "--out", "late"}, 2,
         "table.toml:24:21: arm 'a': distill.progressive.teacher_steps = 20 is behind the last of "
         "the 19 steps");
  EXPECT_FALSE(fs::exists(path("late")));
}

TEST_F(KdtrainProofs, a_sample_is_drawn_the_same_for_all_arms) {
  const std::string order = "train.order = \"curriculum\"\ncurriculum.stratify = false\n";
  const std::string file = recipe(
      arm("a", order) + arm("b", order + "curriculum.name = \"again\"\ndistill.lambda = 0.1"));
  run_into("x", {file, "data.train_sample=20", "seeds=[1,2]"});
  run_into("all", {file});
  const auto labels_in_order = [&](const std::string& csv) {
    const auto index = column(csv, 1), label = column(csv, 2);
    std::vector<double> labels(index.size());
    for (std::size_t i = 0; i < index.size(); ++i)
      labels.at(static_cast<std::size_t>(index[i])) = label[i];
    return labels;
  };
  const auto some = labels_in_order("x/curriculum/logit_unstratified.csv");
  const auto all = labels_in_order("all/curriculum/logit_unstratified.csv");
  ASSERT_EQ(some.size(), 20u);
  ASSERT_EQ(all.size(), 40u);
  EXPECT_EQ(labels_in_order("x/curriculum/again.csv"), some);
  EXPECT_FALSE(std::equal(some.begin(), some.end(), all.begin()));  // not the first 20
  EXPECT_EQ(logged("x", "a", "epoch").back(), 2);                   // two batches each
  expect({"run", file, "data.train_sample=41", "--device", "cpu", "--out", "y"}, 2,
         "data.train_sample = 41 of 40 training samples");
}

TEST_F(KdtrainProofs, prefetching_changes_no_byte) {
  const std::string file = recipe(arm("a") + arm("b", "train.order = \"curriculum\""));
  run_into("x", {file});
  run_into("y", {file, "train.prefetch=true"});
  EXPECT_EQ(content(folder_ / "x"), content(folder_ / "y"));
}

}  // namespace
}  // namespace retort::tools
