// [[task]]: each model goes through all tasks, on with the weights of the one before.
#include <algorithm>
#include <set>

#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainTasks : public KdtrainTable {
 protected:
  std::string tasks() const {
    table("other.csv", 50, 3);
    return recipe(R"(
[[task]]
name = "pretrain"
[[task]]
name = "finetune"
data.train_files = ["other.csv"]
)" + arm("a", "distill.lambda = 0.0") +
                  arm("b"));
  }
  std::string in_task(const std::string& out, const std::string& arm,
                      const std::string& task) const {
    return path(out + "/arms/" + arm + "/seed1/" + task + "/model.safetensors");
  }
};

TEST_F(KdtrainTasks, weights_go_on_to_other_data) {
  const std::string file = tasks();
  run_into("x", {file, "task.finetune.train.lr=0.0"});
  for (const char* name : {"a", "b"})
    EXPECT_EQ(values(in_task("x", name, "finetune")), values(in_task("x", name, "pretrain")));
  expect({"run", file, "task.finetune.train.lr=0.1", "--device", "cpu", "--out", "x", "--resume"},
         2, "task.finetune.train.lr was 0.0, is 0.1");
  run_into("y", {file});
  for (const char* name : {"a", "b"})
    EXPECT_NE(values(in_task("y", name, "finetune")), values(in_task("y", name, "pretrain")));
  EXPECT_FALSE(fs::exists(path("y/arms/teacher/seed1/finetune")));  // it was trained once
  // Every line says its task; 40 samples are 4 steps of an epoch, 50 are 5.
  std::vector<std::string> order;
  for (const Json& line : lines_of("y", "a")) order.push_back(line.at("task").as_string());
  EXPECT_EQ(order, (std::vector<std::string>{"pretrain", "pretrain", "pretrain", "pretrain",
                                             "finetune", "finetune", "finetune", "finetune"}));
  EXPECT_EQ(logged("y", "a", "epoch"), (std::vector<double>{.25, .5, .75, 1, .2, .4, .6, .8}));
  // The report keeps them apart: one seed is one run.
  const Json results = Json::parse(read(folder_ / "y/results.json"), "results.json");
  for (const Json& arm : results.at("arms").items())
    EXPECT_EQ(arm.at("n").as_integer(), 1) << arm.at("name").as_string();
}

TEST_F(KdtrainTasks, plan_names_each_task) {
  const Result r = run({"plan", tasks(), "--device", "cpu"});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("pretrain: training teachers"));
  EXPECT_THAT(r.out, HasSubstr("finetune: students"));
  EXPECT_THAT(r.out, Not(HasSubstr("finetune: training teachers")));
}

TEST_F(KdtrainTasks, go_on_after_a_signal) {
  const std::string file = tasks();
  const auto args = [&](const std::string& out, bool resume = false) {
    std::vector<std::string> all{"run", file, "train.steps=60", "train.checkpoint_steps=7",
                                 "task.finetune.teacher.train.continues=true"};
    all.insert(all.end(), {"--device", "cpu"});
    if (resume) all.push_back("--resume");
    all.insert(all.end(), {"--out", out});
    return all;
  };
  const Result whole = run(args("x"));
  ASSERT_EQ(whole.status, 0) << whole.err;
  const std::size_t log = lines(folder_ / "x" / "metrics.jsonl");
  for (const std::size_t after : {log / 3, 3 * log / 4}) {
    EXPECT_EQ(interrupted(args("y"), after, SIGTERM).status, 143);
    const Result resumed = run(args("y", true));
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    EXPECT_EQ(content(folder_ / "y"), content(folder_ / "x")) << after << " of " << log;
  }
}

TEST_F(KdtrainTasks, what_a_later_task_cannot_have_is_a_mistake) {
  const std::string file = tasks();
  const auto refused = [&](const std::string& set, const std::string& why) {
    expect({"run", file, set, "--device", "cpu", "--out", "x"}, 2, why);
  };
  refused("task.finetune.student.weights=other.safetensors", "a task after the first goes on with");
  refused("task.finetune.student.init=teacher", "a task after the first goes on with");
}

// The first task trains what any later one needs.
TEST_F(KdtrainTasks, a_teacher_that_only_a_later_task_needs_is_trained_in_the_first) {
  const std::string file = tasks();
  const std::string alone = "task.pretrain.distill.lambda=0.0";
  run_into("x", {file});
  run_into("y", {file, alone});
  EXPECT_EQ(values(in_task("y", "teacher", "pretrain")),
            values(in_task("x", "teacher", "pretrain")));
  EXPECT_FALSE(fs::exists(path("y/arms/teacher/seed1/finetune")));
  for (const Json& line : lines_of("y", "b"))
    EXPECT_EQ(line.find("loss_kd") != nullptr, line.at("task").as_string() == "finetune");
  // Moments of the teacher, too.
  const std::string moments = "task.finetune.distill.";
  run_into("z", {file, alone, moments + "method=progressive", moments + "progressive.steps=1",
                 moments + "progressive.teacher_steps=[10]"});
  EXPECT_TRUE(fs::exists(path("z/arms/teacher/seed1/pretrain/step_10.safetensors")));
  EXPECT_NE(values(in_task("z", "b", "finetune")), values(in_task("y", "b", "finetune")));
  expect({"plan", file, alone, "--device", "cpu"}, 0, "pretrain: training teachers");
}

TEST_F(KdtrainTasks, a_model_goes_through_the_tasks_before_the_one_that_needs_it) {
  const std::string file =
      write("chain.toml", read(tasks()) + "[[model]]\nname = \"mid\"\nstudent.hidden = [12]\n" +
                              arm("c", "teachers = [\"mid\"]"));
  run_into("x", {file, "task.pretrain.distill.lambda=0.0"});
  EXPECT_NE(values(in_task("x", "mid", "pretrain")), values(in_task("x", "mid", "finetune")));
  for (const Json& line : lines_of("x", "c"))
    EXPECT_EQ(line.find("loss_kd") != nullptr, line.at("task").as_string() == "finetune");
}

// An arm learns in the tasks in which it says so, and the command line may say it too.
TEST_F(KdtrainTasks, an_arm_differs_in_one_task) {
  const std::string file = write("own.toml", read(tasks()) + R"(
[[arm]]
name = "first"
task.finetune.distill.lambda = 0.0
[[arm]]
name = "second"
distill.lambda = 0.0
task."finetune".distill.lambda = 0.5
[size.small]
arm.first.task.pretrain.train.lr = 0.0
)");
  run_into("x", {file});
  const auto taught_in = [&](const std::string& out, const std::string& arm) {
    std::set<std::string> tasks;
    for (const Json& line : lines_of(out, arm))
      if (line.find("loss_kd") != nullptr) tasks.insert(line.at("task").as_string());
    return tasks;
  };
  using Tasks = std::set<std::string>;
  EXPECT_EQ(taught_in("x", "a"), Tasks());
  EXPECT_EQ(taught_in("x", "b"), Tasks({"pretrain", "finetune"}));
  EXPECT_EQ(taught_in("x", "first"), Tasks({"pretrain"}));
  EXPECT_EQ(taught_in("x", "second"), Tasks({"finetune"}));
  EXPECT_EQ(values(in_task("x", "first", "pretrain")), values(in_task("x", "b", "pretrain")));
  // It is part of what the run is.
  const std::string resolved = path("x/recipe.resolved.toml");
  expect({"run", resolved, "--device", "cpu", "--out", "x", "--resume"}, 0, "");
  expect({"run", file, "arm.second.task.finetune.distill.lambda=0.4", "--device", "cpu", "--out",
          "x", "--resume"},
         2, "arm.second.task.finetune.distill.lambda was 0.5, is 0.4");
  run_into("y", {file, "arm.second.task.finetune.distill.lambda=0.0", "size=small"});
  EXPECT_EQ(taught_in("y", "second"), Tasks());
  EXPECT_NE(values(in_task("y", "first", "pretrain")), values(in_task("x", "first", "pretrain")));
}

TEST_F(KdtrainTasks, mistakes_in_a_task_of_an_arm_have_their_place) {
  const auto refused = [&](const std::string& lines, const std::string& message) {
    const std::string file = write("wrong.toml", read(tasks()) + "[[arm]]\nname = \"c\"\n" + lines);
    expect({"validate", file, "--no-data"}, 2, message);
  };
  refused("task.nowhere.train.lr = 0.1\n", "c: there is no task 'nowhere'");
  refused("task.finetune.train.lrate = 0.1\n", "unknown key 'train.lrate'");
  refused("task.finetune.data.holdout = 3\n", "'data.holdout' cannot differ between arms");
  refused("task.finetune.train.lr = -1.0\n", "train.lr: expected");
  expect({"validate", tasks(), "arm.a.task.nowhere.train.lr=0.1", "--no-data"}, 2,
         "unknown key 'task.nowhere.train.lr'");
}

// KD at fine-tuning wants a teacher that knows the task: it goes on from the task before.
TEST_F(KdtrainTasks, a_teacher_goes_on_with_a_task) {
  const std::string file = tasks(), further = "task.finetune.teacher.train.continues=true";
  run_into("x", {file});
  run_into("y", {file, further, "task.finetune.teacher.train.lr=0.0"});
  EXPECT_EQ(values(in_task("y", "teacher", "finetune")),
            values(in_task("x", "teacher", "pretrain")));
  EXPECT_EQ(values(in_task("y", "b", "finetune")), values(in_task("x", "b", "finetune")));
  run_into("z", {file, further, "task.finetune.teacher.train.lr=0.2"});
  EXPECT_EQ(values(in_task("z", "teacher", "pretrain")),
            values(in_task("x", "teacher", "pretrain")));
  EXPECT_NE(values(in_task("z", "teacher", "finetune")),
            values(in_task("z", "teacher", "pretrain")));
  EXPECT_EQ(values(in_task("z", "b", "pretrain")), values(in_task("x", "b", "pretrain")));
  EXPECT_NE(values(in_task("z", "b", "finetune")), values(in_task("x", "b", "finetune")));
  const Result plan = run({"plan", file, further, "--device", "cpu"});
  EXPECT_THAT(plan.out, HasSubstr("finetune: training teachers"));
  // A given one starts from its file.
  const std::string given = "teacher.weights=" + in_task("x", "teacher", "pretrain");
  run_into("w", {file, given, further, "task.finetune.teacher.train.lr=0.2"});
  EXPECT_EQ(values(in_task("w", "teacher", "finetune")),
            values(in_task("z", "teacher", "finetune")));
  EXPECT_FALSE(fs::exists(path("w/arms/teacher/seed1/pretrain")));
}

TEST_F(KdtrainTasks, where_no_teacher_goes_on_its_keys_are_mistakes) {
  const auto refused = [&](const std::string& word, const std::string& message) {
    expect({"validate", tasks(), word, "--no-data"}, 2, message);
  };
  refused("task.finetune.teacher.train.lr=0.1", "the teacher does not train in this task");
  refused("task.pretrain.teacher.train.continues=true", "there is no task before it");
  refused("task.finetune.teacher.train.weights=x.safetensors", "cannot differ between tasks");
  const std::string alone = recipe(arm("a"));
  expect({"validate", alone, "teacher.train.continues=true", "--no-data"}, 2,
         "needs a [[task]] behind another one");
}

// The teacher is held once, however many tasks went before.
TEST_F(KdtrainTasks, what_a_task_held_is_gone_in_the_next) {
  run_into("x", {tasks(), "teacher.hidden=[400]", "train.jobs=1"});
  const std::vector<double> held = logged("x", "b", "memory_parameters_mib", "final");
  ASSERT_EQ(held.size(), 2u);
  EXPECT_GT(held[0], 0);
  EXPECT_LT(held[1], 1.5 * held[0]);
}

TEST_F(KdtrainTasks, curricula_of_one_name_are_of_each_tasks_data) {
  run_into("x", {tasks(), "train.order=curriculum", "curriculum.name=mine"});
  EXPECT_EQ(column("x/curriculum/mine_pretrain.csv", 0).size(), 40u);
  EXPECT_EQ(column("x/curriculum/mine_finetune.csv", 0).size(), 50u);
}

TEST_F(KdtrainTasks, each_task_sorts_its_own_samples_by_what_starts_there) {
  run_into("x", {tasks(), "train.order=curriculum", "curriculum.scorer=student",
                 "curriculum.score=loss", "train.lr=0.3"});
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder_ / "x" / "curriculum"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  // Both arms start as one student; after the first task they are two.
  ASSERT_EQ(names.size(), 3u);
  EXPECT_THAT(names[0], HasSubstr("_a_seed1_finetune"));
  EXPECT_THAT(names[1], HasSubstr("_b_seed1_finetune"));
  EXPECT_THAT(names[2], HasSubstr("_seed1_pretrain"));
  EXPECT_NE(column("x/curriculum/" + names[0], 1), column("x/curriculum/" + names[1], 1));
}

}  // namespace
}  // namespace retort::tools
