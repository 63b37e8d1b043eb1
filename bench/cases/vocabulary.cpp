// Both ends of a language model: the embedding, and the loss that multiplies with the vocabulary.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "distill/losses/linear_distillation_loss.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/embedding.h"
#include "engine/ops/gather_rows.h"
#include "engine/ops/linear.h"

namespace retort::bench {
namespace {

// ------------------------------------------------------------------------------ embedding

struct Text {
  std::int64_t tokens, columns, words, length;
};

struct Embedded {
  EmbeddingArgs args;
  Tensor y, dy;
};

Work make_embedding(const Text& s, bool backward, const Case& c) {
  std::vector<std::int32_t> starts{0};
  while (starts.back() < s.tokens)
    starts.push_back(
        static_cast<std::int32_t>(std::min<std::int64_t>(s.tokens, starts.back() + s.length)));
  auto e = std::make_shared<Embedded>();
  EmbeddingArgs& a = e->args;
  a.word = normal({s.words, s.columns}, c.seed, c.dtype, c.device);
  a.position = normal({s.length, s.columns}, c.seed + 1, c.dtype, c.device);
  a.type = normal({2, s.columns}, c.seed + 2, c.dtype, c.device);
  a.ids = integers(s.tokens, c.seed + 3, s.words, c.device);
  a.segments = integers(s.tokens, c.seed + 4, 2, c.device);
  a.starts = Tensor::from(starts, {static_cast<std::int64_t>(starts.size())}, c.device);
  e->y = Tensor::empty({s.tokens, s.columns}, c.dtype, c.device);
  e->dy = normal(e->y.shape(), c.seed + 5, c.dtype, c.device);
  const auto tables = [e] {
    return std::vector<Tensor*>{&e->args.word, &e->args.position, &e->args.type};
  };
  if (backward)
    for (Tensor* t : tables()) {
      t->set_requires_grad(true);
      t->set_grad(Tensor::zeros(t->shape(), c.dtype, c.device));
    }
  const auto positions = [=] {
    std::vector<std::int32_t> at(static_cast<std::size_t>(s.tokens));
    for (std::size_t n = 0; n < at.size(); ++n)
      at[n] = static_cast<std::int32_t>(static_cast<std::int64_t>(n) % s.length);
    return Tensor::from(at, {s.tokens}, c.device);
  };
  Work w;
  w.run = [=] {
    if (backward) return embedding(e->args).backward(e->dy);
    const NoGrad no_grad;
    e->y = embedding(e->args);
  };
  w.composed = [=, at = positions()] {
    const auto sum = [&] {
      return add(add(gather_rows(e->args.word, e->args.ids), gather_rows(e->args.position, at)),
                 gather_rows(e->args.type, e->args.segments));
    };
    if (backward) return sum().backward(e->dy);
    const NoGrad no_grad;
    static_cast<void>(sum());
  };
  if (backward)
    w.reset = [=] {
      for (Tensor* t : tables()) t->grad().fill(0);
    };
  w.outputs = [=] {
    if (!backward) return std::vector<Tensor>{e->y};
    std::vector<Tensor> gradients;
    for (Tensor* t : tables()) gradients.push_back(t->grad());
    return gradients;
  };
  w.error = [=] {
    const std::vector<std::int32_t> id = e->args.ids.to_vector<std::int32_t>(),
                                    type = e->args.segments.to_vector<std::int32_t>();
    const auto index = [&](std::int64_t row, std::int64_t column) {
      return static_cast<std::size_t>(row * s.columns + column);
    };
    Error64 error;
    if (!backward) {
      const Host got(e->y), words(e->args.word), at(e->args.position), types(e->args.type);
      for (const std::int64_t i : sampled(s.tokens * s.columns, 20000)) {
        const std::int64_t n = i / s.columns, k = i % s.columns;
        const auto nn = static_cast<std::size_t>(n);
        error.add(got[static_cast<std::size_t>(i)],
                  words[index(id[nn], k)] + at[index(n % s.length, k)] + types[index(type[nn], k)]);
      }
      return error.value();
    }
    const Host dy(e->dy);  // a few columns of all three tables, whole
    for (int which = 0; which < 3; ++which) {
      const Tensor table = *tables()[static_cast<std::size_t>(which)];
      const Host got(table.grad());
      for (const std::int64_t k : sampled(s.columns, 8)) {
        std::vector<double> want(static_cast<std::size_t>(table.dim(0)));
        for (std::int64_t n = 0; n < s.tokens; ++n) {
          const auto nn = static_cast<std::size_t>(n);
          const std::int64_t row = which == 0 ? id[nn] : which == 1 ? n % s.length : type[nn];
          want[static_cast<std::size_t>(row)] += dy[index(n, k)];
        }
        for (std::int64_t row = 0; row < table.dim(0); ++row)
          error.add(got[index(row, k)], want[static_cast<std::size_t>(row)]);
      }
    }
    return error.value();
  };
  w.digest = [=] {
    std::vector<double> norms;
    for (const Tensor& t : w.outputs()) norms.push_back(norm_of(t));
    return norms;
  };
  w.exports = [=] {
    const auto here = [](const Tensor& t) { return t.detach().to(Device::kCpu); };
    return NamedTensors{{"word", here(e->args.word)},
                        {"position", here(e->args.position)},
                        {"type", here(e->args.type)},
                        {"ids", here(e->args.ids)},
                        {"segments", here(e->args.segments)},
                        {"at", here(positions())},
                        {"dy", here(e->dy)}};
  };
  return w;
}

// ------------------------------------------------------------------------------ linear and loss

struct Setting {
  std::int64_t rows, columns, classes;
  bool teacher, recompute;
};

using distill::LinearDistillationLossArgs;

constexpr double kTau = 2, kLambda = 0.5;

std::vector<Tensor*> leaves_of(LinearDistillationLossArgs& a) {
  return {&a.features, &a.head.weight, &a.head.bias};
}

Work make_loss(const Setting& s, const Case& c) {
  auto a = std::make_shared<LinearDistillationLossArgs>();
  auto total = std::make_shared<Tensor>();
  const double width = 3 / std::sqrt(static_cast<double>(s.columns));  // logits of deviation 3
  a->features = normal({s.rows, s.columns}, c.seed, c.dtype, c.device);
  a->head = {normal({s.classes, s.columns}, c.seed + 1, c.dtype, c.device, width),
             normal({s.classes}, c.seed + 2, c.dtype, c.device, 0.1)};
  a->rows.targets = integers(s.rows, c.seed + 3, s.classes, c.device);
  if (s.teacher) {
    a->teacher_features = normal({s.rows, s.columns}, c.seed + 4, c.dtype, c.device);
    a->teacher_head = {normal({s.classes, s.columns}, c.seed + 5, c.dtype, c.device, width),
                       normal({s.classes}, c.seed + 6, c.dtype, c.device, 0.1)};
    a->rows.lambda = Tensor::scalar(kLambda, DType::kF32, c.device);
    a->rows.temperature = Tensor::scalar(kTau, DType::kF32, c.device);
  }
  a->rows.normalizer = Tensor::scalar(static_cast<double>(s.rows), DType::kF32, c.device);
  a->recompute = s.recompute;
  for (Tensor* t : leaves_of(*a)) {
    t->set_requires_grad(true);
    t->set_grad(Tensor::zeros(t->shape(), c.dtype, c.device));
  }
  const auto clear = [a] {
    for (Tensor* t : leaves_of(*a)) t->zero_grad();
  };
  Work w;
  w.run = [=] {
    clear();
    const auto loss = distill::linear_distillation_loss(*a);
    loss.total.backward();
    *total = loss.total.detach();
  };
  w.composed = [=] {  // all logits at once, and the fused loss over them
    clear();
    distill::DistillationLossArgs rows = a->rows;
    if (s.teacher) {
      const NoGrad no_grad;
      rows.teacher_logits =
          linear(a->teacher_features, a->teacher_head.weight, a->teacher_head.bias);
    }
    rows.student_logits = linear(a->features, a->head.weight, a->head.bias);
    rows.consume_logits = true;
    distill::distillation_loss(rows).total.backward();
  };
  w.outputs = [=] {
    std::vector<Tensor> all{*total};
    for (Tensor* t : leaves_of(*a)) all.push_back(t->grad());
    return all;
  };
  w.error = [=] {
    // In double by plain ops: of a few rows where there are many, whose share of the loss is
    // theirs.
    const bool whole = s.rows * s.classes <= 1 << 16;
    const std::vector<std::int64_t> rows = sampled(s.rows, whole ? s.rows : 4);
    std::vector<std::int32_t> picked(rows.begin(), rows.end());
    const Tensor at = Tensor::from(picked, {static_cast<std::int64_t>(picked.size())});
    const auto exact = [](const Tensor& t) {
      return t.defined() ? t.detach().to(Device::kCpu).to(DType::kF64) : t;
    };
    LinearDistillationLossArgs few = *a;
    few.features = gather_rows(exact(a->features), at);
    few.head = {exact(a->head.weight), exact(a->head.bias)};
    if (s.teacher) {
      few.teacher_features = gather_rows(exact(a->teacher_features), at);
      few.teacher_head = {exact(a->teacher_head.weight), exact(a->teacher_head.bias)};
    }
    for (Tensor* t : {&few.rows.lambda, &few.rows.temperature, &few.rows.normalizer})
      if (t->defined()) *t = t->to(Device::kCpu);
    few.rows.targets =
        gather_rows(a->rows.targets.to(Device::kCpu).view({s.rows, 1}), at).view({at.dim(0)});
    for (Tensor* t : leaves_of(few)) t->set_requires_grad(true);
    const Tensor sum = distill::linear_distillation_loss_composed(few).total;
    sum.backward();
    const auto worst_of = [](const Tensor& got, const Tensor& want) {
      Error64 e;
      const Host g(got), h(want);
      for (std::size_t i = 0; i < h.size(); ++i) e.add(g[i], h[i]);
      return e.value();
    };
    double worst =
        worst_of(gather_rows(a->features.grad().to(Device::kCpu), at), few.features.grad());
    if (whole) {
      worst = worse(worst, relative_error(total->item(), sum.item()));
      worst = worse(worst, worst_of(a->head.weight.grad(), few.head.weight.grad()));
      return worse(worst, worst_of(a->head.bias.grad(), few.head.bias.grad()));
    }
    // The rest has to fit together: a row's logits have a gradient of sum 0, so has the bias; and
    // dweight^T bias-like sums over classes are those of the features' columns, 0 as well.
    double bias = 0, largest = 0;
    const Host dbias(a->head.bias.grad());
    for (std::size_t v = 0; v < dbias.size(); ++v) {
      bias += dbias[v];
      largest += std::abs(dbias[v]);
    }
    return worse(worst, std::abs(bias) / largest);
  };
  w.digest = [=] {
    w.run();
    std::vector<double> norms;
    for (const Tensor& t : w.outputs()) norms.push_back(norm_of(t));
    return norms;
  };
  w.exports = [=] {
    const auto here = [](const Tensor& t) { return t.detach().to(Device::kCpu); };
    NamedTensors all{{"features", here(a->features)},
                     {"weight", here(a->head.weight)},
                     {"bias", here(a->head.bias)},
                     {"targets", here(a->rows.targets)}};
    if (s.teacher) {
      all.emplace_back("teacher_features", here(a->teacher_features));
      all.emplace_back("teacher_weight", here(a->teacher_head.weight));
      all.emplace_back("teacher_bias", here(a->teacher_head.bias));
    }
    return all;
  };
  return w;
}

void add_loss(Plan& plan, const Setting& s, DType dtype) {
  const auto product =
      static_cast<double>(s.rows) * static_cast<double>(s.columns) * static_cast<double>(s.classes);
  const auto table = static_cast<double>(s.classes * s.columns);
  Case c;
  c.name = std::string("linear_distillation_loss/") + (s.teacher ? "kd" : "ce") +
           (s.recompute ? "_recompute" : "") + "/" + shape_name(s.rows, s.columns, s.classes);
  c.dtype = dtype;
  c.matrix = true;
  c.flops = 2 * product * (s.teacher ? 4 : 3);  // what is needed: recomputing is on top
  c.bytes = table * static_cast<double>(size_of(dtype)) * (s.teacher ? 4 : 3);
  c.working_set = c.bytes;
  c.make = [s](const Case& made) { return make_loss(s, made); };
  plan.add(std::move(c));
}

}  // namespace

void add_vocabulary_cases(Plan& plan) {
  // A batch of BERT-base, and the 15 % of its rows that are predicted.
  const std::vector<Text> texts = plan.pick<std::vector<Text>>(
      {{70, 8, 50, 9}}, {{4096, 768, 28996, 128}}, {{32768, 768, 30522, 128}});
  const std::vector<Setting> losses = plan.pick<std::vector<Setting>>(
      {{12, 9, 33, false, false}, {12, 9, 33, true, false}, {12, 9, 33, true, true}},
      {{614, 768, 28996, false, false},
       {614, 768, 28996, true, false},
       {614, 768, 28996, true, true}},
      {{8192, 768, 28996, true, false},
       {8192, 768, 30522, true, false},
       {8192, 768, 30522, true, true},
       {1229, 768, 28996, true, false}});
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Text& s : texts) {
      const double bytes =
          static_cast<double>(s.tokens * s.columns) * static_cast<double>(size_of(dtype));
      const std::string shape = shape_name(s.tokens, s.columns, s.words);
      plan.add("embedding/" + shape, dtype, 2 * bytes, 0,
               [=](const Case& c) { return make_embedding(s, false, c); });
      plan.add("embedding_and_backward/" + shape, dtype, 2 * bytes + 3 * bytes, 0,
               [=](const Case& c) { return make_embedding(s, true, c); });
    }
  for (const Setting& s : losses) {
    add_loss(plan, s, DType::kF32);
    if (plan.smoke || plan.device == Device::kCuda) add_loss(plan, s, DType::kBF16);
  }
}

}  // namespace retort::bench
