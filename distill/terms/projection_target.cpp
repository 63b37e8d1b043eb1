#include "distill/terms/projection_target.h"

#include <cmath>
#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/cast.h"
#include "engine/ops/linear.h"
#include "engine/ops/mse.h"
#include "engine/ops/pool.h"
#include "nn/init.h"

namespace retort::distill {

const char* name_of(ProjectionVariant variant) {
  switch (variant) {
    case ProjectionVariant::kPost: return "post";
    case ProjectionVariant::kPre: return "pre";
    case ProjectionVariant::kHead: return "head";
  }
  return "?";
}

ProjectionVariant parse_projection_variant(const std::string& text) {
  for (const ProjectionVariant v : kProjectionVariants)
    if (text == name_of(v)) return v;
  fail(ErrorCode::kUsage, "[projection] expected post, pre or head, got '", text, "'");
}

Tensor hidden_features(const Tensor& hidden) {
  if (hidden.rank() == 2) return hidden;
  RETORT_CHECK(hidden.rank() == 4, "[projection] expected activations (B, m) or (B, H, W, C), got ",
               hidden.shape());
  return global_average_pool(hidden);
}

ProjectionTarget::ProjectionTarget(std::int64_t teacher_width, std::int64_t width,
                                   std::uint64_t seed, int layer) {
  RETORT_CHECK(teacher_width >= 1 && width >= 1, "[projection] expected widths of at least 1, got ",
               teacher_width, " and ", width);
  weight_ = Tensor::empty({width, teacher_width});
  bias_ = Tensor::zeros({width});
  nn::initialize(weight_, nn::Init::normal(1 / std::sqrt(static_cast<double>(teacher_width))), seed,
                 join("projection.", layer));
}

void ProjectionTarget::calibrate(std::span<const Tensor> hidden, bool centre, bool scale) {
  std::int64_t rows = 0;
  for (const Tensor& part : hidden) {
    RETORT_CHECK(part.rank() == 2 && part.dim(1) == weight_.dim(1),
                 "[projection] expected calibration rows of ", weight_.dim(1), " activations, got ",
                 part.shape());
    rows += part.dim(0);
  }
  RETORT_CHECK(rows >= 2, "[projection] expected at least 2 calibration rows, got ", rows);
  const Device device = hidden.front().device();
  weight_ = weight_.to(device);
  bias_ = bias_.to(device);
  std::vector<float> t;  // (M, p)
  for (const Tensor& part : hidden) {
    const std::vector<float> values = (*this)(part).to_vector<float>();
    t.insert(t.end(), values.begin(), values.end());
  }
  const auto p = static_cast<std::size_t>(width()), n = t.size() / p;
  std::vector<float> w = weight_.to_vector<float>(), b(p);
  const std::size_t m = w.size() / p;
  for (std::size_t j = 0; j < p; ++j) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < n; ++i) mean += static_cast<double>(t[i * p + j]);
    mean /= static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i) {
      const double d = static_cast<double>(t[i * p + j]) - mean;
      variance += d * d;
    }
    variance /= static_cast<double>(n);
    RETORT_CHECK_AS(kNumerics, std::isfinite(variance),
                    "[projection] the teacher's hidden activations are not finite");
    const double sigma = scale && variance > 1e-24 ? std::sqrt(variance) : 1;
    b[j] = static_cast<float>(centre ? -mean / sigma : 0);
    for (std::size_t k = 0; k < m; ++k)
      w[j * m + k] = static_cast<float>(static_cast<double>(w[j * m + k]) / sigma);
  }
  restore(Tensor::from(w, weight_.shape(), device), Tensor::from(b, bias_.shape(), device));
}

void ProjectionTarget::restore(const Tensor& weight, const Tensor& bias) {
  RETORT_CHECK(weight.shape() == weight_.shape() && bias.shape() == bias_.shape(),
               "[projection] expected a map ", weight_.shape(), ", got ", weight.shape(), " and ",
               bias.shape());
  weight_ = weight;
  bias_ = bias;
}

Tensor ProjectionTarget::operator()(const Tensor& hidden) const {
  const NoGrad no_grad;
  return linear(hidden.to(weight_.dtype()), weight_, bias_);  // a teacher may compute in bf16
}

Tensor projection_loss(const Tensor& student, const Tensor& target) {
  RETORT_CHECK(student.shape() == target.shape(), "[projection] the student's side is ",
               student.shape(), ", the target ", target.shape());
  return mse(student.dtype() == target.dtype() ? student : cast(student, target.dtype()), target);
}

std::int64_t teacher_layer(std::int64_t i, std::int64_t student_layers,
                           std::int64_t teacher_layers) {
  RETORT_CHECK(i >= 1 && i <= student_layers && teacher_layers >= 1,
               "[projection] expected a layer in 1 .. ", student_layers, ", got ", i);
  return std::max<std::int64_t>(
      1, std::llround(static_cast<double>(i) * static_cast<double>(teacher_layers) /
                      static_cast<double>(student_layers)));
}

}  // namespace retort::distill
