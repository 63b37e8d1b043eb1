// What would change a result without a word, through the program: it is told, or it cannot be.
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class Told : public Kdtrain {
 protected:
  // 40 images to train on, 30 to test; whatever the arms add.
  std::string recipe(const std::string& more) const {
    images("a.bin", 40, 1);
    images("b.bin", 40, 2);
    images("t.bin", 30, 3);
    return write("told.toml", R"(
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"], augment = "none" }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], steps = 3, batch = 10, lr = 0.05 }
[student]
arch = "resnet8"
[train]
steps = 4
batch = 10
lr = 0.01
log_steps = 1
)" + more);
  }
  void expect_run(const std::vector<std::string>& more, const std::string& out) const {
    std::vector<std::string> args{"run"};
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.end(), {"--device", "cpu", "--out", out});
    const Result r = run(args);
    ASSERT_EQ(r.status, 0) << r.err;
  }
  std::vector<Json> lines(const std::string& out, const std::string& arm,
                          const std::string& split) const {
    std::vector<Json> all;
    std::istringstream log(read(folder_ / out / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      Json line = Json::parse(text, "metrics.jsonl");
      if (line.at("arm").as_string() == arm && line.at("split").as_string() == split)
        all.push_back(std::move(line));
    }
    return all;
  }
  std::string weights_hash(const std::string& out, const std::string& arm) const {
    return hash_file(path(out + "/arms/" + arm + "/seed1/model.safetensors"));
  }
};

// torchvision's stem leaves 1 x 1 pixels of 32 x 32 to the last stage of a ResNet: a value a sample.
TEST_F(Told, batch_norm_over_few_values) {
  const std::string file = recipe("[[arm]]\nname = \"a\"\ndistill.lambda = 0.0\n");
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"validate", file, "student.arch=resnet18", "train.steps=0"};
    if (std::none_of(more.begin(), more.end(),
                     [](const std::string& word) { return word.starts_with("train.steps"); }))
      more.emplace_back("train.epochs=1");
    else
      all.pop_back();
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  };
  EXPECT_THAT(with({"train.batch=4"}).err,
              HasSubstr("few values: train.batch = 4: batch norm has 4 values of each channel"));
  EXPECT_THAT(with({"train.micro_batch=2"}).err,
              HasSubstr("train.micro_batch = 2: batch norm has 2 "));
  EXPECT_THAT(
      with({"train.batch=19"}).err,
      HasSubstr("train.batch = 19 leaves 2 of 40 samples to the last part: batch norm has 2"));
  const Result enough = with({"train.batch=10"});
  EXPECT_EQ(enough.status, 0) << enough.err;
  EXPECT_EQ(enough.err, "");
  EXPECT_EQ(with({"train.batch=13"}).status, 2) << "40 = 3 * 13 + 1";
  // The last batch of an epoch never comes.
  const Result shorter = with({"train.batch=13", "train.steps=2"});
  EXPECT_EQ(shorter.status, 0) << shorter.err;
  EXPECT_EQ(shorter.err, "");
  // CIFAR's stem leaves 8 x 8.
  EXPECT_EQ(run({"validate", file, "train.batch=1"}).err, "");
  // The report has it, too.
  expect_run({file, "student.arch=resnet18", "train.steps=1", "train.batch=2"}, "x");
  ASSERT_EQ(lines("x", "a", "note").size(), 1u);
  EXPECT_THAT(lines("x", "a", "note")[0].at("text").as_string(),
              HasSubstr("2 values of each channel"));
  EXPECT_THAT(read(folder_ / "x/report.html"), HasSubstr("2 values of each channel"));
}

// One step on the first ten samples. What lies behind the first 16 must matter: files are sorted.
TEST_F(Told, calibration_samples_are_drawn_across_the_data) {
  const std::string file = recipe(
      "order = \"sequential\"\n[distill]\nmethod = \"extraction\"\n"
      "extraction = { steps = 1, calibration = 16 }\n[[arm]]\nname = \"a\"\n");
  expect_run({file}, "x");
  std::string bytes = read(folder_ / "data/a.bin");
  for (std::size_t i = 20 * 3073; i < bytes.size(); ++i)
    if (i % 3073 != 0) bytes[i] = static_cast<char>(bytes[i] + 40);
  std::ofstream(folder_ / "data/a.bin", std::ios::binary) << bytes;
  expect_run({file, "train.steps=4"}, "y");
  EXPECT_NE(lines("x", "a", "train").at(0).at("loss").as_number(),
            lines("y", "a", "train").at(0).at("loss").as_number());
  // The same again for the same seed.
  expect_run({file}, "z");
  EXPECT_EQ(weights_hash("y", "a"), weights_hash("z", "a"));
}

// Confidences of 38 samples that a teacher is sure of, and of two that it is not.
TEST_F(Told, selective_reliance_that_hardly_acts) {
  const std::string file = recipe(
      "order = \"curriculum\"\n[curriculum]\nscorer = \"file\"\nfile = \"scores.csv\"\n"
      "stratify = false\n[[arm]]\nname = \"a\"\ndistill.reliance.mode = \"minmax\"\n");
  std::string sure = "index,score\n", spread = sure;
  for (int i = 0; i < 40; ++i) {
    sure += std::to_string(i) + "," + (i < 38 ? "0.999" : "0.01") + "\n";
    spread += std::to_string(i) + "," + std::to_string(0.02 * i) + "\n";
  }
  const char* const text =
      "selective reliance hardly acts: lambda is below 0.05 or clamped in 3 of 4";
  write("scores.csv", sure);
  expect_run({file}, "x");
  std::string notes;
  for (const Json& line : lines("x", "a", "note")) notes += line.at("text").as_string() + "\n";
  EXPECT_THAT(notes, HasSubstr(text));
  EXPECT_THAT(read(folder_ / "x/report.html"), HasSubstr(text));
  EXPECT_EQ(lines("x", "a", "train").at(0).at("lambda").as_number(), 0);
  const Result score = run({"score", file, "--out", "order.csv", "--device", "cpu"});
  EXPECT_EQ(score.status, 0) << score.err;
  EXPECT_THAT(score.err, HasSubstr(text));
  // One that acts is not talked about.
  write("scores.csv", spread);
  expect_run({file}, "y");
  for (const Json& line : lines("y", "a", "note"))
    EXPECT_THAT(line.at("text").as_string(), Not(HasSubstr("hardly acts")));
  EXPECT_THAT(run({"score", file, "--out", "order.csv", "--device", "cpu"}).err,
              Not(HasSubstr("hardly acts")));
}

TEST_F(Told, what_score_needs_no_teacher_for) {
  const std::string file = recipe(
      "order = \"curriculum\"\n[[arm]]\nname = \"a\"\n[[arm]]\nname = \"r\"\n"
      "curriculum.scorer = \"random\"\n");
  std::string scores = "index,score\n";
  for (int i = 0; i < 40; ++i) scores += std::to_string(i) + "," + std::to_string(i) + "\n";
  write("scores.csv", scores);
  expect({"score", file, "curriculum.scorer=file", "curriculum.file=scores.csv", "arms=a", "--out",
          "file.csv", "--device", "cpu"},
         0, "file.csv: 40 samples");
  EXPECT_FALSE(fs::exists(folder_ / "file.csv.teacher"));
  // The teacher that the recipe trains is trained, once, and scores as in a run.
  expect({"score", file, "--out", "o.csv", "--device", "cpu"}, 0, "o.csv: 40 samples, logit");
  expect_run({file}, "x");
  EXPECT_EQ(read(folder_ / "o.csv"), read(folder_ / "x/curriculum/logit.csv"));
  const fs::path weights = folder_ / "o.csv.teacher/arms/teacher/seed1/model.safetensors";
  const auto made = fs::last_write_time(weights);
  expect({"score", file, "--out", "o.csv", "--device", "cpu"}, 0, "o.csv: 40 samples");
  EXPECT_EQ(fs::last_write_time(weights), made);
  expect({"score", file, "train.batch=7", "teacher.train.lr=0.01", "--out", "o.csv", "--device",
          "cpu"},
         2, "the recipe changed");
}

TEST_F(Told, a_line_of_training_is_of_one_stage) {
  const std::string file = write("stages.toml", R"(
data = { format = "parity", bits = 12, support = 3, test_size = 64 }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 4, batch = 8 }
[student]
arch = "mlp"
hidden = [8]
[train]
steps = 20
batch = 8
log_steps = 4
[distill]
method = "extraction"
extraction.steps = 6
)");
  expect_run({file}, "x");
  std::vector<std::int64_t> steps;
  for (const Json& line : lines("x", "student", "train")) {
    steps.push_back(line.at("step").as_integer());
    const bool projects = steps.back() <= 6;
    EXPECT_EQ(line.find("loss_ce") == nullptr, projects) << steps.back();
    EXPECT_EQ(line.at("stage").as_string() != "distill", projects) << line.at("stage").as_string();
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{4, 6, 8, 12, 16, 20}));
}

TEST_F(Told, the_power_of_tau_is_the_divergences_own) {
  const auto arm = [](const char* name, const char* divergence, int power) {
    return join("[[arm]]\nname = \"", name, "\"\ndistill.divergence = \"", divergence,
                "\"\ndistill.tau_power = ", power, "\n");
  };
  expect_run({recipe("[distill]\ntemperature = 4.0\n" + arm("own", "total_variation", -1) +
                     arm("one", "total_variation", 1) + arm("two", "total_variation", 2) +
                     arm("kl", "forward_kl", -1) + arm("kl2", "forward_kl", 2)),
              "train.steps=1"},
             "x");
  const auto kd = [&](const char* name) {
    return lines("x", name, "train").at(0).at("loss_kd").as_number();
  };
  const auto after = [&](const char* name) {
    return lines("x", name, "test").back().at("loss").as_number();
  };
  EXPECT_EQ(after("own"), after("one"));
  EXPECT_NE(after("own"), after("two"));
  EXPECT_EQ(after("kl"), after("kl2"));
  EXPECT_NEAR(kd("two") / kd("own"), 4, 1e-5);
  EXPECT_THAT(run({"schema", "distill.divergence"}).out,
              HasSubstr("total_variation: 1/2 sum |p - q|, with tau^1"));
}

TEST_F(Told, numbers_that_are_none_are_refused) {
  const std::string file = recipe("[[arm]]\nname = \"a\"\n");
  for (const char* key :
       {"distill.lambda", "distill.temperature", "train.lr", "train.weight_decay"})
    for (const char* value : {"nan", "inf", "-inf"}) {
      const Result r = run({"validate", file, std::string(key) + "=" + value});
      EXPECT_EQ(r.status, 2) << key << value;
      EXPECT_THAT(r.err, HasSubstr(key));
    }
  const std::string ordered = recipe(
      "order = \"curriculum\"\n[curriculum]\nscorer = \"file\"\nfile = \"scores.csv\"\n"
      "[[arm]]\nname = \"a\"\n");
  for (const char* value : {"nan", "inf"}) {
    std::string scores = "index,score\n";
    for (int i = 0; i < 40; ++i)
      scores += std::to_string(i) + "," + (i == 7 ? value : "0.5") + "\n";
    write("scores.csv", scores);
    const Result r = run({"run", ordered, "--device", "cpu", "--out", "x"});
    EXPECT_EQ(r.status, 3) << r.err;
    EXPECT_THAT(r.err, HasSubstr("scores.csv:9: expected a finite score"));
    EXPECT_FALSE(fs::exists(folder_ / "x")) << "told before the teacher is trained";
  }
}

}  // namespace
}  // namespace retort::tools
