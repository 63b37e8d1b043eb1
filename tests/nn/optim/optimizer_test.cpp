#include "nn/optim/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "engine/ops/mse.h"
#include "engine/runtime/allocator.h"
#include "nn/models/registry.h"
#include "tests/nn/optim/small.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::close;
using test::devices;
using test::randn;
using test::same_bytes;
using ::testing::HasSubstr;

Tensor gradient_at(const Tensor& like, int step) {
  return randn(like.shape(), static_cast<std::uint64_t>(10 * step + like.rank()), like.dtype());
}

// The same updates written out in double, one element after the other.
struct Reference {
  std::vector<double> p, m, v;
};

using Rule =
    std::function<void(int t, double rate, bool decay, double g, double& p, double& m, double& v)>;
void compare(Optimizer& optimizer, Small& module, bool decays_bias, const Rule& rule,
             double tolerance = 1e-6) {
  Reference weight{module.weight.to_vector<double>(), {}, {}},
      bias{module.bias.to_vector<double>(), {}, {}};
  for (Reference* r : {&weight, &bias}) r->m = r->v = std::vector<double>(r->p.size());
  for (int t = 1; t <= 4; ++t) {
    optimizer.zero_grad();
    const double rate = 0.1 / t;
    optimizer.set_learning_rate(rate);
    for (auto [tensor, reference, decay] : {std::tuple{&module.weight, &weight, true},
                                            std::tuple{&module.bias, &bias, decays_bias}}) {
      const Tensor g = gradient_at(*tensor, t);
      tensor->grad().copy_from(g);
      const std::vector<double> values = g.to_vector<double>();
      for (std::size_t i = 0; i < values.size(); ++i)
        rule(t, static_cast<double>(static_cast<float>(rate)), decay, values[i], reference->p[i],
             reference->m[i], reference->v[i]);
    }
    optimizer.step();
    for (auto [tensor, reference] :
         {std::pair{&module.weight, &weight}, std::pair{&module.bias, &bias}}) {
      const std::vector<double> got = tensor->to_vector<double>();
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_TRUE(close(got[i], reference->p[i], tolerance, tolerance))
            << "step " << t << " element " << i << ": " << got[i] << " vs " << reference->p[i];
    }
  }
  EXPECT_EQ(optimizer.steps(), 4);
}

TEST(Optimizers, plain_sgd_by_hand) {
  Small module;
  SgdConfig config;
  config.weight_decay = 0.05;
  Sgd sgd(module, config);
  compare(sgd, module, true, [](int, double rate, bool, double g, double& p, double&, double&) {
    p -= rate * (g + 0.05 * p);
  });
}

TEST(Optimizers, sgd_with_momentum_and_dampening) {
  Small module;
  SgdConfig config;
  config.momentum = 0.9;
  config.dampening = 0.3;
  config.weight_decay = 0.05;
  config.decay_norm_and_bias = false;
  Sgd sgd(module, config);
  compare(sgd, module, false,
          [](int t, double rate, bool decay, double g, double& p, double& m, double&) {
            g += decay ? 0.05 * p : 0;
            m = t == 1 ? g : 0.9 * m + 0.7 * g;
            p -= rate * m;
          });
}

TEST(Optimizers, nesterov) {
  Small module;
  SgdConfig config;
  config.momentum = 0.9;
  config.nesterov = true;
  Sgd sgd(module, config);
  compare(sgd, module, true, [](int t, double rate, bool, double g, double& p, double& m, double&) {
    m = t == 1 ? g : 0.9 * m + g;
    p -= rate * (g + 0.9 * m);
  });
}

TEST(Optimizers, adamw) {
  Small module;
  AdamWConfig config;
  config.weight_decay = 0.1;
  config.beta2 = 0.99;
  config.decay_norm_and_bias = false;
  AdamW adamw(module, config);
  compare(adamw, module, false,
          [](int t, double rate, bool decay, double g, double& p, double& m, double& v) {
            if (decay) p -= rate * 0.1 * p;
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            p -= rate * (m / (1 - std::pow(0.9, t))) /
                 (std::sqrt(v / (1 - std::pow(0.99, t))) + 1e-8);
          });
}

TEST(Optimizers, clipping_scales_all_gradients_by_one_factor) {
  Small module;
  SgdConfig config;
  config.clip_norm = 1;
  Sgd sgd(module, config);
  sgd.set_learning_rate(1);
  const std::vector<double> before = module.weight.to_vector<double>();
  module.weight.grad().fill(2);
  module.bias.grad().fill(-3);
  sgd.step();
  const double norm = std::sqrt(15 * 4.0 + 7 * 9.0);
  EXPECT_NEAR(sgd.gradient_norm().item(), norm, 1e-5);
  const std::vector<double> after = module.weight.to_vector<double>();
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(after[i], before[i] - 2 / norm, 1e-6);
}

// Clip, update and both parameter groups: two launches, however many parameters there are.
TEST(Optimizers, an_update_is_two_launches) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  const auto count = [](const char* what, auto make, std::uint64_t want) {
    const auto model = make_model({.arch = "resnet8", .classes = 10, .seed = 1});
    model->to(Device::kCuda);
    const auto optimizer = make(*model);
    EXPECT_EQ(optimizer->arena().slices().size(), 23u);
    for (int i = 0; i < 2; ++i) {
      const std::uint64_t before = cuda_runtime.launches();
      optimizer->step();
      EXPECT_EQ(cuda_runtime.launches() - before, want) << what;
    }
  };
  const auto sgd = [](double clip) {
    return [clip](Module& module) {
      SgdConfig config;
      config.momentum = 0.9;
      config.weight_decay = 0.1;
      config.decay_norm_and_bias = false;
      config.clip_norm = clip;
      return std::make_unique<Sgd>(module, config);
    };
  };
  const auto adamw = [](double clip) {
    return [clip](Module& module) {
      AdamWConfig config;
      config.decay_norm_and_bias = false;
      config.clip_norm = clip;
      return std::make_unique<AdamW>(module, config);
    };
  };
  count("sgd", sgd(0), 1);
  count("sgd, clipped", sgd(1), 2);
  count("adamw", adamw(0), 1);
  count("adamw, clipped", adamw(1), 2);
}

TEST(Optimizers, learning_rate_and_step_may_be_read_elsewhere) {
  for (const Device device : devices()) {
    Small one(DType::kF32), two(DType::kF32);
    one.to(device);
    two.to(device);
    AdamW a(one, {}), b(two, {});
    const Tensor rate = Tensor::zeros({}, DType::kF32, device),
                 step = Tensor::zeros({}, DType::kI64, device);
    b.read_from(rate, step);
    for (int t = 1; t <= 3; ++t) {
      const double lr = 0.1 / t;
      a.set_learning_rate(lr);
      b.set_learning_rate(7);  // recorded, not uploaded
      rate.fill(static_cast<double>(static_cast<float>(lr)));
      step.fill(t);
      for (Small* module : {&one, &two})
        for (Tensor* p : {&module->weight, &module->bias}) p->grad().copy_from(gradient_at(*p, t));
      a.step();
      b.step();
      EXPECT_TRUE(same_bytes(one.weight.detach(), two.weight.detach())) << t;
    }
    EXPECT_EQ(b.steps(), 3);
    EXPECT_THROW(b.read_from(step, rate), Error);
    b.read_from({}, {});
    b.set_learning_rate(0);
    b.step();
    EXPECT_TRUE(same_bytes(one.bias.detach(), two.bias.detach()));
  }
}

TEST(Optimizers, steps_with_nan_gradients_can_be_skipped) {
  Small module;
  AdamWConfig config;
  config.skip_not_finite = true;
  AdamW adamw(module, config);
  const Tensor weight = module.weight.clone(), bias = module.bias.clone();
  module.bias.grad().slice(3, 4).fill(std::nan(""));
  adamw.step();
  EXPECT_TRUE(same_bytes(module.weight, weight));
  EXPECT_TRUE(same_bytes(module.bias, bias));
  adamw.zero_grad();
  module.bias.grad().fill(1);
  adamw.step();
  EXPECT_FALSE(same_bytes(module.bias, bias));
}

// The bf16 copy is right after every step, skipped ones too, and after weights are loaded; it costs
// no launch and changes no parameter.
TEST(Optimizers, bf16_copies_follow_the_parameters) {
  for (const Device device : devices())
    for (const bool adam : {false, true}) {
      Small plain(DType::kF32), kept(DType::kF32);
      const auto make = [&](Module& module, bool copy) -> std::unique_ptr<Optimizer> {
        const auto common = [&](auto config) {
          config.skip_not_finite = true;
          config.clip_norm = 1;
          config.bf16_copy = copy;
          return config;
        };
        if (adam) return std::make_unique<AdamW>(module, common(AdamWConfig{}));
        SgdConfig sgd = common(SgdConfig{});
        sgd.momentum = 0.9;
        return std::make_unique<Sgd>(module, sgd);
      };
      plain.to(device);
      kept.to(device);
      const auto a = make(plain, false), b = make(kept, true);
      EXPECT_FALSE(plain.weight.bf16_copy().defined());
      const auto expect_right = [&](const char* what) {
        for (const Tensor& p : {kept.weight, kept.bias, b->arena().parameters()})
          EXPECT_TRUE(same_bytes(p.bf16_copy(), p.detach().to(DType::kBF16)))
              << what << " " << name_of(device);
        EXPECT_TRUE(same_bytes(kept.weight.detach(), plain.weight.detach())) << what;
      };
      expect_right("made");
      std::uint64_t launches[2] = {};
      const auto step = [&](int t, bool finite) {
        for (auto [module, optimizer] : {std::pair{&plain, a.get()}, std::pair{&kept, b.get()}}) {
          module->weight.grad().copy_from(gradient_at(module->weight, t));
          module->bias.grad().copy_from(gradient_at(module->bias, t));
          if (!finite) module->bias.grad().slice(0, 1).fill(std::nan(""));
          const std::uint64_t before = device == Device::kCuda ? cuda_runtime.launches() : 0;
          optimizer->step();
          if (device == Device::kCuda)
            launches[optimizer == b.get()] = cuda_runtime.launches() - before;
          optimizer->zero_grad();
        }
      };
      step(1, true);
      expect_right("stepped");
      EXPECT_EQ(launches[0], launches[1]);
      for (Small* module : {&plain, &kept})
        module->weight.detach().copy_from(randn({3, 5}, 9, DType::kF32));
      expect_right("loaded");
      step(2, false);
      expect_right("skipped");
      step(3, true);
      expect_right("stepped again");
    }
  Small module(DType::kF64);
  SgdConfig config;
  config.bf16_copy = true;
  EXPECT_THROW(Sgd(module, config), Error);
}

TEST(Optimizers, cuda_equals_cpu_with_clipping_and_decay) {
  for (const Device device : test::devices()) {
    Small cpu(DType::kF32), other(DType::kF32);
    other.to(device);
    SgdConfig sgd;
    sgd.momentum = 0.9;
    sgd.clip_norm = 2;
    sgd.weight_decay = 0.1;
    sgd.decay_norm_and_bias = false;
    AdamWConfig adamw;
    adamw.clip_norm = 2;
    for (const bool adam : {false, true}) {
      const auto make = [&](Module& module) -> std::unique_ptr<Optimizer> {
        if (adam) return std::make_unique<AdamW>(module, adamw);
        return std::make_unique<Sgd>(module, sgd);
      };
      const auto a = make(cpu), b = make(other);
      for (int step = 1; step <= 3; ++step) {
        for (auto [module, optimizer] : {std::pair{&cpu, a.get()}, std::pair{&other, b.get()}}) {
          optimizer->zero_grad();
          optimizer->set_learning_rate(0.1 / step);
          module->weight.grad().copy_from(gradient_at(module->weight, step));
          module->bias.grad().copy_from(gradient_at(module->bias, step));
          optimizer->step();
        }
        EXPECT_TRUE(all_close(other.weight, cpu.weight)) << name_of(device);
        EXPECT_TRUE(all_close(other.bias, cpu.bias)) << name_of(device);
      }
      const NamedTensors saved = a->state(), same = b->state();
      for (std::size_t i = 0; i < saved.size(); ++i)
        EXPECT_TRUE(all_close(same[i].second, saved[i].second)) << saved[i].first;
      b->load_state(saved);
      EXPECT_TRUE(same_bytes(b->state()[1].second, saved[1].second));
    }
  }
}

TEST(Optimizers, an_exploded_gradient_is_clipped) {
  for (const Device device : devices()) {
    Small module(DType::kF32);
    module.to(device);
    SgdConfig config;
    config.learning_rate = 1;
    config.clip_norm = 1;
    Sgd sgd(module, config);
    const std::vector<double> before = sgd.arena().parameters().to_vector<double>();
    module.weight.grad().fill(1e20);
    sgd.step();
    const std::vector<double> after = sgd.arena().parameters().to_vector<double>();
    for (std::size_t i = 0; i < 15; ++i)
      EXPECT_TRUE(close(before[i] - after[i], 1 / std::sqrt(15.), 1e-5, 1e-5)) << name_of(device);
  }
}

TEST(Optimizers, several_modules_with_prefixes) {
  Small a, b;
  EXPECT_THROW(Sgd(TrainedModules{{"", &a}, {"", &b}}, {}), Error);
  Sgd sgd(TrainedModules{{"", &a}, {"head.", &b}}, {});
  EXPECT_EQ(sgd.arena().slices()[2].path, "head.weight");
}

TEST(Optimizers, training_lowers_the_loss_and_asks_for_no_memory_in_steady_state) {
  for (const Device device : test::devices()) {
    const auto model = make_model(
        {.arch = "mlp", .classes = 2, .seed = 1, .options = {{"hidden", Ints{16}}}, .input = {4}});
    model->to(device);
    SgdConfig config;
    config.momentum = 0.9;
    config.learning_rate = 0.05;
    Sgd sgd(*model, config);
    const Tensor x = randn({32, 4}, 1).to(device), target = randn({32, 2}, 2).to(device);
    double first = 0, last = 0;
    [[maybe_unused]] std::uint64_t asked = 0;
    for (int step = 0; step < 60; ++step) {
      if (step == 30) asked = memory_statistics(device).system_allocations;
      sgd.zero_grad();
      const Tensor loss = mse(model->forward(x).logits, target);
      loss.backward();
      sgd.step();
      last = loss.item();
      if (step == 0) first = last;
    }
    EXPECT_LT(last, 0.7 * first);
#if !defined(RETORT_SANITIZED)
    EXPECT_EQ(memory_statistics(device).system_allocations, asked);
#endif
  }
}

TEST(Optimizers, state_goes_round_by_name_and_training_goes_on_with_the_same_bytes) {
  const Tensor x = randn({8, 4}, 1), target = randn({8, 10}, 2);
  const auto train = [&](Model& model, Optimizer& optimizer, int from, int to) {
    for (int step = from; step < to; ++step) {
      optimizer.zero_grad();
      optimizer.set_learning_rate(0.01 + 0.001 * step);
      mse(model.forward(x).logits, target).backward();
      optimizer.step();
    }
  };
  const ModelConfig architecture{
      .arch = "mlp", .seed = 1, .options = {{"hidden", Ints{6}}}, .input = {4}};
  const auto one = make_model(architecture), two = make_model(architecture);
  AdamWConfig config;
  AdamW a(*one, config);
  train(*one, a, 0, 5);
  const NamedTensors saved = a.state();
  EXPECT_EQ(saved.size(), 1 + 4 * 2u);
  EXPECT_EQ(saved[0].first, "step");
  EXPECT_EQ(saved[1].first, "fc1.weight.exp_avg");
  // Packed in another order: bias and norm apart.
  config.decay_norm_and_bias = false;
  config.weight_decay = 0;
  two->visit_parameters([&](const std::string& path, Tensor& p) {
    for (const auto& [name, tensor] : one->named_parameters())
      if (name == path) p.copy_from(tensor);
  });
  AdamW b(*two, config);
  b.load_state(saved);
  EXPECT_EQ(b.steps(), 5);
  const NamedTensors again = b.state();
  for (const auto& [name, tensor] : saved)
    for (const auto& [other, value] : again)
      if (other == name) {
        EXPECT_TRUE(same_bytes(value, tensor)) << name;
      }
  // And the same configuration goes on with the same bytes.
  const auto three = make_model(architecture);
  three->visit_parameters([&](const std::string& path, Tensor& p) {
    for (const auto& [name, tensor] : one->named_parameters())
      if (name == path) p.copy_from(tensor);
  });
  AdamW c(*three, AdamWConfig{});
  c.load_state(saved);
  train(*one, a, 5, 9);
  train(*three, c, 5, 9);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_TRUE(same_bytes(three->named_parameters()[i].second, one->named_parameters()[i].second));
}

TEST(Optimizers, a_state_that_does_not_fit_is_refused_whole) {
  Small module;
  SgdConfig config;
  config.momentum = 0.9;
  Sgd sgd(module, config);
  const NamedTensors good = sgd.state();
  NamedTensors bad = good;
  bad[1].second = Tensor::zeros({2, 2}, DType::kF64);
  bad[2].first = "other";
  try {
    sgd.load_state(bad);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_THAT(e.what(), HasSubstr("missing: bias.momentum_buffer"));
    EXPECT_THAT(e.what(), HasSubstr("wrong shape or dtype: weight.momentum_buffer"));
    EXPECT_THAT(e.what(), HasSubstr("unexpected: other"));
  }
  EXPECT_NO_THROW(sgd.load_state(good));
  EXPECT_THROW(Sgd(module, {}).load_state(good), Error);  // no momentum there
}

TEST(Optimizers, settings_out_of_range_are_refused) {
  Small module;
  SgdConfig config;
  config.momentum = 1;
  EXPECT_THROW(Sgd(module, config), Error);
  config.momentum = 0;
  config.nesterov = true;
  EXPECT_THROW(Sgd(module, config), Error);
  AdamWConfig adam;
  adam.beta1 = 1;
  EXPECT_THROW(AdamW(module, adam), Error);
  adam.beta1 = 0.9;
  adam.learning_rate = -1;
  EXPECT_THROW(AdamW(module, adam), Error);
}

TEST(Optimizers, a_learning_rate_that_is_no_number_is_refused_at_any_time) {
  const double infinity = std::numeric_limits<double>::infinity();
  Small module;
  SgdConfig config;
  config.learning_rate = 0.5;
  Sgd sgd(module, config);
  for (const double bad : {infinity, -infinity, std::nan(""), -0.1, 1e300}) {
    EXPECT_THROW(sgd.set_learning_rate(bad), Error) << bad;
    EXPECT_EQ(sgd.learning_rate(), 0.5);
    Small other;
    config.learning_rate = bad;
    EXPECT_THROW(Sgd(other, config), Error) << bad;
  }
}

TEST(Optimizers, clip_grad_norm_of_plain_leaves) {
  Tensor a = Tensor::zeros({2}), b = Tensor::zeros({1}), none = Tensor::zeros({1});
  for (Tensor* t : {&a, &b, &none}) t->set_requires_grad(true);
  a.set_grad(Tensor::from<float>({3, 0}, {2}));
  b.set_grad(Tensor::from<float>({4}, {1}));
  EXPECT_FLOAT_EQ(static_cast<float>(clip_grad_norm({a, b, none}, 10).item()), 5);
  EXPECT_EQ(a.grad().to_vector<float>()[0], 3);
  EXPECT_FLOAT_EQ(static_cast<float>(clip_grad_norm({a, b, none}, 1).item()), 5);
  EXPECT_NEAR(a.grad().to_vector<float>()[0], 0.6, 1e-6);
  EXPECT_NEAR(b.grad().to_vector<float>()[0], 0.8, 1e-6);
}

}  // namespace
}  // namespace retort::nn
