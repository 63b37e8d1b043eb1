#include <cstdio>

#include "distill/metrics/evaluation.h"
#include "distill/step.h"
#include "examples/quickstart/spiral.h"
#include "nn/models/registry.h"
#include "nn/optim/optimizer.h"
using namespace retort;

static double train(nn::Model& model, const distill::Teacher* teacher, const Points& data) {
  nn::AdamW optimizer(model, {});
  for (int step = 0; step < 1000; ++step)
    distill::distill_step(teacher, model, {data.inputs, {}, data.labels},
                          {.lambda = {teacher ? 0.9f : 0.0f}, .temperature = {2.0f}},
                          [&] { optimizer.step(), optimizer.zero_grad(); });
  const Points unseen = spiral(999, 0);
  return distill::accuracy_of(model.forward(unseen.inputs).logits, unseen.labels);
}

int main() {
  const nn::ModelConfig wide{.arch = "mlp", .classes = 3, .widths = {128, 128}, .inputs = 2};
  const nn::ModelConfig narrow{.arch = "mlp", .classes = 3, .widths = {24, 24}, .inputs = 2};
  const auto large = nn::make_model(wide);
  std::printf("teacher, clean labels          %.2f\n", train(*large, nullptr, spiral(900, 0)));
  const auto alone = nn::make_model(narrow), taught = nn::make_model(narrow);
  std::printf("student, 4 labels in 10 false  %.2f\n", train(*alone, nullptr, spiral(90, 4)));
  const distill::Teacher teacher(large);
  std::printf("the same student, distilled    %.2f\n", train(*taught, &teacher, spiral(90, 4)));
}
// teacher, clean labels          1.00
// student, 4 labels in 10 false  0.61
// the same student, distilled    1.00
