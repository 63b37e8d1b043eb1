#include "nn/models/plain_cnn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/autograd/autograd.h"
#include "engine/ops/mse.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::randn;
using test::same_bytes;
using ::testing::HasSubstr;

std::int64_t count(const std::string& arch, std::int64_t classes, const Options& options = {}) {
  return make_model({.arch = arch, .classes = classes, .options = options, .initialize = false})
      ->parameter_count();
}

// Counted from the layouts of the study's code: 9 in out + 2 out a convolution with its batch norm
// (the convolution's own bias, which the norm takes away, is left out), in out + out a fully
// connected layer, for 32 x 32 x 3.
TEST(PlainCnn, parameter_counts_are_those_of_the_published_layouts) {
  EXPECT_EQ(count("plain2", 10), 13050);
  EXPECT_EQ(count("plain4", 10), 37242);
  EXPECT_EQ(count("plain6", 10), 113274);
  EXPECT_EQ(count("plain8", 10), 327482);
  EXPECT_EQ(count("plain10", 10), 2486378);
  EXPECT_EQ(count("plain2", 100), 215108);
  EXPECT_EQ(count("plain4", 100), 475460);
  EXPECT_EQ(count("plain6", 100), 1106756);
  EXPECT_EQ(count("plain8", 100), 1245316);
  EXPECT_EQ(count("plain10", 100), 2929988);
  // 10 classes on the wider layout, and the other way round.
  EXPECT_EQ(count("plain2", 10, {{"layout", "cifar100"}}), 215108 - 90 * (8 * 8 * 32 + 1));
  EXPECT_EQ(count("plain2", 100, {{"layout", "cifar10"}}), 13050 + 90 * (8 * 8 * 16 + 1));
}

TEST(PlainCnn, hidden_layers_are_the_convolutions_before_their_pools) {
  const NoGrad no_grad;
  PlainCnn model("C4,M,C6,C5,M,FC7,FC3", {8, 12, 2});
  model.initialize(1);
  EXPECT_EQ(model.facts().hidden_layers, 3);
  EXPECT_EQ(model.facts().classes, 3);
  EXPECT_EQ(model.facts().reads, Reads::kImages);
  const Outputs y = model.forward(randn({2, 8, 12, 2}, 1), {.hidden = true});
  const std::vector<Shape> want{{2, 8, 12, 4}, {2, 4, 6, 6}, {2, 4, 6, 5}};
  ASSERT_EQ(y.pre.size(), 3u);
  ASSERT_EQ(y.post.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(y.pre[i].shape(), want[i]);
    EXPECT_EQ(y.post[i].shape(), want[i]);
    const auto pre = y.pre[i].to_vector<float>(), post = y.post[i].to_vector<float>();
    for (std::size_t k = 0; k < pre.size(); ++k) ASSERT_EQ(post[k], std::max(pre[k], 0.0f));
  }
  EXPECT_EQ(y.features.shape(), (Shape{2, 7}));  // what the last layer reads
  EXPECT_EQ(y.logits.shape(), (Shape{2, 3}));
}

TEST(PlainCnn, names_and_first_values_are_pytorchs) {
  PlainCnn model("C4,M,FC3", {4, 4, 2});
  model.initialize(1);
  std::vector<std::string> names;
  for (const auto& [path, p] : model.named_parameters()) names.push_back(path);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("conv1.weight", "bn1.weight", "bn1.bias",
                                                     "fc1.weight", "fc1.bias"));
  const auto wide = make_model({.arch = "plain4", .seed = 1});
  for (const auto& [path, p] : wide->named_parameters()) {
    if (path != "conv3.weight") continue;
    const double bound = 1 / std::sqrt(9.0 * 16);  // nn.Conv2d: U(-1/sqrt(fan in), ...)
    double largest = 0;
    for (const double v : p.to_vector<double>()) largest = std::max(largest, std::abs(v));
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, 0.9 * bound);
  }
}

TEST(PlainCnn, every_parameter_gets_the_gradient_that_differences_show) {
  PlainCnn model("C3,M,C4,FC5,FC3", {4, 4, 2});
  model.initialize(3);
  const Tensor x = randn({3, 4, 4, 2}, 5), target = randn({3, 3}, 6);
  const auto loss = [&] { return mse(model.forward(x).logits, target); };
  loss().backward();
  model.visit_parameters([&](const std::string& path, Tensor& p) {
    ASSERT_TRUE(p.grad().defined()) << path;
    const std::vector<double> g = p.grad().to_vector<double>();
    const Tensor start = p.detach().clone(), step = randn(p.shape(), path_hash(path.c_str()));
    // Along a random direction, so that one difference meets every element. f32, ReLUs: 3 %.
    const std::vector<double> d = step.to_vector<double>();
    double want = 0;
    for (std::size_t i = 0; i < g.size(); ++i) want += g[i] * d[i];
    const auto at = [&](double h) {
      std::vector<float> moved = start.to_vector<float>();
      for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += static_cast<float>(h * d[i]);
      p.detach().copy_from(Tensor::from(moved, p.shape()));
      const NoGrad no_grad;
      const double value = loss().to_vector<double>()[0];
      p.detach().copy_from(start);
      return value;
    };
    EXPECT_NEAR((at(1e-3) - at(-1e-3)) / 2e-3, want, 0.03 * std::abs(want) + 1e-3) << path;
  });
}

TEST(PlainCnn, layouts_and_inputs_that_do_not_fit_are_refused) {
  EXPECT_THROW(PlainCnn("M,C4,FC3", {8, 8, 3}), Error);   // a pool in front
  EXPECT_THROW(PlainCnn("C4,FC3,C4", {8, 8, 3}), Error);  // a convolution behind
  EXPECT_THROW(PlainCnn("C4,X,FC3", {8, 8, 3}), Error);
  EXPECT_THROW(PlainCnn("C4x,FC3", {8, 8, 3}), Error);
  EXPECT_THROW(PlainCnn("C0,FC3", {8, 8, 3}), Error);
  EXPECT_THROW(PlainCnn("C4", {8, 8, 3}), Error);  // no last layer
  EXPECT_THROW(PlainCnn("", {8, 8, 3}), Error);
  EXPECT_THROW(PlainCnn("C4,M,C4,M,FC3", {2, 8, 3}), Error);  // too small for two pools
  EXPECT_THROW(PlainCnn("C4,FC3", {8, 8}), Error);
  PlainCnn model("C4,FC3", {8, 8, 3});
  EXPECT_THROW(model.forward(Tensor::zeros({1, 3, 8, 8})), Error);
  EXPECT_THROW(model.forward(Tensor::zeros({8, 8, 3})), Error);
  EXPECT_THROW(make_model({.arch = "plain2", .options = {{"layout", "mnist"}}}), Error);
  EXPECT_THROW(make_model({.arch = "plain10", .input = {8, 8, 3}}), Error);
}

TEST(PlainCnn, cuda_equals_cpu_forward_and_backward) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  const Tensor x = randn({2, 8, 8, 3}, 5), target = randn({2, 4}, 6);
  PlainCnn cpu("C6,M,C8,M,FC5,FC4", {8, 8, 3}), cuda("C6,M,C8,M,FC5,FC4", {8, 8, 3});
  cpu.initialize(2);
  cuda.initialize(2);
  cuda.to(Device::kCuda);
  const Tensor a = cpu.forward(x).logits, b = cuda.forward(x.to(Device::kCuda)).logits;
  EXPECT_TRUE(all_close(b, a, {1e-4, 1e-5}));
  mse(a, target).backward();
  mse(b, target.to(Device::kCuda)).backward();
  const auto want = cpu.named_parameters(), got = cuda.named_parameters();
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(all_close(got[i].second.grad(), want[i].second.grad(), {1e-3, 1e-5}))
        << want[i].first;
}

}  // namespace
}  // namespace retort::nn
