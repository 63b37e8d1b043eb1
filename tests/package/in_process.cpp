#include "in_process.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "curriculum/ordering/order_file.h"
#include "curriculum/pacing/pacing.h"
#include "curriculum/scoring/score.h"
#include "distill/losses/distillation_loss.h"
#include "distill/metrics/metric.h"
#include "distill/terms/registry.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/checkpoint/weights.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"

using retort::Json;
using retort::Shape;
using retort::Tensor;
namespace nn = retort::nn;

namespace {

bool expect(bool good, const char* what) {
  if (!good) std::fprintf(stderr, "wrong: %s\n", what);
  return good;
}

bool near(double a, double b) { return std::abs(a - b) <= 1e-4 * std::max(1.0, std::abs(b)); }

std::shared_ptr<nn::Model> net(std::int64_t width, std::int64_t classes) {
  nn::ModelConfig config{.arch = "skip_net", .classes = classes, .seed = 1};
  config.options = {{"skip_width", width}};
  config.input = Shape{classes};
  return nn::make_model(config);
}

std::shared_ptr<const nn::Dataset> blobs(const char* split) {
  return nn::open_data({.format = "blobs",
                        .split = split,
                        .options = {{"blob_classes", std::int64_t{5}},
                                    {"blob_noise", 0.9},
                                    {"blob_train", std::int64_t{320}},
                                    {"blob_test", std::int64_t{200}}}});
}

// Probabilities of the first-largest class, and which it is, by the definition.
struct Said {
  std::vector<double> largest;
  std::vector<std::int32_t> prediction;
};
Said ask(nn::Model& model, const nn::Dataset& data) {
  model.eval();
  const Tensor logits =
      model.forward(nn::first_samples(*data.source({}), data.size()).inputs[0]).logits;
  const auto values = logits.to_vector<float>();
  const auto classes = static_cast<std::size_t>(data.classes());
  Said said;
  for (std::size_t i = 0; i < values.size(); i += classes) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i),
               end = begin + data.classes();
    const auto best = std::max_element(begin, end);
    double sum = 0;
    for (auto v = begin; v != end; ++v) sum += std::exp(static_cast<double>(*v - *best));
    said.largest.push_back(1 / sum);
    said.prediction.push_back(static_cast<std::int32_t>(best - begin));
  }
  return said;
}

double worst_class_of(const Said& said, const nn::Dataset& data) {
  const std::vector<std::int32_t> labels = data.labels();
  double worst = 1;
  for (std::int32_t c = 0; c < data.classes(); ++c) {
    double right = 0, all = 0;
    for (std::size_t i = 0; i < labels.size(); ++i)
      if (labels[i] == c) ++all, right += said.prediction[i] == c;
    worst = std::min(worst, right / all);
  }
  return worst;
}

// Of logits (0, x) for the student and (1, 0) for the teacher, k = 0.25.
double alpha_of(double x) {
  const double p = 1 / (1 + std::exp(-1.0)), q = 1 / (1 + std::exp(x)), k = 0.25;
  const double both =
      std::pow(p, k) * std::pow(q, 1 - k) + std::pow(1 - p, k) * std::pow(1 - q, 1 - k);
  return (1 - both) / (k * (1 - k));
}

bool alpha_works() {
  retort::distill::DistillationLossArgs args;
  args.student_logits = Tensor::from<float>({0, 2}, {1, 2});
  args.student_logits.set_requires_grad(true);
  args.teacher_logits = Tensor::from<float>({1, 0}, {1, 2});
  args.divergence = retort::distill::divergence_kinds().at("alpha").divergence;
  args.parameter = 0.25;
  const Tensor logits = args.student_logits;
  const auto loss = retort::distill::distillation_loss(args);
  loss.total.backward();
  const double slope = (alpha_of(2 + 1e-5) - alpha_of(2 - 1e-5)) / 2e-5;
  const auto gradient = logits.grad().to_vector<float>();
  return expect(near(loss.total.item(), alpha_of(2)), "alpha") &&
         expect(near(gradient[1], slope) && near(gradient[0], -slope), "gradient of alpha");
}

}  // namespace

bool rows_work() {
  bool good = alpha_works();
  const auto data = blobs("test");
  const nn::Batch batch = nn::first_samples(*data->source({}), 3);
  good &= expect(batch.targets.to_vector<std::int32_t>() == std::vector<std::int32_t>{0, 1, 2},
                 "labels of blobs");
  good &= expect(net(8, 5)->forward(batch.inputs[0]).logits.shape() == Shape({3, 5}),
                 "logits of skip_net");

  // (1 - 0)^2 and (2 - 4)^2: mean 5 / 2; its derivative 2 (s - t) / 2.
  nn::Outputs student, teacher;
  student.logits = Tensor::from<float>({1, 2}, {1, 2});
  student.logits.set_requires_grad(true);
  teacher.logits = Tensor::from<float>({0, 4}, {1, 2});
  const auto term = retort::distill::term_kinds().at("logit_mse").make({});
  const retort::distill::TermLoss loss = (*term)(student, {&teacher, 1}, {});
  loss.total.backward();
  good &= expect(loss.total.to_vector<float>() == std::vector<float>{2.5f}, "loss of logit_mse");
  good &= expect(student.logits.grad().to_vector<float>() == std::vector<float>({1, -2}),
                 "gradient of logit_mse");

  const std::int32_t targets[] = {0, 0, 1, 1}, predictions[] = {0, 0, 1, 0};
  good &=
      expect(retort::distill::find_metric("test.worst_class")
                     ->of({.classes = 3, .targets = targets, .predictions = predictions}) == 0.5,
             "worst_class");

  retort::curriculum::SampleStatistics statistics;
  statistics.max_prob = {0.75f};
  good &=
      expect(retort::curriculum::scores_of(
                 statistics, retort::curriculum::score_kinds().at("odds")) == std::vector<float>{3},
             "odds");
  const retort::curriculum::Pacing halves("halves", {}, 10);
  good &= expect(halves.fraction(4) == 0.5 && halves.fraction(5) == 1, "halves");
  return good;
}

bool run_is_right(const std::string& folder) {
  bool good = true;
  const auto test = blobs("test"), train = blobs("train");
  const auto student = net(8, 5), teacher = net(32, 5);
  nn::load_weights(*student, folder + "/arms/ours/seed1/model.safetensors");
  nn::load_weights(*teacher, folder + "/arms/teacher/seed1/model.safetensors");

  bool term = false, measured = false;
  std::ifstream log(folder + "/metrics.jsonl");
  for (std::string text; std::getline(log, text);) {
    const Json line = Json::parse(text, "metrics.jsonl");
    if (line.at("arm").as_string() != "ours") continue;
    const std::string split = line.at("split").as_string();
    if (split == "train") {
      // The objective: soft targets, and a quarter of the term.
      const double loss = line.at("loss").as_number(), mse = line.at("loss_logit_mse").as_number();
      term = mse > 0 && loss > 0.25 * mse;
      good &= expect(term, "loss_logit_mse on a line of training");
    }
    if (split == "final") {
      measured = near(line.at("test.worst_class").as_number(),
                      worst_class_of(ask(*student, *test), *test));
      good &= expect(measured, "test.worst_class of the final line");
    }
  }
  good &= expect(term && measured, "lines of training and a final line");

  good &=
      expect(retort::read_file(folder + "/results.json", 1 << 20).find("\"test.worst_class\"") !=
                 std::string::npos,
             "worst_class in results.json");

  // rank,index,label,score,correct,group: the scores are the teacher's odds. Right answers come
  // first, the surest before the others; then wrong ones, the surest last.
  std::string csv;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/curriculum"))
    csv += retort::read_file(entry.path().string(), 1 << 20);
  const Said said = ask(*teacher, *train);
  std::istringstream lines(csv);
  std::string text;
  std::getline(lines, text);
  double before = INFINITY;
  long right_before = 1;
  std::int64_t count = 0;
  bool scores = true, order = true;
  for (; std::getline(lines, text); ++count) {
    long rank = 0, index = 0, label = 0, correct = 0;
    double score = 0;
    if (std::sscanf(text.c_str(), "%ld,%ld,%ld,%lf,%ld", &rank, &index, &label, &score, &correct) !=
        5)
      return false;
    const double p = said.largest[static_cast<std::size_t>(index)];
    scores &= std::abs(score * (1 - p) / p - 1) < 1e-2;
    order &= correct != right_before ? right_before == 1
             : correct == 1          ? score <= before
                                     : score >= before;
    before = score, right_before = correct;
  }
  good &= expect(count == train->size() && scores, "scores of the curriculum");
  good &= expect(order, "the order of the curriculum");
  return good;
}
