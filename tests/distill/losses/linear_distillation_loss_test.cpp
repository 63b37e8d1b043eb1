#include "distill/losses/linear_distillation_loss.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather_rows.h"
#include "engine/ops/linear.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/graph.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using distill::chunk_rows_of;
using distill::distillation_loss;
using distill::DistillationLossResult;
using distill::linear_distillation_loss;
using distill::linear_distillation_loss_composed;
using distill::LinearDistillationLossArgs;
using kernels::Divergence;

enum class TeacherIs { kNone, kLogits, kLayer };

// `rows` rows, some of them ignored or masked; a student of width 6, a teacher of width 9.
struct Problem {
  std::int64_t rows = 21, classes = 13;
  TeacherIs teacher = TeacherIs::kLayer;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;
  bool per_row = true;
  Divergence divergence = Divergence::kForwardKl;

  LinearDistillationLossArgs make() const {
    LinearDistillationLossArgs a;
    const auto values = [&](const Shape& shape, std::uint64_t seed) {
      return randn(shape, seed, dtype).to(device);
    };
    a.features = values({rows, 6}, 1);
    a.head = {values({classes, 6}, 2), values({classes}, 3)};
    if (teacher == TeacherIs::kLayer) {
      a.teacher_features = values({rows, 9}, 4);
      a.teacher_head = {values({classes, 9}, 5), {}};
    }
    if (teacher == TeacherIs::kLogits) a.rows.teacher_logits = values({rows, classes}, 6);
    std::vector<std::int32_t> targets =
        randint({rows}, 7, static_cast<std::uint32_t>(classes)).to_vector<std::int32_t>();
    for (std::size_t i = 0; i < targets.size(); i += 5) targets[i] = -100;
    a.rows.targets = Tensor::from(targets, {rows}, device);
    a.rows.divergence = divergence;
    if (teacher != TeacherIs::kNone) {
      a.rows.lambda = Tensor::scalar(0.4, DType::kF32, device);
      a.rows.temperature = Tensor::scalar(2, DType::kF32, device);
    }
    if (!per_row) return a;
    std::vector<float> lambda, tau, weights;
    std::vector<std::uint8_t> mask;
    for (std::int64_t i = 0; i < rows; ++i) {
      lambda.push_back(static_cast<float>(i % 4) / 4);
      tau.push_back(static_cast<float>(1 + i % 3));
      weights.push_back(0.5f + static_cast<float>(i % 3));
      mask.push_back(i % 7 != 3);
    }
    if (teacher != TeacherIs::kNone) {
      a.rows.lambda = Tensor::from(lambda, {rows}, device);
      a.rows.temperature = Tensor::from(tau, {rows}, device);
    }
    a.rows.weights = Tensor::from(weights, {rows}, device);
    a.rows.mask = Tensor::from(mask, {rows}, device);
    return a;
  }
};

std::int64_t memory_of_rows(const LinearDistillationLossArgs& a, std::int64_t rows) {
  const auto size = static_cast<std::int64_t>(size_of(a.features.dtype()));
  return rows * a.head.weight.dim(0) * size * (a.teacher_head.defined() ? 2 : 1);
}

// Loss and gradients, of the fused op or by its definition, under an upstream gradient.
struct Computed {
  DistillationLossResult loss;
  std::vector<Tensor> gradients;
};
Computed compute(LinearDistillationLossArgs a, bool composed, double upstream = 1) {
  for (Tensor* t : {&a.features, &a.head.weight, &a.head.bias})
    if (t->defined()) {
      *t = t->detach();
      t->set_requires_grad(true);
    }
  Computed c;
  if (composed)
    c.loss = linear_distillation_loss_composed(a);
  else
    c.loss = linear_distillation_loss(a);
  c.loss.total.backward(Tensor::scalar(upstream, c.loss.total.dtype(), a.features.device()));
  for (const Tensor* t : {&a.features, &a.head.weight, &a.head.bias})
    if (t->defined()) c.gradients.push_back(t->grad());
  return c;
}

Tolerance near(DType dtype) {
  return dtype == DType::kF64 ? Tolerance{1e-10, 1e-12} : Tolerance{1e-5, 2e-6};
}

TEST(LinearDistillationLoss, hand_checked_numbers) {
  const double l3 = std::log(3.0);
  for (const Device device : devices())
    for (const bool recompute : {false, true}) {
      LinearDistillationLossArgs a;
      // Logits (0, log 3) and (0, 0) + (0, log 3).
      a.features = Tensor::from<float>({1, 0}, {2, 1}, device);
      a.head.weight = Tensor::from<float>({0, 0}, {2, 1}, device);
      a.head.bias = Tensor::from<float>({0, static_cast<float>(l3)}, {2}, device);
      a.rows.targets = Tensor::from<std::int32_t>({0, 1}, {2}, device);
      a.logits_memory = 8;
      a.recompute = recompute;
      const Computed c = compute(a, false);
      EXPECT_NEAR(c.loss.total.item(), (std::log(4.0) + std::log(4.0 / 3)) / 2, 1e-6);
      const std::vector<double> weight = c.gradients[1].to_vector<double>(),
                                bias = c.gradients[2].to_vector<double>();
      EXPECT_NEAR(weight[0], -0.375, 1e-6);  // row 0 alone has a feature
      EXPECT_NEAR(weight[1], 0.375, 1e-6);
      EXPECT_NEAR(bias[0], -0.25, 1e-6);
      EXPECT_NEAR(bias[1], 0.25, 1e-6);
      EXPECT_EQ(c.loss.student_correct.to_vector<int>(), (std::vector<int>{0, 1}));
    }
}

TEST(LinearDistillationLoss, equals_its_definition_in_any_chunks_and_both_modes) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32})
      for (const TeacherIs teacher : {TeacherIs::kNone, TeacherIs::kLogits, TeacherIs::kLayer})
        for (const bool per_row : {false, true})
          for (const double upstream : {1.0, 2.5}) {
            if (device == Device::kCuda && (dtype == DType::kF64 || (per_row != (upstream != 1))))
              continue;  // time
            const Problem problem{
                .teacher = teacher, .dtype = dtype, .device = device, .per_row = per_row};
            LinearDistillationLossArgs a = problem.make();
            const Computed want = compute(a, true, upstream);
            for (const std::int64_t chunk : {1, 5, 8, 21})
              for (const bool recompute : {false, true}) {
                a.logits_memory = memory_of_rows(a, chunk);
                a.recompute = recompute;
                const Computed got = compute(a, false, upstream);
                EXPECT_TRUE(all_close(got.loss.total, want.loss.total, near(dtype)));
                EXPECT_TRUE(all_close(got.loss.ce, want.loss.ce.to(DType::kF32), {1e-5, 1e-6}));
                if (teacher != TeacherIs::kNone) {
                  EXPECT_TRUE(all_close(got.loss.kd, want.loss.kd.to(DType::kF32), {1e-5, 1e-6}));
                }
                for (std::size_t i = 0; i < want.gradients.size(); ++i)
                  EXPECT_TRUE(all_close(got.gradients[i], want.gradients[i], near(dtype)))
                      << name_of(device) << " chunk " << chunk << " gradient " << i;
              }
          }
}

TEST(LinearDistillationLoss, every_divergence_and_statistic_is_that_of_the_whole_logits) {
  for (const Device device : devices())
    for (int d = 0; d < kernels::kDivergences; ++d) {
      Problem problem{.device = device, .divergence = static_cast<Divergence>(d)};
      problem.classes = device == Device::kCpu ? 1100 : 70;
      LinearDistillationLossArgs a = problem.make();
      distill::DistillationLossArgs whole = a.rows;
      whole.student_logits = linear(a.features, a.head.weight, a.head.bias);
      whole.teacher_logits = linear(a.teacher_features, a.teacher_head.weight, {});
      const DistillationLossResult want = distillation_loss(whole);
      a.logits_memory = memory_of_rows(a, 6);
      const auto got = linear_distillation_loss(a);
      EXPECT_EQ(got.chunk_rows, 6);
      EXPECT_EQ(got.invalid_row.to_vector<int>(), (std::vector<int>(4, 0)));
      EXPECT_TRUE(all_close(got.total, want.total));
      const auto all = [](const DistillationLossResult& r) {
        return std::vector<Tensor>{r.ce,
                                   r.kd,
                                   r.student_argmax,
                                   r.student_correct,
                                   r.student_confidence,
                                   r.teacher_argmax,
                                   r.teacher_correct,
                                   r.teacher_confidence,
                                   r.teacher_log_confidence,
                                   r.teacher_max_logit,
                                   r.teacher_margin,
                                   r.teacher_entropy,
                                   r.teacher_p_true,
                                   r.teacher_log_p_true};
      };
      const std::vector<Tensor> g = all(got), w = all(want);
      for (std::size_t i = 0; i < g.size(); ++i)
        EXPECT_TRUE(all_close(g[i], w[i], {1e-5, 1e-5})) << name_of(device) << " " << d << " " << i;
    }
}

TEST(LinearDistillationLoss, bf16_heads_are_as_near_as_their_rounding) {
  for (const Device device : devices())
    for (const bool recompute : {false, true}) {
      LinearDistillationLossArgs a = Problem{.dtype = DType::kBF16, .device = device}.make();
      LinearDistillationLossArgs exact = a;
      for (Tensor* t : {&exact.features, &exact.head.weight, &exact.head.bias,
                        &exact.teacher_features, &exact.teacher_head.weight})
        *t = t->to(Device::kCpu).to(DType::kF64);
      for (Tensor* t : {&exact.rows.targets, &exact.rows.lambda, &exact.rows.temperature,
                        &exact.rows.weights, &exact.rows.mask})
        *t = t->to(Device::kCpu);
      const Computed want = compute(exact, true);
      a.logits_memory = memory_of_rows(a, 8);
      a.recompute = recompute;
      const Computed got = compute(a, false);
      EXPECT_TRUE(all_close(got.loss.total, want.loss.total.to(DType::kF32), {2e-2, 1e-2}));
      for (std::size_t i = 0; i < 3; ++i)
        EXPECT_TRUE(all_close(got.gradients[i].to(DType::kF64), want.gradients[i], {3e-2, 1e-2}))
            << name_of(device) << " " << i;
    }
}

TEST(LinearDistillationLoss, gradients_agree_with_differences) {
  for (const TeacherIs teacher : {TeacherIs::kNone, TeacherIs::kLayer})
    for (const bool recompute : {false, true}) {
      Problem problem{.teacher = teacher, .dtype = DType::kF64};
      problem.rows = 7, problem.classes = 5;
      LinearDistillationLossArgs a = problem.make();
      a.logits_memory = memory_of_rows(a, 3);
      a.recompute = recompute;
      const auto f = [&](const std::vector<Tensor>& in) {
        LinearDistillationLossArgs b = a;
        b.features = in[0], b.head = {in[1], in[2]};
        return scale(linear_distillation_loss(b).total, 3);
      };
      const auto result = gradcheck(f, {a.features, a.head.weight, a.head.bias});
      EXPECT_TRUE(result.ok) << result.message;
      // The decoder of an embedding: two terms of one gradient.
      const Tensor ids = randint({7}, 9, 5);
      const auto tied = [&](const std::vector<Tensor>& in) {
        LinearDistillationLossArgs b = a;
        b.features = tanh(gather_rows(in[0], ids)), b.head = {in[0], in[1]};
        return linear_distillation_loss(b).total;
      };
      const auto both = gradcheck(tied, {a.head.weight, a.head.bias});
      EXPECT_TRUE(both.ok) << both.message;
    }
}

// Masked-LM: the rows that are predicted are gathered before the vocabulary is touched.
TEST(LinearDistillationLoss, gathered_rows_are_as_good_as_all_rows_with_the_others_ignored) {
  for (const Device device : devices())
    for (const TeacherIs teacher : {TeacherIs::kNone, TeacherIs::kLayer})
      for (const bool recompute : {false, true}) {
        Problem problem{.teacher = teacher, .device = device, .per_row = false};
        problem.rows = 40;
        LinearDistillationLossArgs all = problem.make();
        std::vector<std::int32_t> targets(40, -100), wanted, wanted_targets;
        for (std::int32_t i = 3; i < 40; i += 6) {
          targets[static_cast<std::size_t>(i)] = i % 13;
          wanted.push_back(i);
          wanted_targets.push_back(i % 13);
        }
        const auto n = static_cast<std::int64_t>(wanted.size());
        const Tensor rows = Tensor::from(wanted, {n}, device);
        all.rows.targets = Tensor::from(targets, {40}, device);
        all.recompute = recompute;
        all.logits_memory = memory_of_rows(all, 16);
        LinearDistillationLossArgs few = all;
        few.rows.targets = Tensor::from(wanted_targets, {n}, device);
        const Tensor hidden = few.features.clone();
        hidden.detach();
        Tensor leaf = hidden;
        leaf.set_requires_grad(true);
        few.features = gather_rows(leaf, rows);
        few.head.weight = few.head.weight.clone();
        few.head.weight.set_requires_grad(true);
        if (teacher == TeacherIs::kLayer)
          few.teacher_features = gather_rows(all.teacher_features, rows);
        const auto small = linear_distillation_loss(few);
        small.total.backward();
        const Computed whole = compute(all, false);
        EXPECT_TRUE(all_close(small.total, whole.loss.total));
        EXPECT_TRUE(all_close(leaf.grad(), whole.gradients[0]));
        EXPECT_TRUE(all_close(few.head.weight.grad(), whole.gradients[1]));
        EXPECT_TRUE(all_close(small.ce, gather_rows(whole.loss.ce.view({40, 1}), rows).view({n})));
      }
}

TEST(LinearDistillationLoss, no_array_of_rows_by_classes_is_ever_there) {
  for (const Device device : devices())
    for (const bool recompute : {false, true}) {
      const std::int64_t rows = 640, classes = device == Device::kCpu ? 1024 : 256, width = 4,
                         memory = classes << 8;
      Problem problem{.device = device};
      problem.rows = rows, problem.classes = classes;
      LinearDistillationLossArgs a = problem.make();
      a.features = randn({rows, width}, 1).to(device);
      a.head.weight = randn({classes, width}, 2).to(device);
      a.logits_memory = memory;
      a.recompute = recompute;
      for (Tensor* t : {&a.features, &a.head.weight, &a.head.bias}) t->set_requires_grad(true);
      for (Tensor* t : {&a.features, &a.head.weight, &a.head.bias}) {
        t->set_grad(Tensor::full(t->shape(), 1, DType::kF32, device));  // as an arena does
        t->zero_grad();
      }
      const auto run = [&] { linear_distillation_loss(a).total.backward(); };
      run();
      const std::size_t before = memory_statistics(device).current_bytes;
      reset_peak_memory(device);
      run();
      const std::size_t peak = memory_statistics(device).peak_bytes - before;
      const std::size_t gradients =
          a.features.bytes() + a.head.bias.bytes() + (recompute ? 0 : a.head.weight.bytes());
      EXPECT_LT(peak, static_cast<std::size_t>(memory) + gradients + (100u << 10))
          << name_of(device) << recompute;
      EXPECT_LT(peak, static_cast<std::size_t>(rows * classes) * sizeof(float) / 3);
    }
}

TEST(LinearDistillationLoss, micro_batches_add_to_the_gradient_in_place) {
  for (const Device device : devices())
    for (const bool recompute : {false, true}) {
      LinearDistillationLossArgs a = Problem{.device = device}.make();
      a.recompute = recompute;
      a.logits_memory = memory_of_rows(a, 8);
      const std::vector<Tensor> once = compute(a, false).gradients;
      Tensor weight = a.head.weight.clone();
      weight.set_requires_grad(true);
      const Tensor place = Tensor::full(weight.shape(), 9, DType::kF32, device);
      weight.set_grad(place);
      weight.zero_grad();
      a.head.weight = weight;
      for (int part = 0; part < 3; ++part) linear_distillation_loss(a).total.backward();
      EXPECT_EQ(weight.grad().storage(), place.storage());
      EXPECT_TRUE(all_close(place, scale(once[1], 3)));
    }
}

TEST(LinearDistillationLoss, the_same_bits_with_any_threads_again_and_captured) {
  const int before = thread_count();
  for (const bool recompute : {false, true})
    for (const Device device : devices()) {
      LinearDistillationLossArgs a = Problem{.device = device}.make();
      a.recompute = recompute;
      a.logits_memory = memory_of_rows(a, 8);
      std::vector<Computed> runs;
      for (const int threads : {1, 3, 1}) {
        set_thread_count(threads);
        runs.push_back(compute(a, false));
      }
      if (device == Device::kCuda) {
        Graph graph(std::make_shared<GraphMemory>());
        Computed last;
        const auto step = [&] { last = compute(a, false); };
        for (int i = 0; i < 5 && !graph.rehearse(step); ++i) {
        }
        graph.capture(step);
        graph.launch();
        runs.push_back(last);
      }
      for (const Computed& run : runs) {
        EXPECT_TRUE(same_bytes(run.loss.total, runs[0].loss.total));
        EXPECT_TRUE(same_bytes(run.loss.kd, runs[0].loss.kd));
        for (std::size_t i = 0; i < 3; ++i)
          EXPECT_TRUE(same_bytes(run.gradients[i], runs[0].gradients[i]));
      }
    }
  set_thread_count(before);
}

TEST(LinearDistillationLoss, edge_shapes) {
  for (const Device device : devices())
    for (const bool recompute : {false, true}) {
      for (const std::int64_t rows : {0, 1, 7, 33})
        for (const std::int64_t classes : {1, 2, 33, 1271}) {
          if (device == Device::kCuda && (classes == 1271 || rows == 33)) continue;  // time
          Problem problem{.device = device};
          problem.rows = rows, problem.classes = classes;
          LinearDistillationLossArgs a = problem.make();
          a.recompute = recompute;
          a.logits_memory = 1;  // a row at a time
          const Computed got = compute(a, false), want = compute(a, true);
          EXPECT_TRUE(all_close(got.loss.total, want.loss.total, {1e-5, 1e-6}))
              << rows << " x " << classes;
          for (std::size_t i = 0; i < 3; ++i)
            EXPECT_TRUE(all_close(got.gradients[i], want.gradients[i], {1e-4, 1e-6}))
                << name_of(device) << " " << rows << " x " << classes << " gradient " << i;
        }
      LinearDistillationLossArgs a = Problem{.device = device}.make();
      a.rows.targets.fill(-100);
      a.recompute = recompute;
      const Computed none = compute(a, false);
      EXPECT_EQ(none.loss.total.item(), 0);
      for (const Tensor& g : none.gradients)
        EXPECT_TRUE(same_bytes(g, Tensor::zeros(g.shape(), DType::kF32, device)));
      // Features that are columns of something wider, no bias, a frozen weight.
      a = Problem{.device = device}.make();
      const Tensor wide = randn({21, 8}, 1).to(device);
      a.features = wide.slice_columns(1, 7);
      a.head.bias = {};
      a.recompute = recompute;
      Tensor leaf = a.features;
      leaf.set_requires_grad(true);
      a.features = leaf;
      linear_distillation_loss(a).total.backward();
      LinearDistillationLossArgs packed = a;
      packed.features = leaf.detach().clone();
      EXPECT_TRUE(same_bytes(leaf.grad(), compute(packed, false).gradients[0]));
    }
}

TEST(LinearDistillationLoss, chunks_are_about_equal_and_hold_what_fits) {
  EXPECT_EQ(chunk_rows_of(614, 2 * 28996 * 4, 32 << 20), 128);
  EXPECT_EQ(chunk_rows_of(614, 28996 * 4, 32 << 20), 208);
  EXPECT_EQ(chunk_rows_of(10, 100, 1000), 10);
  EXPECT_EQ(chunk_rows_of(11, 100, 1000), 8);
  EXPECT_EQ(chunk_rows_of(11, 100, 50), 1);
  EXPECT_EQ(chunk_rows_of(9, 100, 700), 5);
  EXPECT_EQ(chunk_rows_of(0, 100, 700), 1);
  for (const std::int64_t rows : {1, 5, 64, 100, 1000})
    for (const std::int64_t most : {1, 3, 8, 50, 999}) {
      const std::int64_t chunk = chunk_rows_of(rows, 10, 10 * most);
      EXPECT_LE(chunk, most);
      EXPECT_LE((rows + chunk - 1) / chunk, (rows + most - 1) / most);
    }
}

TEST(LinearDistillationLoss, mistakes_are_named) {
  const auto message = [](const std::function<void(LinearDistillationLossArgs&)>& change) {
    LinearDistillationLossArgs a = Problem{}.make();
    change(a);
    try {
      linear_distillation_loss(a);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const auto says = [&](const std::string& part,
                        const std::function<void(LinearDistillationLossArgs&)>& change) {
    const std::string got = message(change);
    EXPECT_NE(got.find(part), std::string::npos) << "'" << got << "' instead of '" << part << "'";
  };
  EXPECT_EQ(message([](auto&) {}), "");
  says("student features (N, m)", [](auto& a) { a.features = {}; });
  says("student features (N, m)", [](auto& a) { a.head.weight = randn({13, 5}, 1); });
  says("student bias (13)", [](auto& a) { a.head.bias = randn({12}, 1); });
  says("student head of f32", [](auto& a) { a.head.bias = randn({13}, 1, DType::kF64); });
  says("teacher features (N, m)", [](auto& a) { a.teacher_features = {}; });
  says("teacher of 21 rows and 13 classes", [](auto& a) {
    a.teacher_features = randn({20, 9}, 1);
  });
  says("not both", [](auto& a) { a.rows.teacher_logits = randn({21, 13}, 1); });
  says("no student_logits", [](auto& a) { a.rows.student_logits = randn({21, 13}, 1); });
  says("logits_memory >= 0", [](auto& a) { a.logits_memory = -1; });
  says("targets", [](auto& a) { a.rows.targets = randint({20}, 1, 3); });
  says("lambda", [](auto& a) { a.rows.lambda = {}; });
  says("teacher_logits (21, 13)", [](auto& a) {
    a.teacher_features = {}, a.teacher_head = {};
    a.rows.teacher_logits = randn({21, 12}, 1);
  });
  says("counting from row 8: [distill_loss] row 3: expected a target", [](auto& a) {
    a.rows.targets.slice(11, 12).fill(13);
    a.rows.mask = {};
    a.logits_memory = memory_of_rows(a, 8);
  });
}

}  // namespace
}  // namespace retort::test
