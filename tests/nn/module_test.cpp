#include "nn/module.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::same_bytes;

class Leaf : public Module {
 public:
  explicit Leaf(const Init& init, std::int64_t n = 4)
      : weight(add_parameter("weight", {n}, init)), mean(add_buffer("mean", Tensor::zeros({2}))) {}
  Tensor& weight;
  Tensor& mean;
};

class Tree : public Module {
 public:
  Tree() : scale(add_parameter("scale", Tensor::full({1}, 2))) {
    a = &add_module("a", std::make_shared<Leaf>(Init::uniform(0.5), 10001));
    b = &add_module("b", std::make_shared<Leaf>(Init::normal(2), 10001));
  }
  void add_again(const std::string& name) { add_buffer(name, Tensor::zeros({1})); }
  Tensor& scale;
  Leaf* a;
  Leaf* b;
};

TEST(Module, paths_are_joined_with_dots_own_first) {
  const Tree tree;
  std::vector<std::string> paths;
  for (const auto& [path, tensor] : tree.named_parameters()) paths.push_back(path);
  EXPECT_EQ(paths, (std::vector<std::string>{"scale", "a.weight", "b.weight"}));
  EXPECT_EQ(tree.named_buffers()[1].first, "b.mean");
  EXPECT_EQ(tree.parameter_count(), 1 + 2 * 10001);
}

TEST(Module, mode_and_gradients_reach_the_whole_tree) {
  Tree tree;
  tree.eval();
  EXPECT_FALSE(tree.b->training());
  tree.train();
  EXPECT_TRUE(tree.b->training());
  tree.requires_grad(false);
  EXPECT_FALSE(tree.a->weight.requires_grad());
  EXPECT_FALSE(tree.a->mean.requires_grad());
}

TEST(Module, moves_between_devices) {
  for (const Device device : test::devices()) {
    Tree tree;
    tree.initialize(1);
    const std::vector<float> before = tree.a->weight.to_vector<float>();
    tree.to(device);
    EXPECT_EQ(tree.a->weight.device(), device);
    EXPECT_EQ(tree.a->mean.device(), device);
    EXPECT_TRUE(tree.a->weight.requires_grad());
    EXPECT_EQ(tree.a->weight.to_vector<float>(), before);
  }
}

TEST(Module, initial_values_depend_on_seed_and_path_alone) {
  Tree one, two, other;
  one.initialize(7);
  two.initialize(7);
  other.initialize(8);
  EXPECT_TRUE(same_bytes(one.a->weight, two.a->weight));
  EXPECT_FALSE(same_bytes(one.a->weight, other.a->weight));
  EXPECT_FALSE(same_bytes(one.a->weight, one.b->weight));
  EXPECT_EQ(one.scale.item(), 2);  // given by value: not drawn
}

TEST(Module, initial_values_have_the_asked_moments) {
  Tree tree;
  tree.initialize(3);
  double sum = 0, squares = 0, largest = 0;
  for (const double v : tree.a->weight.to_vector<double>()) {
    sum += v, squares += v * v, largest = std::max(largest, std::abs(v));
  }
  EXPECT_LE(largest, 0.5);
  EXPECT_NEAR(sum / 10001, 0, 0.01);
  EXPECT_NEAR(squares / 10001, 0.25 / 3, 0.003);  // b^2 / 3
  sum = squares = 0;
  double fourth = 0;
  for (const double v : tree.b->weight.to_vector<double>())
    sum += v, squares += v * v, fourth += v * v * v * v;
  EXPECT_NEAR(sum / 10001, 0, 0.08);
  EXPECT_NEAR(squares / 10001, 4, 0.2);
  EXPECT_NEAR(fourth / 10001, 3 * 16, 6);  // kurtosis 3
}

TEST(Module, refuses_a_name_twice_and_dots) {
  Tree tree;
  EXPECT_THROW(tree.add_again("scale"), Error);
  EXPECT_THROW(tree.add_again("a"), Error);
  EXPECT_THROW(tree.add_again("x.y"), Error);
  EXPECT_THROW(tree.add_again(""), Error);
}

}  // namespace
}  // namespace retort::nn
