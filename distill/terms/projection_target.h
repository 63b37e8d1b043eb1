// Random projections of a teacher's hidden layer as regression targets: curriculum extraction.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "engine/tensor/tensor.h"

namespace retort::distill {

/// What the student's side of a projection stage is.
enum class ProjectionVariant : std::uint8_t {
  kPost,  // hidden activations after the nonlinearity; p = the student's width
  kPre,   // before it; p = the student's width
  kHead,  // a trainable linear map of the activations after it, thrown away after the stage
};
const char* name_of(ProjectionVariant variant);
/// All of them.
inline constexpr ProjectionVariant kProjectionVariants[] = {
    ProjectionVariant::kPost, ProjectionVariant::kPre, ProjectionVariant::kHead};
/// "post", "pre" or "head"; anything else throws.
ProjectionVariant parse_projection_variant(const std::string& text);

/// Hidden activations as one row per sample: (B, m) as it is, (B, H, W, C) averaged over the image.
Tensor hidden_features(const Tensor& hidden);

/// t(x) = (P h(x) - mu) / sigma,   P (p, m) with entries N(0, 1/m), drawn once and frozen.
///
/// mu and sigma are the mean and standard deviation of each component of P h over the calibration
/// samples (sigma 1 where it would be 0); both can be turned off.
///
/// Source    our reconstruction of Gupta, Karmalkar 2025, arXiv:2503.17494: the projection's
///           distribution, width and scaling are not theirs but ours.
class ProjectionTarget {
 public:
  /// Drawn from (seed, layer): the same for all devices and threads.
  ProjectionTarget(std::int64_t teacher_width, std::int64_t width, std::uint64_t seed, int layer);
  /// hidden (M, m): calibration samples in one part or several, M >= 2 in all. Call it once, before
  /// the first target.
  void calibrate(std::span<const Tensor> hidden, bool centre = true, bool scale = true);
  void calibrate(const Tensor& hidden, bool centre = true, bool scale = true) {
    calibrate(std::span(&hidden, 1), centre, scale);
  }
  /// hidden (B, m) -> (B, p); no gradient.
  Tensor operator()(const Tensor& hidden) const;

  std::int64_t width() const { return weight_.dim(0); }
  /// The affine map itself, scaled and shifted: t = h weight^T + bias. Kept in checkpoints.
  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }
  void restore(const Tensor& weight, const Tensor& bias);

 private:
  Tensor weight_, bias_;  // (p, m), (p)
};

/// mean over samples of ||student - target||^2 / p: the mean squared error of all elements.
/// student (B, p), differentiable.
Tensor projection_loss(const Tensor& student, const Tensor& target);

/// Layer of the teacher for layer i = 1 .. L_S of the student: round(i L_T / L_S), 1-based.
std::int64_t teacher_layer(std::int64_t i, std::int64_t student_layers,
                           std::int64_t teacher_layers);

}  // namespace retort::distill
