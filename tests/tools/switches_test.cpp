// Every switch of a recipe that decides which samples a student sees, with how much of the teacher,
// from which weights: through the program, against the definitions.
#include <cmath>
#include <numeric>

#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

class KdtrainSwitches : public Kdtrain {
 protected:
  // 40 images, batches of 10, one log line a step.
  std::string recipe(const std::string& arms) const {
    images("a.bin", 40, 1);
    images("b.bin", 40, 2);
    images("t.bin", 20, 3);
    return write("switches.toml", R"(
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"], augment = "none" }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], steps = 30, batch = 10, lr = 0.05 }
[train]
steps = 4
batch = 10
lr = 0.01
log_steps = 1
order = "curriculum"
)" + arms);
  }
  void expect_run(std::vector<std::string> args, const std::string& out) const {
    args.insert(args.end(), {"--device", "cpu", "--out", out});
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
  }

  // A number of every line of one arm and split.
  std::vector<double> logged(const std::string& out, const std::string& arm, const char* key,
                             const std::string& split = "train") const {
    std::vector<double> values;
    std::istringstream log(read(folder_ / out / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      const Json line = Json::parse(text, "metrics.jsonl");
      if (line.at("arm").as_string() == arm && line.at("split").as_string() == split)
        values.push_back(line.at(key).as_number());
    }
    return values;
  }

  struct Row {
    double score = 0;
    bool correct = false;
    int group = 0;
  };
  std::vector<Row> curriculum(const std::string& file) const {
    std::vector<Row> rows;
    std::istringstream text(read(folder_ / file));
    std::string line;
    std::getline(text, line);
    while (std::getline(text, line)) {
      int rank = 0, index = 0, label = 0, correct = 0;
      Row row;
      EXPECT_EQ(std::sscanf(line.c_str(), "%d,%d,%d,%lf,%d,%d", &rank, &index, &label, &row.score,
                            &correct, &row.group),
                6)
          << line;
      row.correct = correct != 0;
      rows.push_back(row);
    }
    return rows;
  }
  static std::vector<double> means_of_ten(const std::vector<Row>& rows) {
    std::vector<double> means(rows.size() / 10);
    for (std::size_t i = 0; i < rows.size(); ++i) means[i / 10] += rows[i].score / 10;
    return means;
  }
  static void expect_near(const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-5) << i;
  }

  // What the optimizer changes: everything but the running statistics.
  std::vector<std::vector<float>> parameters(const std::string& file) const {
    std::vector<std::vector<float>> all;
    const SafetensorsReader reader(path(file));
    for (const SafetensorsEntry& entry : reader.header().entries)
      if (entry.name.find("running_") == std::string::npos)
        all.push_back(reader.read(entry).to_vector<float>());
    return all;
  }
};

TEST_F(KdtrainSwitches, lambda_is_the_formula_of_its_mode) {
  const auto arm = [](const char* name, const char* reliance, const char* more = "") {
    return std::string("[[arm]]\nname = \"") + name + "\"\ndistill.reliance = { " + reliance +
           " }\n" + more;
  };
  const char* const inverse = "curriculum.inverse = \"reverse_exact\"\n";
  expect_run(
      {"run",
       recipe(
           arm("minmax", "mode = 'minmax'") + arm("rank", "mode = 'rank'") +
           arm("literal", "mode = 'literal', s = 'first_batch', clamp = false") +
           arm("easiest", "mode = 'literal'", inverse) +
           arm("clamped", "mode = 'literal', s = 'first_batch'", inverse) +
           arm("clamped_too", "mode = 'literal', s = 'first_batch'") +
           arm("sample", "mode = 'minmax', per = 'sample'") +
           arm("window", "mode = 'minmax'", "train.window_shuffle = 4\n") +
           arm("shuffled", "mode = 'minmax'", "train.order = 'shuffle'\n") +
           arm("shuffled_sample", "mode = 'minmax', per = 'sample'", "train.order = 'shuffle'\n") +
           arm("in_place", "mode = 'minmax', per = 'sample'", "train.order = 'sequential'\n") +
           "[[arm]]\nname = \"constant\"\ndistill.lambda = 0.25\n"),
       "curriculum.stratify=false"},
      "x");
  const std::vector<Row> rows = curriculum("x/curriculum/logit_unstratified.csv");
  ASSERT_EQ(rows.size(), 40u);
  const std::vector<double> mean = means_of_ten(rows);
  const auto [least, most] = std::minmax_element(mean.begin(), mean.end());
  double largest = rows[0].score, smallest = rows[0].score;
  for (const Row& row : rows) {
    largest = std::max(largest, row.score);
    smallest = std::min(smallest, row.score);
  }
  ASSERT_GT(*most, *least);
  std::vector<double> minmax, rank, literal, easiest, clamped, bounded, sample(4, 0.0);
  for (std::size_t b = 0; b < 4; ++b) {
    minmax.push_back((*most - mean[b]) / (*most - *least));
    rank.push_back(std::count_if(mean.begin(), mean.end(), [&](double m) { return m > mean[b]; }) /
                   3.0);
    literal.push_back((mean[0] - mean[b]) / largest);
  }
  for (std::size_t b = 4; b-- > 0;) {  // as the exact reverse feeds them
    easiest.push_back(std::clamp((*most - mean[b]) / largest, 0.0, 1.0));
    const double raw = (mean[3] - mean[b]) / largest;
    clamped.push_back(std::clamp(raw, 0.0, 1.0));
    bounded.push_back(raw < 0 || raw > 1 ? 1 : 0);
  }
  for (std::size_t i = 0; i < 40; ++i)
    sample[i / 10] += (largest - rows[i].score) / (largest - smallest) / 10;
  expect_near(logged("x", "minmax", "lambda"), minmax);
  expect_near(logged("x", "rank", "lambda"), rank);
  expect_near(logged("x", "literal", "lambda"), literal);
  expect_near(logged("x", "easiest", "lambda"), easiest);
  expect_near(logged("x", "clamped", "lambda"), clamped);
  expect_near(logged("x", "sample", "lambda"), sample);
  expect_near(logged("x", "constant", "lambda"), std::vector<double>(4, 0.25));
  // Where the exact reverse begins with the easiest batch, the order itself does not.
  const std::vector<double> too = logged("x", "clamped_too", "fraction_clamped");
  for (std::size_t b = 0; b < 4; ++b) EXPECT_EQ(too.at(b), literal[b] < 0 || literal[b] > 1) << b;
  EXPECT_GT(std::count(bounded.begin(), bounded.end(), 1) + std::count(too.begin(), too.end(), 1),
            0);
  expect_near(logged("x", "clamped", "fraction_clamped"), bounded);
  expect_near(logged("x", "literal", "fraction_clamped"), std::vector<double>(4, 0.0));
  // In another order: of an epoch's own batches one has all of the teacher and one none of it; all
  // samples together have what they have in any order.
  const std::vector<double> shuffled = logged("x", "shuffled", "lambda");
  EXPECT_EQ(*std::min_element(shuffled.begin(), shuffled.end()), 0);
  EXPECT_EQ(*std::max_element(shuffled.begin(), shuffled.end()), 1);
  const auto sum = [](const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0);
  };
  for (const char* other : {"shuffled_sample", "in_place"}) {
    const std::vector<double> lambda = logged("x", other, "lambda");
    EXPECT_NEAR(sum(lambda), sum(sample), 1e-4) << other;
    EXPECT_GT(std::abs(lambda[0] - sample[0]) + std::abs(lambda[3] - sample[3]), 1e-3) << other;
  }
  // Shuffled in one window of all four batches: other batches.
  const std::vector<double> window = logged("x", "window", "lambda");
  ASSERT_EQ(window.size(), 4u);
  EXPECT_GT(std::abs(window[0] - minmax[0]) + std::abs(window[1] - minmax[1]), 1e-3);
}

TEST_F(KdtrainSwitches, every_score_order_and_pacing_trains) {
  std::string arms;
  const std::vector<std::string> scores{"logit",  "prob",    "logprob", "p_true",
                                        "margin", "entropy", "loss"};
  for (const std::string& score : scores)
    arms += "[[arm]]\nname = \"" + score + "\"\ncurriculum.score = \"" + score +
            "\"\ndistill.reliance.mode = \"rank\"\n";
  const std::vector<std::string> paces{"fixed_exponential",
                                       "varied_exponential",
                                       "single_step",
                                       "linear",
                                       "quadratic",
                                       "root",
                                       "exp",
                                       "log",
                                       "step"};
  for (const std::string& pace : paces)
    arms += "[[arm]]\nname = \"pace_" + pace +
            "\"\ncurriculum = { stratify = false, start = 0.25, pacing_steps = [2], full_at = "
            "0.75, pacing = \"" +
            pace + "\" }\ndistill.reliance.mode = \"minmax\"\n";
  arms +=
      "[[arm]]\nname = \"sequence\"\ncurriculum.stratify = false\ndistill.reliance.mode = "
      "\"minmax\"\n"
      "[[arm]]\nname = \"reverse_exact\"\ncurriculum.inverse = \"reverse_exact\"\n"
      "[[arm]]\nname = \"reverse_correct_only\"\ncurriculum.inverse = \"reverse_correct_only\"\n"
      "[[arm]]\nname = \"plain\"\ncurriculum.stratify = false\n"
      "[[arm]]\nname = \"random\"\ncurriculum.scorer = \"random\"\n";
  expect_run({"run", recipe(arms)}, "x");
  for (const std::string& score : scores) {
    EXPECT_EQ(logged("x", score, "loss").size(), 4u) << score;
    const std::vector<Row> rows = curriculum("x/curriculum/" + score + ".csv");
    ASSERT_EQ(rows.size(), 40u) << score;
    for (std::size_t i = 1; i < rows.size(); ++i) EXPECT_GE(rows[i].group, rows[i - 1].group);
    for (const Row& row : rows) {
      if (score == "prob" || score == "p_true" || score == "margin") {
        EXPECT_TRUE(row.score >= 0 && row.score <= 1) << score << " " << row.score;
      }
      EXPECT_TRUE(score != "logprob" || row.score <= 0) << row.score;
      EXPECT_TRUE((score != "entropy" && score != "loss") || row.score >= 0) << row.score;
    }
  }
  // A quarter of the data is one batch: whatever the function, the first step sees the easiest.
  const double first = logged("x", "sequence", "lambda").at(0);
  for (const std::string& pace : paces) {
    const std::vector<double> lambda = logged("x", "pace_" + pace, "lambda");
    ASSERT_EQ(lambda.size(), 4u) << pace;
    EXPECT_NEAR(lambda[0], first, 2e-5) << pace;
    EXPECT_NE(lambda[3], lambda[0]) << pace;  // by then there is more to draw from
  }
  // Files of orders: the exact reverse is one, the other keeps wrong samples behind right ones.
  std::vector<Row> forward = curriculum("x/curriculum/logit.csv"),
                   reverse = curriculum("x/curriculum/logit_reverse_exact.csv"),
                   plain = curriculum("x/curriculum/logit_unstratified.csv");
  ASSERT_EQ(reverse.size(), 40u);
  for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(forward[i].score, reverse[39 - i].score);
  ASSERT_EQ(plain.size(), 40u);
  for (std::size_t i = 1; i < 40; ++i) {
    EXPECT_GE(plain[i - 1].correct, plain[i].correct);
    EXPECT_TRUE(!plain[i].correct || plain[i - 1].score >= plain[i].score) << i;
    EXPECT_TRUE(plain[i - 1].correct || plain[i - 1].score <= plain[i].score) << i;
  }
  EXPECT_TRUE(fs::exists(folder_ / "x/curriculum/logit_reverse_correct_only.csv"));
  EXPECT_TRUE(fs::exists(folder_ / "x/curriculum/random.csv"));
}

// With a learning rate of 0 the loss of a step is a function of its batch alone.
TEST_F(KdtrainSwitches, sequential_without_augmentation_repeats_itself_and_nothing_else_does) {
  const std::string file = recipe(
      "[[arm]]\nname = \"file\"\n"
      "[[arm]]\nname = \"shuffled\"\ntrain.order = \"shuffle\"\n"
      "[[arm]]\nname = \"augmented\"\ndata.augment = \"crop_flip\"\n");
  expect_run(
      {"run", file, "distill.lambda=0", "train.order=sequential", "train.lr=0", "train.epochs=2"},
      "x");
  const auto repeats = [&](const char* arm) {
    const std::vector<double> loss = logged("x", arm, "loss");
    EXPECT_EQ(loss.size(), 8u);
    bool same = true;
    for (std::size_t i = 0; i < 4; ++i) same &= loss[i] == loss[i + 4];
    return same;
  };
  EXPECT_TRUE(repeats("file"));
  EXPECT_FALSE(repeats("shuffled"));
  EXPECT_FALSE(repeats("augmented"));
}

TEST_F(KdtrainSwitches, students_start_from_the_weights_of_a_file) {
  const std::string file =
      recipe("[[arm]]\nname = \"s\"\ndistill.lambda = 0.0\ntrain.order = \"shuffle\"\n");
  expect_run({"run", file}, "first");
  const std::string weights = "first/arms/s/seed1/model.safetensors";
  expect_run({"run", file, "student.weights=" + weights, "train.lr=0", "seeds=7"}, "again");
  EXPECT_EQ(parameters("again/arms/s/seed7/model.safetensors"), parameters(weights));
  expect_run({"run", file, "train.lr=0", "seeds=7"}, "drawn");
  EXPECT_NE(parameters("drawn/arms/s/seed7/model.safetensors"), parameters(weights));

  // The normalisation that the file names goes with its weights, unless the recipe says otherwise.
  expect_run({"run", file, "student.normalize=imagenet"}, "imagenet");
  const std::string other = "imagenet/arms/s/seed1/model.safetensors";
  const auto normalize = [&](const std::string& out) {
    return SafetensorsReader(path(out + "/arms/s/seed1/model.safetensors"))
        .header()
        .metadata.at("normalize");
  };
  expect_run({"run", file, "student.weights=" + other}, "kept");
  EXPECT_EQ(normalize("kept"), normalize("imagenet"));
  expect_run({"run", file, "student.weights=" + other, "student.normalize=cifar"}, "told");
  EXPECT_EQ(normalize("told"), normalize("first"));

  const auto refused = [&](const std::string& name, const char* more, int status,
                           const char* message) {
    expect({"run", file, "student.weights=" + name, more, "--device", "cpu", "--out", "no"}, status,
           message);
    EXPECT_FALSE(fs::exists(folder_ / "no")) << "nothing was started, so nothing stays";
  };
  refused("none.safetensors", "seeds=1", 4, "none.safetensors");
  refused(weights, "student.arch=resnet14", 3, "missing: layer1.1");
  write("text.safetensors", "not at all");
  refused("text.safetensors", "seeds=1", 3, "text.safetensors");
}

// The 3:2 split: students never see what the teacher was trained on, whoever trained it when.
TEST_F(KdtrainSwitches, a_split_holds_with_a_teacher_of_an_earlier_run) {
  const std::string file = recipe(
      "[[arm]]\nname = \"alone\"\ndistill.lambda = 0.0\ntrain.order = \"shuffle\"\n"
      "[[arm]]\nname = \"cl\"\n");
  const std::vector<std::string> common{"teacher.train.files=[]", "teacher.train.split=0.5",
                                        "train.steps=2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  expect_run(with({"run", file}), "x");
  EXPECT_EQ(curriculum("x/curriculum/logit.csv").size(), 20u);
  const std::string teacher = "teacher.weights=x/arms/teacher/seed1/model.safetensors";
  expect_run(with({"run", file, teacher}), "y");
  EXPECT_EQ(read(folder_ / "y/curriculum/logit.csv"), read(folder_ / "x/curriculum/logit.csv"));
  expect_run(with({"run", file, "arms=alone"}), "z");
  for (const char* out : {"y", "z"})
    EXPECT_EQ(hash_file(path(std::string(out) + "/arms/alone/seed1/model.safetensors")),
              hash_file(path("x/arms/alone/seed1/model.safetensors")))
        << out;
  const Result s = run(with({"score", file, teacher, "--device", "cpu", "--out", "score.csv"}));
  EXPECT_EQ(s.status, 0) << s.err;
  EXPECT_EQ(read(folder_ / "score.csv"), read(folder_ / "x/curriculum/logit.csv"));
}

TEST_F(KdtrainSwitches, a_teacher_at_chance_is_refused_or_shown_in_the_report) {
  const std::string file = recipe(
      "[[arm]]\nname = \"cl\"\n"
      "[[arm]]\nname = \"alone\"\ndistill.lambda = 0.0\ntrain.order = \"shuffle\"\n");
  expect({"run", file, "teacher.train.steps=1", "teacher.train.lr=0",
          "teacher.allow_untrained=false", "--device", "cpu", "--out", "x"},
         3, "teacher.allow_untrained");
  expect_run({"run", file, "teacher.train.steps=1", "teacher.train.lr=0"}, "y");
  EXPECT_THAT(read(folder_ / "y/report.html"),
              HasSubstr("<p class=\"note\">cl: allowed untrained teacher: "));
  EXPECT_THAT(read(folder_ / "y/results.json"), HasSubstr("allowed untrained teacher"));
}

TEST_F(KdtrainSwitches, a_stopped_run_tells_the_words_that_go_on) {
  const std::string file = recipe("[[arm]]\nname = \"it's\"\n");
  EXPECT_EQ(run({"validate", file}).status, 2);  // a name of files cannot hold quotes
  const std::string odd = write("it's a recipe.toml", read(parity_recipe()));
  const Result cut = interrupted({"run", odd, "name=tiny", "train.lr=0.04", "--device", "cpu",
                                  "--threads", "2", "--out", "a b"},
                                 3, SIGTERM);
  EXPECT_EQ(cut.status, 143) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("kdtrain run '" + path("it'\\''s a recipe.toml") +
                                 "' name=tiny train.lr=0.04 --device cpu --threads 2 "
                                 "--out 'a b' --resume\n"));
}

TEST_F(KdtrainSwitches, eval_does_not_take_training_files_for_validation_files) {
  recipe("");
  expect({"eval", "--model", "x", "--arch", "resnet8", "--split", "validation", "data.root=data"},
         4, "x");
  write("x", "");
  expect({"eval", "--model", "x", "--arch", "resnet8", "--split", "validation", "data.root=data"},
         2, "expected data.validation_files=FILE");
}

}  // namespace
}  // namespace retort::tools
