#include "engine/ops/linear.h"

#include <gtest/gtest.h>

#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "engine/ops/reduce.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Linear, hand_checked_numbers) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2}, device),
           w = Tensor::from<float>({1, 0, 0, 1, 1, -1}, {3, 2}, device),
           b = Tensor::from<float>({10, 20, 30}, {3}, device);
    x.set_requires_grad(true);
    w.set_requires_grad(true);
    b.set_requires_grad(true);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{11, 22, 29, 13, 24, 29}));
    y.backward(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, device));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, -1, 10, -1}));
    EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{13, 18, 17, 24, 21, 30}));
    EXPECT_EQ(b.grad().to_vector<float>(), (std::vector<float>{5, 7, 9}));
  }
}

TEST(Linear, equals_matmul_plus_bias_for_padded_and_stacked_rows) {
  for (const Device device : devices()) {
    const Tensor w = randn({5, 7}, 2).to(device), b = randn({5}, 3).to(device);
    const Tensor wide = randn({6, 16}, 1).to(device);
    const Tensor x = Tensor::wrap(wide.storage(), 0, {2, 3, 7}, DType::kF32, 16);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.shape(), (Shape{2, 3, 5}));
    const auto product =
                   matmul(Tensor::wrap(wide.storage(), 0, {6, 7}, DType::kF32, 16), w, false, true)
                       .to_vector<float>(),
               bias = b.to_vector<float>(), got = y.to_vector<float>();
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(close(got[i], product[i] + bias[i % 5], 1.3e-6, 1e-6));
  }
}

TEST(Linear, gradients_agree_with_differences) {
  const auto f = [](const std::vector<Tensor>& in) { return linear(in[0], in[1], in[2]); };
  EXPECT_TRUE(gradcheck(f, {randn({4, 3}, 1, DType::kF64), randn({5, 3}, 2, DType::kF64),
                            randn({5}, 3, DType::kF64)})
                  .ok);
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto result =
          gradcheck([=](const std::vector<Tensor>& in) { return matmul(in[0], in[1], ta, tb); },
                    {randn(ta ? Shape{3, 4} : Shape{4, 3}, 1, DType::kF64),
                     randn(tb ? Shape{2, 3} : Shape{3, 2}, 2, DType::kF64)});
      EXPECT_TRUE(result.ok) << ta << tb;
    }
}

TEST(Linear, relu_variant_is_the_chain_of_both_to_the_byte) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const bool with_bias : {true, false})
        for (const std::int64_t rows : {1, 3, 70, 200}) {
          std::vector<Tensor> chain, fused;
          for (std::vector<Tensor>* results : {&chain, &fused}) {
            Tensor x = randn({rows, 9}, 1, dtype).to(device),
                   w = randn({33, 9}, 2, dtype).to(device),
                   b = with_bias ? randn({33}, 3, dtype).to(device) : Tensor{};
            for (Tensor* t : {&x, &w, &b})
              if (t->defined()) t->set_requires_grad(true);
            const Tensor y = results == &chain ? linear_composed(x, w, b, Activation::kRelu)
                                               : linear_relu(x, w, b);
            const Tensor dy = randn({rows, 33}, 4, dtype).to(device), copy = dy.clone();
            y.backward(dy);
            EXPECT_TRUE(same_bytes(dy, copy));  // ours: not to be masked in place
            results->assign({y.detach(), x.grad(), w.grad()});
            if (with_bias) results->push_back(b.grad());
          }
          // bf16 on CUDA: the fused product masks before it rounds, which changes no sign.
          for (std::size_t i = 0; i < chain.size(); ++i)
            if (device == Device::kCpu || i < 3)
              EXPECT_TRUE(same_bytes(fused[i], chain[i])) << name_of(device) << i << name_of(dtype);
            else  // another order of summation
              EXPECT_TRUE(all_close(fused[i], chain[i]));
        }
}

TEST(Linear, relu_variant_masks_in_place_only_what_nobody_else_holds) {
  // One dy goes to both branches of the sum: the first to run must leave it alone.
  for (const Device device : devices()) {
    std::vector<std::vector<Tensor>> results;
    for (const bool fused : {false, true}) {
      Tensor w1 = randn({6, 4}, 1).to(device), w2 = randn({6, 4}, 2).to(device);
      w1.set_requires_grad(true), w2.set_requires_grad(true);
      const Tensor x = randn({5, 4}, 3).to(device);
      const auto layer = [&](const Tensor& w) {
        return fused ? linear_relu(x, w, {}) : linear_composed(x, w, {}, Activation::kRelu);
      };
      sum(square(add(layer(w1), layer(w2)))).backward();
      results.push_back({w1.grad(), w2.grad()});
    }
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(same_bytes(results[0][i], results[1][i])) << i;
  }
}

constexpr Activation kAll[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                               Activation::kGeluTanh, Activation::kTanh};

TEST(Linear, every_activation_is_its_definition_forward_and_backward) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const Activation f : kAll)
        for (const bool with_bias : {true, false})
          for (const std::int64_t rows : {3, 100}) {  // 100: panels on the CPU
            std::vector<std::vector<Tensor>> results;
            for (const bool fused : {true, false}) {
              Tensor x = randn({rows, 9}, 1, dtype).to(device),
                     w = randn({33, 9}, 2, dtype).to(device),
                     b = with_bias ? randn({33}, 3, dtype).to(device) : Tensor{};
              for (Tensor* t : {&x, &w, &b})
                if (t->defined()) t->set_requires_grad(true);
              const Tensor y = fused ? linear(x, w, b, f) : linear_composed(x, w, b, f);
              const Tensor dy = randn({rows, 33}, 4, dtype).to(device), copy = dy.clone();
              y.backward(dy);
              EXPECT_TRUE(same_bytes(dy, copy));  // ours: not to be written in place
              results.push_back({y.detach(), x.grad(), w.grad()});
              if (with_bias) results.back().push_back(b.grad());
              const NoGrad no_grad;                     // without a place for z
              const bool once = dtype == DType::kBF16;  // or twice, where z is kept
              EXPECT_TRUE(all_close(linear(x, w, b, f), y.detach(),
                                    {once ? 3e-2 : tolerance_of(dtype).rtol, once ? 2e-3 : 1e-5}));
            }
            // bf16: the definition rounds z before f, and gradients are sums of 200 rounded terms.
            const bool half = dtype == DType::kBF16;
            for (std::size_t i = 0; i < results[0].size(); ++i)
              EXPECT_TRUE(all_close(
                  results[0][i], results[1][i],
                  {half ? 3e-2 : tolerance_of(dtype).rtol, half                   ? 2e-1
                                                           : dtype == DType::kF32 ? 5e-5
                                                                                  : 1e-12}))
                  << name_of(f) << " " << i << " " << name_of(dtype) << " " << name_of(device);
          }
}

TEST(Linear, gradients_of_every_activation_agree_with_differences) {
  for (const Activation f : kAll) {
    const auto result = gradcheck(
        [&](const auto& in) { return linear(in[0], in[1], in[2], f); },
        {randn({4, 3}, 1, DType::kF64), randn({5, 3}, 2, DType::kF64), randn({5}, 3, DType::kF64)});
    EXPECT_TRUE(result.ok) << name_of(f) << ": " << result.message;
  }
}

TEST(Linear, micro_batches_add_to_the_weights_gradient_in_place) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32}) {
      Tensor w = randn({6, 4}, 1, dtype).to(device), whole = w.clone();
      w.set_requires_grad(true), whole.set_requires_grad(true);
      const Tensor x = randn({10, 4}, 2, dtype).to(device),
                   dy = randn({10, 6}, 3, dtype).to(device);
      linear(x.slice(0, 4), w, {}).backward(dy.slice(0, 4));
      const Tensor before = w.grad();
      linear(x.slice(4, 10), w, {}).backward(dy.slice(4, 10));
      linear(x, whole, {}).backward(dy);
      EXPECT_EQ(w.grad().raw(), before.raw());
      EXPECT_TRUE(all_close(w.grad(), whole.grad())) << name_of(device) << name_of(dtype);
    }
}

TEST(Linear, relu_variant_gradients_agree_with_differences_and_no_rows_are_fine) {
  const auto f = [](const std::vector<Tensor>& in) { return linear_relu(in[0], in[1], in[2]); };
  EXPECT_TRUE(gradcheck(f, {randn({4, 3}, 1, DType::kF64), randn({5, 3}, 2, DType::kF64),
                            randn({5}, 3, DType::kF64)})
                  .ok);
  for (const Device device : devices()) {
    Tensor w = randn({5, 3}, 2).to(device), b = randn({5}, 3).to(device);
    w.set_requires_grad(true), b.set_requires_grad(true);
    const Tensor y = linear_relu(Tensor::empty({0, 3}, DType::kF32, device), w, b);
    EXPECT_EQ(y.shape(), (Shape{0, 5}));
    y.backward(Tensor::empty({0, 5}, DType::kF32, device));
    for (const float g : b.grad().to_vector<float>()) EXPECT_EQ(g, 0);
    for (const float g : w.grad().to_vector<float>()) EXPECT_EQ(g, 0);
  }
}

TEST(Linear, cuda_gradients_equal_cpu_gradients) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<Tensor> wanted;
    for (const Device device : devices()) {
      std::vector<Tensor> in{randn({33, 20}, 1, dtype).to(device),
                             randn({70, 20}, 2, dtype).to(device),
                             randn({70}, 3, dtype).to(device)};
      for (Tensor& t : in) t.set_requires_grad(true);
      const Tensor y = linear(in[0], in[1], in[2]);
      y.backward(randn({33, 70}, 4, dtype).to(device));
      std::vector<Tensor> got{y.detach()};
      for (const Tensor& t : in) got.push_back(t.grad());
      if (device == Device::kCpu) wanted = got;
      // Sums of up to 70 products of size 1: a few ulps of the largest partial sum.
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(all_close(got[i].to(Device::kCpu), wanted[i],
                              {tolerance_of(dtype).rtol, dtype == DType::kF32 ? 2e-5 : 1e-2}))
            << name_of(dtype) << " " << i;
    }
  }
}

TEST(Linear, empty_batch) {
  Tensor x = Tensor::empty({0, 4}), w = randn({3, 4}, 1), b = randn({3}, 2);
  w.set_requires_grad(true);
  b.set_requires_grad(true);
  const Tensor y = linear(x, w, b);
  EXPECT_EQ(y.shape(), (Shape{0, 3}));
  y.backward(Tensor::empty({0, 3}));
  EXPECT_EQ(b.grad().to_vector<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(w.grad().to_vector<float>(), std::vector<float>(12, 0.f));
}

TEST(Linear, without_inputs_it_is_the_bias) {
  for (const Device device : devices()) {
    Tensor x = Tensor::empty({4, 0}, DType::kF32, device),
           w = Tensor::empty({2, 0}, DType::kF32, device),
           b = Tensor::from<float>({-1, 2}, {2}, device);
    for (Tensor* t : {&x, &w, &b}) t->set_requires_grad(true);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{-1, 2, -1, 2, -1, 2, -1, 2}));
    EXPECT_EQ(linear_relu(x, w, b).slice(0, 1).to_vector<float>(), (std::vector<float>{0, 2}));
    EXPECT_EQ(linear(x, w, {}).to_vector<float>(), std::vector<float>(8, 0.f));
    y.backward(Tensor::full({4, 2}, 1, DType::kF32, device));
    EXPECT_EQ(b.grad().to_vector<float>(), (std::vector<float>{4, 4}));
    EXPECT_EQ(x.grad().shape(), x.shape());
    EXPECT_EQ(w.grad().shape(), w.shape());
  }
}

TEST(Linear, wrong_shapes_throw) {
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 2}), {}), Error);
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({3})), Error);
  EXPECT_THROW(linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}, DType::kF64), {}), Error);
  EXPECT_THROW(matmul(Tensor::zeros({2, 3}), Tensor::zeros({2, 3})), Error);
  EXPECT_THROW(matmul(Tensor::zeros({2, 3}), Tensor::zeros({3})), Error);
}

}  // namespace
}  // namespace retort::test
