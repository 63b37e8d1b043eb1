#include "distill/terms/cosine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "distill/terms/projection_target.h"
#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "tests/distill/terms/hints.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace distill;

// Mean of 1 - cos over rows, in double.
double by_hand(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  const auto n = static_cast<std::size_t>(a.dim(0)), m = static_cast<std::size_t>(a.dim(1));
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double dot = 0, xx = 0, yy = 0;
    for (std::size_t j = i * m; j < (i + 1) * m; ++j)
      dot += x[j] * y[j], xx += x[j] * x[j], yy += y[j] * y[j];
    sum += xx * yy > 0 ? 1 - dot / std::sqrt(xx * yy) : 1;  // what has no direction: cosine 0
  }
  return sum / static_cast<double>(n);
}

TEST(Cosine, distance_is_the_formula) {
  for (const Device device : devices()) {
    const Tensor a = randn({5, 7}, 1).to(device), b = randn({5, 7}, 2).to(device);
    EXPECT_TRUE(close(cosine_distance(a, b).item(), by_hand(a, b), 1e-5, 1e-6));
    EXPECT_TRUE(close(cosine_distance(a, scale(a, 3)).item(), 0, 0, 1e-6));  // length is nothing
    EXPECT_TRUE(close(cosine_distance(a, scale(a, -2)).item(), 2, 1e-6, 0));
    EXPECT_EQ(cosine_distance(Tensor::zeros({2, 3}, DType::kF32, device),
                              Tensor::full({2, 3}, 1, DType::kF32, device))
                  .item(),
              1);  // a zero vector has no direction
  }
  EXPECT_THROW(cosine_distance(randn({2, 3}, 1), randn({2, 4}, 1)), Error);
  EXPECT_THROW(cosine_distance(randn({2}, 1), randn({2}, 1)), Error);
}

TEST(Cosine, distance_has_the_gradient_that_differences_show) {
  const GradcheckResult r =
      gradcheck([](const std::vector<Tensor>& x) { return cosine_distance(x[0], x[1]); },
                {randn({3, 5}, 1, DType::kF64), randn({3, 5}, 2, DType::kF64)});
  EXPECT_TRUE(r) << r.message;
}

TEST(Cosine, compares_last_features_through_a_map_where_widths_differ) {
  for (const Device device : devices())
    for (const std::int64_t width : {7, 5}) {  // the student's last layer has 7 units
      Hints h(device, {10, width});
      const auto term = std::make_shared<Cosine>(CosineOptions{.seed = 4});
      h.begin(*term);
      EXPECT_EQ(term->trained() == nullptr, width == 7);
      std::map<std::string, Tensor> gradients;
      const StepReport report = h.step({{2, term}}, 0, &gradients, term->trained());
      const NoGrad no_grad;
      Tensor s = h.student.forward(h.batch.inputs[0], {}).features;
      if (term->trained() != nullptr) {
        const auto map = by_name(*term->trained());
        EXPECT_EQ(map.at("weight").shape(), (Shape{5, 7}));
        s = linear(s, map.at("weight"), map.at("bias"));
        EXPECT_EQ(gradients.count("weight"), 1u);
        EXPECT_EQ(gradients.count("bias"), 1u);
      }
      const Tensor t = h.teacher->forward(h.batch.inputs[0], {0, false, true}).features;
      EXPECT_TRUE(close(report.loss(), 2 * by_hand(s, t), 1e-5, 1e-6)) << width;
      EXPECT_TRUE(close(report.host().mean("loss_cos"), by_hand(s, t), 1e-5, 1e-6));
      EXPECT_EQ(gradients.count("w1"), 1u);
      EXPECT_EQ(gradients.count("w3"), 0u);  // features are what the last layer reads
    }
}

TEST(Cosine, micro_batches_give_the_same_loss_and_gradients) {
  for (const Device device : devices()) {
    Hints h(device);
    const auto term = std::make_shared<Cosine>(CosineOptions{});
    h.begin(*term);
    const Terms terms{{1, std::make_shared<SoftTargets>()}, {0.5f, term}};
    std::map<std::string, Tensor> want, got;
    const StepReport whole = h.step(terms, 0, &want, term->trained());
    for (const std::int64_t micro : {1, 3, 4, 9}) {
      EXPECT_TRUE(
          close(h.step(terms, micro, &got, term->trained()).loss(), whole.loss(), 1e-5, 1e-6))
          << micro;
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [name, gradient] : want)
        EXPECT_TRUE(all_close(got.at(name), gradient, {1e-4, 1e-6})) << name << " " << micro;
    }
  }
}

TEST(Cosine, over_positions_compares_the_last_hidden_layer) {
  Hints h(Device::kCpu, {10, 5});
  const auto term =
      std::make_shared<Cosine>(CosineOptions{.seed = 4, .over = CosineOver::kPositions});
  EXPECT_EQ(term->of_student(), (nn::Want{.hidden = true, .head = true}));
  EXPECT_EQ(term->of_teacher({}), (nn::Want{.hidden = true, .head = true}));
  EXPECT_NE(term->key(), Cosine({}).key());
  h.begin(*term);
  ASSERT_NE(term->trained(), nullptr);  // widths differ
  std::map<std::string, Tensor> gradients;
  const StepReport report = h.step({{2, term}}, 0, &gradients, term->trained());
  const NoGrad no_grad;
  const auto map = by_name(*term->trained());
  const Tensor s = linear(h.student.forward(h.batch.inputs[0], {0, true}).post.back(),
                          map.at("weight"), map.at("bias"));
  const Tensor t = h.teacher->forward(h.batch.inputs[0], {0, true}).post.back();
  EXPECT_TRUE(close(report.loss(), 2 * by_hand(s, t), 1e-5, 1e-6));
  EXPECT_EQ(parse_cosine_over("positions"), CosineOver::kPositions);
  EXPECT_THROW(parse_cosine_over("rows "), Error);
}

// Student 8, 7 and teacher 8, 5: the first layers are of one width, the second ones are not.
TEST(Cosine, over_layers_is_the_sum_over_layers) {
  for (const Device device : devices()) {
    Hints h(device, {8, 5});
    const auto term =
        std::make_shared<Cosine>(CosineOptions{.seed = 4, .over = CosineOver::kLayers});
    h.begin(*term);
    const auto maps = by_name(*term->trained());
    std::map<std::string, Tensor> gradients;
    const StepReport report = h.step({{2, term}}, 0, &gradients, term->trained());
    const auto s = h.student.forward(h.batch.inputs[0], {0, true}).post,
               t = h.teacher->forward(h.batch.inputs[0], {0, true}).post;
    ASSERT_EQ(s.size(), 2u);
    double wanted = 0, second = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      const std::size_t to = static_cast<std::size_t>(
          teacher_layer(static_cast<std::int64_t>(i) + 1, 2, static_cast<std::int64_t>(t.size())) -
          1);
      const std::string layer = "layer" + std::to_string(i + 1);
      EXPECT_EQ(maps.contains(layer + ".weight"), i == 1);
      const Tensor mapped = maps.contains(layer + ".weight")
                                ? linear(s[i], maps.at(layer + ".weight"), maps.at(layer + ".bias"))
                                : s[i];
      wanted += second = by_hand(mapped.detach(), t[to]);
    }
    EXPECT_TRUE(close(report.loss(), 2 * wanted, 1e-5, 1e-6));
    EXPECT_EQ(gradients.count("w1"), 1u);
    // One of them alone; its map is drawn as before.
    const auto one = std::make_shared<Cosine>(
        CosineOptions{.seed = 4, .over = CosineOver::kLayers, .layers = {2}});
    EXPECT_NE(one->key(), term->key());
    h.begin(*one);
    EXPECT_TRUE(
        close(h.step({{1, one}}, 0, &gradients, one->trained()).loss(), second, 1e-5, 1e-6));
    Cosine deep({.over = CosineOver::kLayers, .layers = {3}});
    EXPECT_THROW(h.begin(deep), Error);
  }
}

TEST(Cosine, positions_count_by_tokens_where_a_batch_is_cut) {
  Cosine term({.over = CosineOver::kPositions});
  nn::Outputs student, teacher;
  student.post = {randn({4, 3}, 1)};
  teacher.post = {randn({4, 3}, 2)};
  Rows rows;
  rows.row_share = 0.25;
  rows.value_share = 0.5;
  const double whole = by_hand(student.post[0], teacher.post[0]);
  EXPECT_TRUE(
      close(term(student, std::span(&teacher, 1), rows).total.item(), whole / 2, 1e-5, 1e-6));
  student.post = {};
  EXPECT_THROW(term(student, std::span(&teacher, 1), rows), Error);
}

TEST(Cosine, features_are_not_to_be_had_from_a_cache) {
  Hints h;
  const Cosine term({});
  const auto want = term.of_teacher({});
  ASSERT_TRUE(want.has_value());
  EXPECT_TRUE(want->features);
  EXPECT_NE(*want, nn::Want{});
}

TEST(Cosine, errors) {
  Hints h;
  Cosine term({});
  const std::vector<std::shared_ptr<const Teacher>> two{h.teacher, h.teacher};
  const std::vector<std::size_t> readings{1, 1};
  EXPECT_THROW(term.begin({h.student, two, readings, h.batch}, false), Error);
}

}  // namespace
}  // namespace retort::test
