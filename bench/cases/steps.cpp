// Whole steps, as a training loop makes them: forward, loss, backward, update; and the teacher's
// forward alone. Inputs are tensors in memory: the loader has its own case (image_batch).
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "distill/step.h"
#include "engine/autograd/autograd.h"
#include "nn/checkpoint/weights.h"
#include "nn/models/mlp.h"
#include "nn/models/registry.h"
#include "nn/optim/optimizer.h"

namespace retort::bench {
namespace {

constexpr std::size_t kBatches = 4;  // rotated, as a loop would

struct StepSpec {
  std::string name;
  nn::ModelConfig model;
  std::string teacher = {};  // architecture; empty: labels alone
  std::int64_t batch = 128;
  nn::SgdConfig sgd = {};
};

// What a training step uses.
struct Trainer {
  std::shared_ptr<nn::Model> model;
  std::unique_ptr<nn::Sgd> optimizer;
  std::unique_ptr<distill::Teacher> teacher;
  std::vector<nn::Batch> batches;
  distill::StepSettings settings;
  nn::SgdConfig sgd;
  std::vector<Tensor> buffers;
  std::size_t at = 0;
  distill::StepReport report;

  void step() {
    report = distill::distill_step(teacher.get(), *model, batches[at], settings, [this] {
      optimizer->step();
      optimizer->zero_grad();
    });
    at = (at + 1) % kBatches;
  }

  void reset(std::uint64_t seed) {
    model->initialize(seed);
    std::size_t i = 0;
    model->visit_buffers([&](const std::string&, Tensor& b) { b.copy_from(buffers[i++]); });
    optimizer = std::make_unique<nn::Sgd>(*model, sgd);  // a copy of its state would be counted
    at = 0;
  }
};

std::shared_ptr<nn::Model> model_of(const nn::ModelConfig& config, std::uint64_t seed) {
  nn::ModelConfig seeded = config;
  seeded.seed = seed;
  return nn::make_model(seeded);
}

// For counting: parameters stay 0.
std::shared_ptr<nn::Model> unset(nn::ModelConfig config) {
  config.initialize = false;
  return nn::make_model(config);
}

Tensor inputs_of(const nn::ModelConfig& config, std::int64_t batch, std::uint64_t seed,
                 const Case& c) {
  if (config.arch != "mlp") return normal({batch, 32, 32, 3}, seed, c.dtype, c.device);
  const Tensor signs = Tensor::empty({batch, config.input[0]}, c.dtype, c.device);
  fill_signs(signs, {seed, 0, 0, path_hash("bench")});
  return signs;
}

// Multiplications and additions of all products and convolutions of one forward pass. The side of
// a layer's output follows from its place: stage i of a CIFAR network works at 32 / 2^(i-1); a
// bottleneck's stride is in its second convolution, so the first still has the stage's input side.
double forward_flops(const nn::Model& model, std::int64_t batch, double* stem = nullptr) {
  double sum = 0;
  for (const auto& [path, weight] : model.named_parameters()) {
    if (weight.rank() < 2) continue;
    double places = 1;
    if (weight.rank() == 4) {
      const bool in_stage = path.rfind("layer", 0) == 0;
      const int stage = in_stage ? path[5] - '1' : 0;
      double side = 32.0 / (1 << stage);
      const bool narrows = weight.dim(1) == 1 && path.find(".0.conv1") != std::string::npos;
      if (narrows && stage > 0) side *= 2;
      places = side * side;
    }
    const double flops = 2 * places * static_cast<double>(batch * weight.numel());
    if (stem && (path == "conv1.weight" || path == "fc1.weight")) *stem = flops;
    sum += flops;
  }
  return sum;
}

// Forward, gradient of the weights, and of all inputs but the images'.
double training_flops(const StepSpec& spec) {
  double stem = 0, teacher = 0;
  const double forward = forward_flops(*unset(spec.model), spec.batch, &stem);
  if (!spec.teacher.empty())
    teacher =
        forward_flops(*nn::make_model({.arch = spec.teacher, .initialize = false}), spec.batch);
  return 3 * forward - stem + teacher;
}

void export_model(const nn::Model& model, const std::string& prefix, NamedTensors& to) {
  for (const auto& [name, tensor] : nn::weights_of(model))
    to.emplace_back(prefix + name, tensor.clone());
}

Work make_training(const StepSpec& spec, const Case& c) {
  auto t = std::make_shared<Trainer>();
  t->model = model_of(spec.model, c.seed);
  t->model->to(c.device);
  t->model->visit_buffers([&](const std::string&, Tensor& b) { t->buffers.push_back(b.clone()); });
  t->sgd = spec.sgd;
  t->sgd.bf16_copy = c.device == Device::kCuda && c.dtype == DType::kBF16;  // as kdtrain
  t->optimizer = std::make_unique<nn::Sgd>(*t->model, t->sgd);
  if (spec.teacher.empty()) {
    t->settings.lambda = {0.0f};
  } else {
    std::shared_ptr<nn::Model> teacher = nn::make_model({.arch = spec.teacher, .seed = 7});
    teacher->to(c.device);
    t->teacher = std::make_unique<distill::Teacher>(std::move(teacher));
    t->settings.temperature = {4.0f};
  }
  for (std::size_t i = 0; i < kBatches; ++i) {
    const std::uint64_t seed = c.seed * 100 + i;
    t->batches.emplace_back(inputs_of(spec.model, spec.batch, seed, c),
                            integers(spec.batch, seed, spec.model.classes, c.device));
  }
  Work w;
  w.run = [t] { t->step(); };
  w.reset = [t, seed = c.seed] { t->reset(seed); };
  w.outputs = [t] {
    std::vector<Tensor> all{t->optimizer->arena().parameters()};
    t->model->visit_buffers([&](const std::string&, Tensor& b) { all.push_back(b); });
    for (const auto& [name, tensor] : t->optimizer->state()) all.push_back(tensor);
    return all;
  };
  // Forward, backward, update and what the update remembers: the loss of the first step, the norm
  // of its update, the loss of the third.
  w.digest = [t, seed = c.seed] {
    t->reset(seed);
    const Tensor& parameters = t->optimizer->arena().parameters();
    const Host before(parameters.clone());
    t->step();
    const double first = t->report.loss();
    const double update = norm_of_difference(Host(parameters), before);
    t->step();
    t->step();
    return std::vector<double>{first, update, t->report.loss()};
  };
  w.exports = [t] {  // of the first step: call reset() before
    NamedTensors all;
    for (std::size_t i = 0; i < kBatches; ++i) {
      const std::string end = "." + std::to_string(i);
      all.emplace_back("inputs" + end,
                       t->batches[i].inputs[0].values.to(Device::kCpu).to(DType::kF32));
      all.emplace_back("targets" + end, t->batches[i].targets.to(Device::kCpu));
    }
    export_model(*t->model, "model.", all);
    if (t->teacher) export_model(t->teacher->model(), "teacher.", all);
    return all;
  };
  return w;
}

// Logits of a frozen teacher. The error is that of the first rows against the same network in
// double.
Work make_inference(const StepSpec& spec, const Case& c) {
  std::shared_ptr<nn::Model> model = model_of(spec.model, c.seed);
  model->to(c.device);
  struct State {
    std::unique_ptr<distill::Teacher> teacher;
    std::vector<Tensor> inputs;
    std::size_t at = 0;
    Tensor logits;
  };
  auto s = std::make_shared<State>();
  s->teacher = std::make_unique<distill::Teacher>(std::move(model));
  for (std::size_t i = 0; i < kBatches; ++i)
    s->inputs.push_back(inputs_of(spec.model, spec.batch, c.seed * 100 + i, c));
  Work w;
  w.run = [s] {
    s->logits = s->teacher->logits(s->inputs[s->at]);
    s->at = (s->at + 1) % kBatches;
  };
  w.reset = [s] { s->at = 0; };
  w.outputs = [s] { return std::vector<Tensor>{s->logits}; };
  w.digest = [s] { return std::vector<double>{norm_of(s->logits)}; };
  w.exports = [s] {
    NamedTensors all;
    for (std::size_t i = 0; i < kBatches; ++i)
      all.emplace_back("inputs." + std::to_string(i),
                       s->inputs[i].to(Device::kCpu).to(DType::kF32));
    export_model(s->teacher->model(), "model.", all);
    return all;
  };
  w.error = [s, spec, seed = c.seed] {
    const std::shared_ptr<nn::Model> exact = model_of(spec.model, seed);
    exact->eval();
    exact->requires_grad(false);
    const auto widen = [](const std::string&, Tensor& t) { t = t.to(DType::kF64); };
    exact->visit_parameters(widen);
    exact->visit_buffers(widen);
    const NoGrad no_grad;
    const Tensor x = s->inputs[0].slice(0, std::min<std::int64_t>(2, spec.batch));
    const std::vector<double> want =
        exact->forward(x.to(Device::kCpu).to(DType::kF64)).logits.to_vector<double>();
    const std::vector<double> got = s->logits.to_vector<double>();
    Error64 e;
    for (std::size_t i = 0; i < want.size(); ++i) e.add(got[i], want[i]);
    return e.value();
  };
  return w;
}

void add(Plan& plan, const StepSpec& spec, bool training, const std::vector<DType>& dtypes) {
  for (const DType dtype : dtypes) {
    Case c;
    c.name = "step/" + spec.name + "/batch" + std::to_string(spec.batch);
    c.dtype = dtype;
    c.matrix = c.step = true;
    c.count_flops = [spec, training] {
      return training ? training_flops(spec) : forward_flops(*unset(spec.model), spec.batch);
    };
    c.make = [spec, training](const Case& made) {
      return training ? make_training(spec, made) : make_inference(spec, made);
    };
    plan.add(std::move(c));
  }
}

nn::SgdConfig sgd(double rate, double momentum, double decay, bool nesterov) {
  nn::SgdConfig s;
  s.learning_rate = rate;
  s.momentum = momentum;
  s.weight_decay = decay;
  s.nesterov = nesterov;
  return s;
}

}  // namespace

void add_step_cases(Plan& plan) {
  const std::vector<DType> both{DType::kF32, DType::kBF16}, f32{DType::kF32};
  // The published comparison's network and update, (f, -f) logits; f32 alone: it has no matrix
  // work to speak of.
  for (const std::int64_t batch : {32, 1024}) {
    const nn::ModelConfig mlp{
        .arch = "mlp",
        .classes = 2,
        .options = {{"hidden", nn::Ints{plan.smoke ? 8 : 1000}}, {"output", "scalar"}},
        .input = {100}};
    add(plan, {"mlp_100_1000_1", mlp, "", plan.smoke ? 8 : batch, sgd(0.1, 0, 0, false)}, true,
        f32);
    if (plan.smoke) break;
  }
  const std::int64_t batch = plan.pick<std::int64_t>(2, 128, 1024);
  const nn::SgdConfig residual = sgd(0.1, 0.9, 5e-4, false), nesterov = sgd(0.05, 0.9, 5e-4, true);
  if (plan.smoke) {
    const nn::ModelConfig toy{.arch = "resnet8", .options = {{"widths", nn::Ints{2, 2, 4, 4}}}};
    add(plan, {"resnet8", toy, "", batch, residual}, true, both);
    add(plan, {"resnet8_forward", toy, "", batch, {}}, false, both);
    add(plan, {"six_arms_kd", toy, "resnet8", batch, nesterov}, true, f32);
    return;
  }
  add(plan, {"resnet20", {.arch = "resnet20"}, "", batch, residual}, true, both);
  add(plan, {"resnet18_cifar", {.arch = "resnet18_cifar"}, "", batch, residual}, true, both);
  add(plan, {"resnet152_cifar_forward", {.arch = "resnet152_cifar"}, "", batch, {}}, false, both);
  // One step of the recipe cifar10_six_arms: ResNet-20 teaches ResNet-8 online, lambda 0.5, T 4.
  add(plan,
      {"six_arms_kd",
       {.arch = "resnet8"},
       "resnet20",
       plan.pick<std::int64_t>(2, 64, 64),
       nesterov},
      true, f32);
}

}  // namespace retort::bench
