#include "nn/optim/arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "engine/ops/mse.h"
#include "nn/models/registry.h"
#include "nn/optim/optimizer.h"
#include "tests/nn/optim/small.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::randn;
using test::same_bytes;
using ::testing::HasSubstr;

TEST(Arena, holds_values_and_gradients_of_the_module) {
  const auto model = make_model({.arch = "mlp", .options = {{"hidden", Ints{5}}}, .input = {3}});
  const auto before = model->named_parameters();
  Sgd sgd(*model, {});
  const auto after = model->named_parameters();
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_TRUE(same_bytes(after[i].second, before[i].second));
    EXPECT_EQ(after[i].second.storage(), sgd.arena().parameters().storage());
    EXPECT_EQ(after[i].second.grad().storage(), sgd.arena().gradients().storage());
  }
  // Backward writes into the arena; a second backward adds; zero_grad clears.
  const Tensor x = randn({4, 3}, 1), target = Tensor::zeros({4, 10});
  mse(model->forward(x).logits, target).backward();
  const Tensor once = sgd.arena().gradients().clone();
  mse(model->forward(x).logits, target).backward();
  std::vector<double> twice = once.to_vector<double>();
  for (double& g : twice) g *= 2;
  EXPECT_TRUE(
      all_close(sgd.arena().gradients(), Tensor::from(twice, once.shape()).to(DType::kF32)));
  EXPECT_GT(std::abs(once.to_vector<float>()[0]), 0);
  sgd.zero_grad();
  for (const float g : sgd.arena().gradients().to_vector<float>()) EXPECT_EQ(g, 0);
  mse(model->forward(x).logits, target).backward();
  EXPECT_TRUE(same_bytes(sgd.arena().gradients(), once));
}

TEST(Arena, frozen_parameters_are_left_out) {
  Small module;
  module.bias.set_requires_grad(false);
  Sgd sgd(module, {});
  ASSERT_EQ(sgd.arena().slices().size(), 1u);
  EXPECT_EQ(sgd.arena().slices()[0].path, "weight");
  module.weight.set_requires_grad(false);
  EXPECT_THROW(Sgd(module, {}), Error);
}

// The arena would go on with gradients that backward no longer writes.
TEST(Arena, parameters_frozen_or_moved_since_are_an_error_at_the_next_step) {
  const auto error_after = [](const std::function<void(Small&)>& change) -> std::string {
    Small module;
    Sgd sgd(module, {});
    sgd.step();
    change(module);
    try {
      sgd.step();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_EQ(sgd.steps(), 1);
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error_after([](Small&) {}), "");
  EXPECT_THAT(error_after([](Small& m) { m.bias.set_requires_grad(false); }),
              HasSubstr("'bias' as it was when this optimizer was made, got a parameter that is "
                        "frozen: make a new optimizer"));
  EXPECT_THAT(error_after([](Small& m) {
                m.requires_grad(false);
                m.requires_grad(true);
              }),
              HasSubstr("'weight' as it was when this optimizer was made"));
  EXPECT_THAT(error_after([](Small& m) { Sgd other(m, {}); }), HasSubstr("another optimizer"));
  if (test::devices().size() > 1) {
    EXPECT_THAT(error_after([](Small& m) { m.to(Device::kCuda); }), HasSubstr("moved"));
  }
  // Without its module there is nothing to be wrong about.
  auto module = std::make_unique<Small>();
  Sgd sgd(*module, {});
  module.reset();
  sgd.step();
}

}  // namespace
}  // namespace retort::nn
