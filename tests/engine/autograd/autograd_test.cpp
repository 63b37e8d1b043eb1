#include "engine/autograd/autograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/axpy.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

Tensor leaf(std::vector<float> values, const Shape& shape, Device device = Device::kCpu) {
  Tensor t = Tensor::from(values, shape, device);
  t.set_requires_grad(true);
  return t;
}

TEST(Autograd, a_chain_by_hand) {
  for (const Device device : devices()) {
    const Tensor x = leaf({2, 3}, {2}, device);
    sum(square(scale(x, 3))).backward();  // d/dx 9 x^2 = 18 x
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{36, 54})) << name_of(device);
  }
}

TEST(Autograd, a_tensor_used_twice_gets_both_gradients) {
  const Tensor x = leaf({2}, {1});
  const Tensor y = square(x);                   // inner node with two consumers
  add(multiply(y, x), scale(y, 5)).backward();  // x^3 + 5 x^2
  EXPECT_EQ(x.grad().item(), 3 * 4 + 10 * 2);
}

TEST(Autograd, gradients_accumulate_and_are_cleared_in_place) {
  const Tensor x = leaf({1, 1}, {2});
  sum(x).backward();
  const void* const memory = x.grad().raw();
  sum(scale(x, 2)).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{3, 3}));
  x.zero_grad();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{0, 0}));
  sum(x).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{1, 1}));
  EXPECT_EQ(x.grad().raw(), memory);
}

// The gradient handed to an op may be shared with another branch: it must not be written to.
TEST(Autograd, a_gradient_is_not_overwritten_by_accumulation) {
  const Tensor x = leaf({1}, {1}), z = leaf({1}, {1});
  const Tensor s = add(x, z);
  add(s, s).backward();
  EXPECT_EQ(x.grad().item(), 2);
  EXPECT_EQ(z.grad().item(), 2);
  sum(x).backward();
  EXPECT_EQ(x.grad().item(), 3);
  EXPECT_EQ(z.grad().item(), 2);
}

// Only gradient_memory() writes a leaf's gradient in place. Another gradient may lie there too.
TEST(Autograd, a_leafs_own_gradient_may_be_given_as_a_gradient) {
  const Tensor x = leaf({1, 1}, {2}), zero = Tensor::zeros({2});
  const std::vector<float> six{6, 6};
  sum(scale(x, 3)).backward();
  add(x, zero).backward(x.grad());
  EXPECT_EQ(x.grad().to_vector<float>(), six);
  x.backward(x.grad());
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{12, 12}));
  x.zero_grad();
  x.backward(x.grad());
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{0, 0}));
  // Read twice, once after x's gradient has grown.
  x.grad().fill(2);
  add(x, x).backward(x.grad());
  EXPECT_EQ(x.grad().to_vector<float>(), six);
}

TEST(Autograd, a_gradient_has_the_leafs_dtype_and_device) {
  const Tensor x = leaf({1, 1}, {2}), half = Tensor::zeros({2}, DType::kBF16);
  EXPECT_THROW(x.set_grad(half), Error);
  EXPECT_THROW(x.set_grad(Tensor()), Error);
  EXPECT_THROW(x.backward(half), Error);
  EXPECT_THROW(square(x).backward(half), Error);
  EXPECT_THROW(square(x).backward(Tensor()), Error);
  if (cuda_available()) {
    const Tensor there = Tensor::zeros({2}, DType::kF32, Device::kCuda);
    EXPECT_THROW(x.set_grad(there), Error);
    EXPECT_THROW(square(x).backward(there), Error);
  }
  try {
    x.set_grad(half);
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "[set_grad] expected a gradient (2) of f32 on cpu, got (2) of bf16 on cpu");
  }
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, no_grad_records_nothing) {
  const Tensor x = leaf({1}, {1});
  {
    const NoGrad no_grad;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE(square(x).requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE(square(x).requires_grad());
  EXPECT_FALSE(square(x.detach()).requires_grad());
}

TEST(Autograd, other_threads_record_by_themselves) {
  const NoGrad no_grad;
  bool enabled = false;
  std::thread([&] { enabled = grad_enabled(); }).join();
  EXPECT_TRUE(enabled);
}

TEST(Autograd, a_second_backward_throws) {
  const Tensor x = leaf({1}, {1});
  const Tensor y = square(x);
  y.backward();
  EXPECT_THROW(y.backward(), Error);
}

TEST(Autograd, errors) {
  EXPECT_THROW(leaf({1, 2}, {2}).backward(), Error);   // not a scalar
  EXPECT_THROW(Tensor::zeros({1}).backward(), Error);  // requires nothing
  Tensor i = Tensor::zeros({1}, DType::kI32);
  EXPECT_THROW(i.set_requires_grad(true), Error);
  Tensor y = square(leaf({1}, {1}));
  EXPECT_THROW(y.set_requires_grad(false), Error);  // a result
  EXPECT_THROW(y.backward(Tensor::zeros({2})), Error);
  const Tensor bad = record("bad", Tensor::zeros({1}), {leaf({1}, {1})},
                            [](const Tensor&) { return std::vector<Tensor>{}; });
  EXPECT_THROW(bad.backward(), Error);  // wrong number of gradients
}

TEST(Autograd, memory_is_freed_with_the_graph) {
  const Tensor x = leaf({1, 2, 3, 4}, {4});
  const auto before = memory_statistics(Device::kCpu).current_bytes;
  {
    Tensor y = x;
    for (int i = 0; i < 50; ++i) y = tanh(y);
    const Tensor loss = sum(y);
  }
  EXPECT_EQ(memory_statistics(Device::kCpu).current_bytes, before);
}

// Freeing a long chain must not recurse once per node.
TEST(Autograd, leaves_of_a_result_are_those_that_backward_reaches) {
  const Tensor a = leaf({2}, {}), b = leaf({3}, {}), c = leaf({4}, {});
  const Tensor y = multiply(add(a, b), a), unused = multiply(y, c);
  EXPECT_EQ(leaves_of(y),
            (std::unordered_set<const Tensor::Autograd*>{a.autograd().get(), b.autograd().get()}));
  EXPECT_EQ(leaves_of(a).size(), 1u);
  EXPECT_TRUE(leaves_of(y.detach()).empty());
}

TEST(Autograd, a_long_chain_is_freed_without_deep_recursion) {
  Tensor y = leaf({1}, {1});
  for (int i = 0; i < 200000; ++i) y = scale(y, 1);
  y = Tensor();
  Tensor x = leaf({1}, {1}), z = x;
  for (int i = 0; i < 100000; ++i) z = scale(z, 1);
  z.backward();
  EXPECT_EQ(x.grad().item(), 1);
}

// A large weight gradient is written where it belongs; a second use of the weight is added.
TEST(Autograd, gradient_memory_is_the_leafs_own_once) {
  const Tensor x = leaf({1, 2}, {2}), w = leaf({3, 4}, {2});
  std::vector<const void*> memory;
  const auto op = [&](const Tensor& t) {
    return record("op", t.clone(), {t}, [&](const Tensor& dy) {
      const Tensor dx = gradient_memory(0, {2}, DType::kF32, Device::kCpu);
      memory.push_back(dx.raw());
      dx.copy_from(dy);
      return std::vector<Tensor>{dx};
    });
  };
  sum(add(op(w), add(op(w), op(x)))).backward();
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{2, 2}));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{1, 1}));
  EXPECT_EQ(std::count(memory.begin(), memory.end(), w.grad().raw()), 1);
  w.zero_grad();
  sum(op(w)).backward();
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{1, 1}));
  // Outside a backward, or of another shape, it is plain new memory.
  EXPECT_EQ(gradient_memory(0, {3}, DType::kF32, Device::kCpu).shape(), (Shape{3}));
}

// An op that adds dy to row `row` of its input's gradient, or that writes all of it with
// gradient_place.
Tensor row_of(const Tensor& t, std::int64_t row, std::vector<const void*>& memory) {
  return record("row_of", t.slice(row, row + 1).clone(), {t},
                [&memory, row, shape = t.shape()](const Tensor& dy) {
                  const Tensor dt = gradient_to_add_to(0, shape, dy.dtype(), dy.device());
                  memory.push_back(dt.raw());
                  add_into(dt.slice(row, row + 1), dy);
                  return std::vector<Tensor>{dt};
                });
}
Tensor twice(const Tensor& t, std::vector<const void*>& memory) {
  return record("twice", scale(t.detach(), 2), {t}, [&memory](const Tensor& dy) {
    const GradientPlace place = gradient_place(0, dy.shape(), dy.dtype(), dy.device());
    memory.push_back(place.memory.raw());
    if (place.is_empty)
      place.memory.copy_from(scale(dy, 2));
    else
      add_into(place.memory, dy, 2);
    return std::vector<Tensor>{place.memory};
  });
}

TEST(Autograd, consumers_of_a_leaf_add_to_its_own_gradient_in_any_order) {
  for (const Device device : devices())
    for (const bool rows_first : {false, true})
      for (const bool arena : {false, true}) {
        const Tensor w = leaf({1, 2, 3}, {3, 1}, device);
        if (arena) {
          w.set_grad(Tensor::full({3, 1}, 77, DType::kF32, device));  // stale
          w.zero_grad();
        }
        std::vector<const void*> memory;
        for (int micro_batch = 1; micro_batch <= 2; ++micro_batch) {
          Tensor rows, all;
          if (!rows_first) rows = row_of(w, 1, memory);  // older: its backward comes last
          all = sum(twice(w, memory));
          if (rows_first) rows = row_of(w, 1, memory);
          add(scale(sum(rows), 10), all).backward();
          const float k = static_cast<float>(micro_batch);
          EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{2 * k, 12 * k, 2 * k}))
              << name_of(device) << rows_first << arena << micro_batch;
        }
        EXPECT_EQ(std::count(memory.begin(), memory.end(), w.grad().raw()), 4);
      }
}

TEST(Autograd, an_op_that_has_a_leaf_twice_adds_both) {
  const Tensor w = leaf({1, 2}, {2});
  const Tensor y = record("both", w.clone().detach(), {w, w}, [](const Tensor& dy) {
    std::vector<Tensor> gradients;
    for (const std::size_t i : {0u, 1u}) {
      const Tensor d = gradient_to_add_to(i, dy.shape(), dy.dtype(), dy.device());
      add_into(d, dy, i == 0 ? 3 : 4);
      gradients.push_back(d);
    }
    return gradients;
  });
  sum(y).backward();
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{7, 7}));
}

TEST(Autograd, consumers_of_a_result_share_its_gradient_if_nobody_else_holds_it) {
  const Tensor x = leaf({1, 2, 3}, {3, 1});
  const Tensor h = scale(x, 5);
  std::vector<const void*> memory;
  sum(add(row_of(h, 0, memory), add(row_of(h, 2, memory), row_of(h, 2, memory)))).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{5, 0, 10}));
  EXPECT_EQ(std::count(memory.begin(), memory.end(), memory[0]), 3);
  // The gradient that came first may be another branch's, too: not to be written.
  x.zero_grad();
  memory.clear();
  const Tensor u = scale(x, 1), v = twice(u, memory);
  sum(add(v, add(u, u))).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, 4, 4}));
}

TEST(Autograd, a_leaf_added_to_in_place_has_its_hooks_once_and_recomputes) {
  const Tensor w = leaf({1, 2, 3}, {3, 1});
  std::vector<const void*> memory;
  int calls = 0;
  double seen = 0;
  const auto hook = on_gradient_ready(w, [&](const Tensor& gradient) {
    ++calls;
    seen = gradient.to_vector<double>()[1];
  });
  const auto f = [&](const std::vector<Tensor>&) { return row_of(w, 1, memory); };
  sum(add(recompute(f, {}), row_of(w, 1, memory))).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{0, 2, 0}));
}

// An error in the middle leaves no half gradient behind for the next backward.
TEST(Autograd, an_error_in_backward_leaves_nothing_pending) {
  const Tensor x = leaf({1}, {1});
  const Tensor y = square(x);
  bool bad = true;
  const auto op = [&](const Tensor& t) {
    return record("op", t.clone(), {t}, [&](const Tensor& dy) {
      if (bad) fail(ErrorCode::kNumerics, "bad");
      return std::vector<Tensor>{dy};
    });
  };
  const Tensor z = op(y);
  const Tensor w = scale(y, 3);  // newer than z: its gradient reaches y first
  EXPECT_THROW(add(z, w).backward(), Error);
  bad = false;
  op(y).backward();
  EXPECT_EQ(x.grad().item(), 2);
}

TEST(Autograd, recompute_gives_the_same_gradients) {
  const Tensor a = randn({3, 4}, 1), w = randn({4, 2}, 2);
  const auto f = [](const std::vector<Tensor>& t) { return tanh(matmul(t[0], t[1])); };
  std::vector<Tensor> gradients;
  for (const bool again : {false, true}) {
    Tensor x = a.clone(), v = w.clone();
    x.set_requires_grad(true);
    v.set_requires_grad(true);
    sum(again ? recompute(f, {x, v}) : f({x, v})).backward();
    gradients.push_back(x.grad());
    gradients.push_back(v.grad());
  }
  EXPECT_TRUE(same_bytes(gradients[0], gradients[2]));
  EXPECT_TRUE(same_bytes(gradients[1], gradients[3]));
}

TEST(Autograd, recompute_reaches_leaves_that_the_function_captured) {
  const Tensor x = randn({3, 4}, 1);
  std::vector<Tensor> gradients;
  for (const bool again : {false, true}) {
    Tensor w = randn({4, 4}, 2);
    w.set_requires_grad(true);
    const auto f = [&](const std::vector<Tensor>& t) { return tanh(matmul(t[0], w)); };
    int calls = 0;
    const auto hook = on_gradient_ready(w, [&](const Tensor&) { ++calls; });
    // The first call has no input that needs a gradient.
    const Tensor y = again ? recompute(f, {recompute(f, {x})}) : f({f({x})});
    ASSERT_TRUE(y.requires_grad());
    EXPECT_EQ(leaves_of(y).size(), 1u);
    sum(multiply(matmul(y, w), y)).backward();  // w once more, outside
    EXPECT_EQ(calls, 1);
    gradients.push_back(w.grad());
  }
  EXPECT_TRUE(all_close(gradients[1], gradients[0]));
  const NoGrad no_grad;
  Tensor w = randn({4, 4}, 2);
  w.set_requires_grad(true);
  EXPECT_FALSE(recompute([&](const auto& t) { return matmul(t[0], w); }, {x}).requires_grad());
}

TEST(Autograd, hooks_run_once_when_the_gradient_is_complete) {
  const Tensor x = leaf({1}, {1}), z = leaf({1}, {1});
  int calls = 0;
  double seen = 0;
  auto hook = on_gradient_ready(x, [&](const Tensor& gradient) {
    ++calls;
    seen = gradient.item();
  });
  add(multiply(x, z), scale(x, 4)).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(seen, 5);
  hook.reset();
  square(x).backward();
  EXPECT_EQ(calls, 1);
}

TEST(Gradcheck, finds_a_wrong_gradient_and_names_the_entry) {
  const auto wrong = [](const std::vector<Tensor>& in) {
    return record("wrong", scale(in[0].detach(), 2), {in[0]}, [](const Tensor& dy) {
      Tensor dx = scale(dy, 2);
      dx.data<double>()[3] *= 1.01;
      return std::vector<Tensor>{dx};
    });
  };
  const GradcheckResult result = gradcheck(wrong, {randn({2, 2}, 1, DType::kF64)});
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.message.find("input 0 (2, 2) entry (1, 1)"), std::string::npos)
      << result.message;
  EXPECT_GT(result.worst_error, 1);
}

TEST(Gradcheck, finds_nan_and_missing_gradients) {
  const auto nan = [](const std::vector<Tensor>& in) {
    return record("nan", scale(in[0].detach(), 2), {in[0]}, [](const Tensor& dy) {
      return std::vector<Tensor>{scale(dy, std::numeric_limits<double>::quiet_NaN())};
    });
  };
  EXPECT_FALSE(gradcheck(nan, {randn({2}, 1, DType::kF64)}).ok);
  const auto constant = [](const std::vector<Tensor>& in) { return in[0].detach(); };
  EXPECT_FALSE(gradcheck(constant, {randn({2}, 1, DType::kF64)}).ok);
  const auto missing = [](const std::vector<Tensor>& in) {
    return record("missing", scale(in[0].detach(), 2), {in[0]},
                  [](const Tensor&) { return std::vector<Tensor>(1); });
  };
  EXPECT_FALSE(gradcheck(missing, {randn({2}, 1, DType::kF64)}).ok);
}

TEST(Gradcheck, large_results_by_projections_and_f32_is_refused) {
  EXPECT_TRUE(
      gradcheck([](const auto& in) { return square(in[0]); }, {randn({100}, 1, DType::kF64)}).ok);
  Tensor f32 = randn({2}, 1);
  EXPECT_THROW(gradcheck([](const auto& in) { return in[0]; }, {f32}), Error);
  f32.set_requires_grad(true);
  EXPECT_THROW(gradcheck([](const auto& in) { return in[0]; }, {f32}), Error);
}

}  // namespace
}  // namespace retort::test
