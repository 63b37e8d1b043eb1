#include "distill/terms/projection_target.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

TEST(Projection, targets_have_mean_zero_and_deviation_one_on_the_calibration_samples) {
  for (const Device device : devices()) {
    ProjectionTarget target(20, 5, 7, 1);
    const Tensor h = randn({400, 20}, 1, DType::kF32, 3, 2).to(device);
    target.calibrate(h);
    const std::vector<double> t = target(h).to_vector<double>();
    for (std::size_t j = 0; j < 5; ++j) {
      double mean = 0, square = 0;
      for (std::size_t i = 0; i < 400; ++i) mean += t[i * 5 + j] / 400;
      for (std::size_t i = 0; i < 400; ++i) square += t[i * 5 + j] * t[i * 5 + j] / 400;
      EXPECT_TRUE(close(mean, 0, 0, 1e-5)) << mean;
      EXPECT_TRUE(close(square, 1, 1e-4, 0)) << square;
    }
  }
}

TEST(Projection, is_an_affine_map_by_hand) {
  ProjectionTarget target(2, 1, 3, 1);
  const std::vector<float> p = target.weight().to_vector<float>();
  // P h for h = (1, 0) and (0, 1) are p0 and p1: mean and deviation of two values.
  const double mean = (p[0] + p[1]) / 2, sigma = std::abs(p[0] - p[1]) / 2;
  target.calibrate(Tensor::from<float>({1, 0, 0, 1}, {2, 2}));
  const Tensor t = target(Tensor::from<float>({2, 3}, {1, 2}));
  EXPECT_TRUE(close(t.item(), (2 * p[0] + 3 * p[1] - mean) / sigma, 1e-5, 1e-6));
  ProjectionTarget plain(2, 1, 3, 1);
  plain.calibrate(Tensor::from<float>({1, 0, 0, 1}, {2, 2}), false, false);
  EXPECT_TRUE(
      close(plain(Tensor::from<float>({2, 3}, {1, 2})).item(), 2 * p[0] + 3 * p[1], 1e-6, 1e-7));
}

TEST(Projection, entries_have_variance_one_over_m_and_depend_on_seed_and_layer) {
  const ProjectionTarget a(1000, 50, 1, 1), b(1000, 50, 1, 2), c(1000, 50, 2, 1), d(1000, 50, 1, 1);
  double square = 0;
  for (const double v : a.weight().to_vector<double>()) square += v * v;
  EXPECT_NEAR(square / 50, 1, 0.05);
  EXPECT_FALSE(same_bytes(a.weight(), b.weight()));
  EXPECT_FALSE(same_bytes(a.weight(), c.weight()));
  EXPECT_TRUE(same_bytes(a.weight(), d.weight()));
}

TEST(Projection, constant_activations_give_zero_targets) {
  ProjectionTarget target(3, 2, 1, 1);
  target.calibrate(Tensor::full({10, 3}, 0.5));
  for (const float v : target(Tensor::full({4, 3}, 0.5)).to_vector<float>())
    EXPECT_TRUE(close(v, 0, 0, 1e-6));
}

TEST(Projection, loss_is_the_mean_square_per_component) {
  const Tensor s = Tensor::from<float>({1, 2, 3, 4}, {2, 2}),
               t = Tensor::from<float>({0, 2, 5, 1}, {2, 2});
  EXPECT_TRUE(close(projection_loss(s, t).item(), (1 + 0 + 4 + 9) / 4.0, 1e-6, 0));
}

TEST(Projection, layer_map_rounds) {
  EXPECT_EQ(teacher_layer(1, 1, 1), 1);
  EXPECT_EQ(teacher_layer(1, 2, 6), 3);
  EXPECT_EQ(teacher_layer(2, 2, 6), 6);
  EXPECT_EQ(teacher_layer(1, 4, 2), 1);  // round(0.5) = 1
  EXPECT_EQ(teacher_layer(1, 6, 2), 1);  // round(0.33) = 0 is no layer
  EXPECT_EQ(teacher_layer(3, 4, 6), 5);  // round(4.5) = 5
  EXPECT_THROW(teacher_layer(0, 2, 2), Error);
  EXPECT_THROW(teacher_layer(3, 2, 2), Error);
}

TEST(Projection, hidden_features_average_images) {
  const Tensor h = Tensor::from<float>({1, 10, 3, 20}, {1, 2, 1, 2});
  EXPECT_EQ(hidden_features(h).to_vector<float>(), (std::vector<float>{2, 15}));
  EXPECT_THROW(hidden_features(Tensor::zeros({2, 3, 4})), Error);
}

TEST(Projection, errors) {
  EXPECT_THROW(ProjectionTarget(0, 1, 1, 1), Error);
  ProjectionTarget target(3, 2, 1, 1);
  EXPECT_THROW(target.calibrate(Tensor::zeros({1, 3})), Error);
  EXPECT_THROW(target.calibrate(Tensor::zeros({5, 4})), Error);
  EXPECT_THROW(target.calibrate(Tensor::full({5, 3}, std::nan(""))), Error);
  EXPECT_THROW(projection_loss(Tensor::zeros({2, 2}), Tensor::zeros({2, 3})), Error);
  EXPECT_EQ(parse_projection_variant("head"), ProjectionVariant::kHead);
  EXPECT_THROW(parse_projection_variant("mid"), Error);
}

// Networks in bf16 have activations in bf16; target and loss are computed in f32.
TEST(ProjectionTarget, takes_activations_in_bf16) {
  const Tensor teacher = randn({6, 4}, 1).to(DType::kBF16), student = randn({6, 3}, 2);
  const ProjectionTarget target(4, 3, 9, 1);
  const Tensor wanted = target(teacher.to(DType::kF32)), got = target(teacher);
  EXPECT_EQ(got.to_vector<float>(), wanted.to_vector<float>());
  Tensor own = student.to(DType::kBF16);
  own.set_requires_grad(true);
  const Tensor loss = projection_loss(own, got);
  loss.backward();
  EXPECT_EQ(loss.item(), projection_loss(student.to(DType::kBF16).to(DType::kF32), got).item());
  EXPECT_TRUE(own.grad().defined());
}

}  // namespace
}  // namespace retort::test
