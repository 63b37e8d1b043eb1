#include "engine/ops/conv2d.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/autograd/autograd.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/graph.h"
#include "tests/support/close.h"
#include "tests/support/own_convolution.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// d(sum(dy * conv(x, w))) by central differences in every element of x and w. The op is linear in
// each, so the differences have no truncation error.
void check_gradients(const Shape& x_shape, const Shape& weight_shape, const Conv2dOptions& o) {
  Tensor x = randn(x_shape, 1, DType::kF64), weight = randn(weight_shape, 2, DType::kF64);
  x.set_requires_grad(true);
  weight.set_requires_grad(true);
  const Tensor y = conv2d(x, weight, o);
  const Tensor dy = randn(y.shape(), 3, DType::kF64);
  y.backward(dy);
  const std::vector<double> dy_values = dy.to_vector<double>();
  for (const Tensor& input : {x, weight}) {
    const std::vector<double> got = input.grad().to_vector<double>();
    double* const values = input.data<double>();
    const NoGrad no_grad;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double before = values[i], step = 1e-3;
      values[i] = before + step;
      const double up = dot(conv2d(x, weight, o).to_vector<double>(), dy_values);
      values[i] = before - step;
      const double down = dot(conv2d(x, weight, o).to_vector<double>(), dy_values);
      values[i] = before;
      EXPECT_TRUE(close(got[i], (up - down) / (2 * step), 1e-8, 1e-9)) << i;
    }
  }
}

TEST(Conv2dOp, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {1, 2, 2, 1}, device),
                 weight = Tensor::from<float>({10, 20, 30, 40}, {1, 2, 2, 1}, device);
    const Tensor y = conv2d(x, weight, {});
    EXPECT_TRUE(y.shape() == (Shape{1, 1, 1, 1}));
    EXPECT_EQ(y.item(), 300) << name_of(device);
  }
}

TEST(Conv2dOp, gradients_equal_central_differences) {
  check_gradients({2, 4, 5, 3}, {2, 3, 3, 3}, {1, 1});
  check_gradients({1, 5, 5, 2}, {3, 3, 3, 2}, {2, 1});
  check_gradients({2, 4, 4, 2}, {3, 1, 1, 2}, {2, 0});
  check_gradients({1, 5, 4, 1}, {2, 2, 3, 1}, {1, 0});
}

TEST(Conv2dOp, gradients_are_the_same_on_every_device) {
  for (const Device device : devices()) {
    Tensor x = randn({2, 6, 5, 3}, 1).to(device).detach(),
           weight = randn({4, 3, 3, 3}, 2).to(device).detach();
    x.set_requires_grad(true);
    weight.set_requires_grad(true);
    const Tensor y = conv2d(x, weight, {2, 1});
    y.backward(randn(y.shape(), 3).to(device));
    Tensor x64 = randn({2, 6, 5, 3}, 1).to(DType::kF64),
           weight64 = randn({4, 3, 3, 3}, 2).to(DType::kF64);
    x64.set_requires_grad(true);
    weight64.set_requires_grad(true);
    const Tensor y64 = conv2d(x64, weight64, {2, 1});
    y64.backward(randn(y.shape(), 3).to(DType::kF64));
    EXPECT_TRUE(all_close(y.detach().to(Device::kCpu), y64.detach())) << name_of(device);
    EXPECT_TRUE(all_close(x.grad().to(Device::kCpu), x64.grad())) << name_of(device);
    EXPECT_TRUE(all_close(weight.grad().to(Device::kCpu), weight64.grad())) << name_of(device);
  }
}

TEST(Conv2dOp, computes_only_the_gradients_that_are_wanted) {
  const Tensor x = randn({1, 4, 4, 2}, 1);
  Tensor weight = randn({3, 3, 3, 2}, 2);
  weight.set_requires_grad(true);
  const Tensor y = conv2d(x, weight, {1, 1});
  y.backward(Tensor::full(y.shape(), 1));
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(conv2d(x, weight.detach(), {1, 1}).requires_grad());
}

// f32 weights under bf16 images are rounded by the convolution, or read from their bf16 copy: the
// same bytes everywhere, and on CUDA one launch less.
TEST(Conv2dOp, a_bf16_copy_of_the_weights_changes_no_byte) {
  if (!convolutions_are_own()) GTEST_SKIP() << "the two may get different algorithms";
  for (const Device device : devices())
    for (const std::int64_t channels : {8, 3}) {
      std::vector<Tensor> results[2];
      std::uint64_t launches[2] = {};
      for (const bool keep : {false, true}) {
        Tensor x = randn({2, 6, 5, channels}, 1, DType::kBF16).to(device).detach(),
               weight = randn({16, 3, 3, channels}, 2).to(device).detach();
        if (keep) weight.keep_bf16_copy();
        const Tensor folded =
            conv2d_inference(x, weight, randn({16}, 4).to(device), {1, 1}, /*relu=*/true);
        x.set_requires_grad(true);
        weight.set_requires_grad(true);
        const bool counts = device == Device::kCuda;
        const std::uint64_t before = counts ? cuda_runtime.launches() : 0;
        const Tensor y = conv2d(x, weight, {1, 1});
        launches[keep] = counts ? cuda_runtime.launches() - before : 0;
        y.backward(randn(y.shape(), 3, DType::kBF16).to(device));
        EXPECT_EQ(weight.grad().dtype(), DType::kF32);
        results[keep] = {folded, y.detach(), x.grad(), weight.grad()};
      }
      for (std::size_t i = 0; i < results[0].size(); ++i)
        EXPECT_TRUE(same_bytes(results[0][i], results[1][i])) << i << " on " << name_of(device);
      // Rows of 3 x 3 x 3 weights are no whole chunks of 8: they are padded either way.
      const std::uint64_t saved = device == Device::kCuda && channels == 8 ? 1 : 0;
      EXPECT_EQ(launches[false] - launches[true], saved);
    }
}

// Gradients of weights are written where the leaf keeps them, unless something is there already.
TEST(Conv2dOp, weight_gradients_go_to_the_leafs_memory_and_accumulate) {
  for (const Device device : devices()) {
    const Tensor x = randn({2, 5, 5, 8}, 1).to(device), dy = randn({2, 5, 5, 16}, 5).to(device);
    std::vector<Tensor> leaves{randn({16, 3, 3, 8}, 2).to(device).detach(),
                               randn({16}, 3).to(device).detach(),
                               randn({16}, 4).to(device).detach()};
    const Tensor flat = Tensor::full({3 * 16 * 72}, 7, DType::kF32, device);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      leaves[i].set_requires_grad(true);
      const auto begin = static_cast<std::int64_t>(i) * 16 * 72;
      leaves[i].set_grad(flat.slice(begin, begin + leaves[i].numel()).view(leaves[i].shape()));
      leaves[i].zero_grad();
    }
    const auto once = [&] {
      batch_norm(conv2d(x, leaves[0], {1, 1}), leaves[1], leaves[2], {}, {},
                 {true, 0.1, 1e-5, true})
          .backward(dy);
    };
    once();
    std::vector<Tensor> first;
    for (const Tensor& leaf : leaves) {
      EXPECT_EQ(leaf.grad().storage(), flat.storage());
      first.push_back(leaf.grad().clone());
    }
    once();
    for (std::size_t i = 0; i < leaves.size(); ++i)
      EXPECT_TRUE(same_bytes(leaves[i].grad(), scale(first[i], 2))) << i << name_of(device);
    for (const Tensor& leaf : leaves) leaf.zero_grad();
    once();
    for (std::size_t i = 0; i < leaves.size(); ++i)
      EXPECT_TRUE(same_bytes(leaves[i].grad(), first[i])) << i << name_of(device);
    if (device == Device::kCpu) continue;
    Graph graph(std::make_shared<GraphMemory>());
    const auto step = [&] {
      once();
      for (const Tensor& leaf : leaves) leaf.zero_grad();
    };
    for (const Tensor& leaf : leaves) leaf.zero_grad();
    while (!graph.rehearse(step)) continue;
    graph.capture(step);
    EXPECT_EQ(graph.info().copies, 0);
  }
}

// conv2d's statistics go into batch_norm: values and gradients as without them.
TEST(Conv2dOp, statistics_feed_batch_norm) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<Tensor> results[2];
      for (const bool handed : {false, true}) {
        Tensor x = randn({3, 9, 8, 5}, 1, dtype).to(device).detach(),
               weight = randn({12, 3, 3, 5}, 2).to(device).detach();
        x.set_requires_grad(true);
        weight.set_requires_grad(true);
        const Tensor scale = randn({12}, 3, DType::kF32, 0.5, 1).to(device),
                     shift = randn({12}, 4).to(device),
                     mean = Tensor::zeros({12}, DType::kF32, device),
                     var = Tensor::full({12}, 1, DType::kF32, device);
        ChannelStatistics statistics;
        const Tensor h = conv2d(x, weight, {1, 1}, handed ? &statistics : nullptr);
        EXPECT_EQ(statistics.defined(), handed);
        const Tensor y =
            batch_norm(h, scale, shift, mean, var, {true, 0.1, 1e-5, true}, {}, statistics);
        y.backward(randn(y.shape(), 5, dtype).to(device));
        results[handed] = {y.detach(), mean, var, x.grad(), weight.grad()};
      }
      const double e = dtype == DType::kF32 ? 1e-4 : 3e-2;
      for (std::size_t i = 0; i < results[0].size(); ++i)
        EXPECT_TRUE(all_close(results[1][i], results[0][i], {e, e}))
            << i << " on " << name_of(device) << " in " << name_of(dtype);
    }
}

// With a batch norm in between, and its statistics from the convolution.
TEST(Conv2dOp, gradients_through_handed_statistics_equal_central_differences) {
  Tensor x = randn({2, 3, 4, 2}, 1, DType::kF64), weight = randn({3, 3, 3, 2}, 2, DType::kF64);
  const Tensor scale = randn({3}, 3, DType::kF64), shift = randn({3}, 4, DType::kF64);
  const auto f = [&](const Tensor& in, const Tensor& filter) {
    ChannelStatistics statistics;
    const Tensor h = conv2d(in, filter, {1, 1}, &statistics);
    return batch_norm(h, scale, shift, {}, {}, {true, 0.1, 1e-5, false}, {}, statistics);
  };
  x.set_requires_grad(true);
  weight.set_requires_grad(true);
  const Tensor y = f(x, weight), dy = randn(y.shape(), 5, DType::kF64);
  y.backward(dy);
  const NoGrad no_grad;
  for (const Tensor& input : {x, weight}) {
    const std::vector<double> got = input.grad().to_vector<double>();
    for (std::size_t i = 0; i < got.size(); ++i) {
      double* const value = input.data<double>() + i;
      const double before = *value, step = 1e-5;
      *value = before + step;
      const double up = dot(f(x, weight).to_vector<double>(), dy.to_vector<double>());
      *value = before - step;
      const double down = dot(f(x, weight).to_vector<double>(), dy.to_vector<double>());
      *value = before;
      EXPECT_TRUE(close(got[i], (up - down) / (2 * step), 1e-6, 1e-7)) << i;
    }
  }
}

TEST(Conv2dOp, inference_equals_its_parts) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = randn({2, 5, 6, 8}, 1, dtype).to(device),
                   weight = randn({10, 3, 3, 8}, 2, dtype).to(device),
                   bias = randn({10}, 3).to(device);
      const Tensor residual = randn({2, 3, 3, 10}, 4, dtype).to(device);
      const Tensor y = conv2d(x, weight, {2, 1});
      std::vector<double> want = y.to_vector<double>();
      const std::vector<double> b = bias.to_vector<double>(), r = residual.to_vector<double>();
      for (std::size_t i = 0; i < want.size(); ++i)
        want[i] = std::max(0.0, want[i] + b[i % 10] + r[i]);
      const Tensor got = conv2d_inference(x, weight, bias, {2, 1}, true, residual);
      const double e = dtype == DType::kF32 ? 1e-5 : 2e-2;
      EXPECT_TRUE(all_close(got, Tensor::from(want, y.shape()), {e, 4 * e})) << name_of(device);
      EXPECT_FALSE(got.requires_grad());
    }
}

TEST(Conv2dOp, inference_refuses_what_does_not_fit) {
  const Tensor x = Tensor::zeros({1, 4, 4, 2}), weight = Tensor::zeros({3, 3, 3, 2}),
               bias = Tensor::zeros({3});
  Tensor learned = weight.clone();
  learned.set_requires_grad(true);
  EXPECT_NO_THROW(conv2d_inference(x, weight, bias, {1, 1}));
  EXPECT_THROW(conv2d_inference(x, learned, bias, {1, 1}), Error);
  EXPECT_THROW(conv2d_inference(x, weight, {}, {1, 1}), Error);
  EXPECT_THROW(conv2d_inference(x, weight, Tensor::zeros({2}), {1, 1}), Error);
  EXPECT_THROW(conv2d_inference(x, weight, Tensor::zeros({3}, DType::kF64), {1, 1}), Error);
  EXPECT_THROW(conv2d_inference(x, weight, bias, {1, 1}, false, x), Error);
  const NoGrad no_grad;
  EXPECT_NO_THROW(conv2d_inference(x, learned, bias, {1, 1}));
}

TEST(Conv2dOp, wrong_shapes_throw) {
  const Tensor x = Tensor::zeros({1, 4, 4, 2}), weight = Tensor::zeros({3, 3, 3, 2});
  EXPECT_THROW(conv2d(Tensor(), weight, {}), Error);
  EXPECT_THROW(conv2d(Tensor::zeros({4, 4, 2}), weight, {}), Error);
  EXPECT_THROW(conv2d(x, Tensor::zeros({3, 3, 3, 5}), {}), Error);
  EXPECT_THROW(conv2d(x, Tensor::zeros({3, 2}), {}), Error);
  EXPECT_THROW(conv2d(x, weight.to(DType::kF64), {}), Error);
  EXPECT_THROW(conv2d(x, weight, {0, 0}), Error);
  EXPECT_THROW(conv2d(x, Tensor::zeros({3, 7, 7, 2}), {}), Error);
}

}  // namespace
}  // namespace retort::test
