#include "distill/terms/cosine.h"

#include "engine/autograd/autograd.h"
#include "engine/ops/cast.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "nn/layers/linear.h"

namespace retort::distill {
namespace {

constexpr double kTiny = 1e-24;  // |a|^2 |b|^2 of what has no direction
constexpr const char* kOver[] = {"rows", "positions"};

}  // namespace

const char* name_of(CosineOver over) { return kOver[static_cast<std::size_t>(over)]; }

CosineOver parse_cosine_over(const std::string& text) {
  if (text == kOver[0]) return CosineOver::kRows;
  RETORT_CHECK(text == kOver[1], "[cosine] expected rows or positions, got '", text, "'");
  return CosineOver::kPositions;
}

std::string Cosine::key() const { return join(name(), " ", name_of(options_.over)); }

// (N, m) or (T, m)
Tensor Cosine::vectors_of(const nn::Outputs& outputs) const {
  if (options_.over == CosineOver::kRows) return outputs.features;
  RETORT_CHECK(!outputs.post.empty() && outputs.post.back().rank() == 2,
               "[cosine] over positions expected hidden layers (T, m), got ",
               outputs.post.empty() ? join("none") : join(outputs.post.back().shape()));
  return outputs.post.back();
}

Tensor cosine_distance(const Tensor& a, const Tensor& b) {
  RETORT_CHECK(a.rank() == 2 && a.shape() == b.shape(),
               "[cosine] expected features of one shape (N, m), got ", a.shape(), " and ",
               b.shape());
  const Tensor dot = sum_rows(multiply(a, b));                              // (N)
  const Tensor norms = multiply(sum_rows(square(a)), sum_rows(square(b)));  // (N)
  return affine(mean(divide(dot, retort::sqrt(add_scalar(norms, kTiny)))), -1, 1);
}

void Cosine::begin(const Calibration& c, bool /*resuming*/) {
  RETORT_CHECK(c.teachers.size() == 1 && c.teachers[0] != nullptr, "[cosine] expected one teacher");
  const NoGrad no_grad;
  const nn::Batch one = c.batch.slice(0, 1);
  const nn::Evaluating evaluating(c.student);
  const std::int64_t width = vectors_of(c.student.forward(one.inputs[0], of_student())).dim(1);
  const std::int64_t wanted =
      vectors_of(c.teachers[0]->forward(one.read_by(c.readings[0]), *of_teacher({}))).dim(1);
  map_.reset();
  if (width == wanted) return;
  map_ = std::make_shared<nn::Linear>(width, wanted);
  map_->initialize(options_.seed);
  map_->to(c.batch.inputs[0].device());
}

TermLoss Cosine::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                            const Rows& rows) const {
  Tensor features = cast(vectors_of(student), DType::kF32);  // (N, m)
  if (map_) features = static_cast<const nn::Linear&>(*map_).forward(features);
  const Tensor wanted = vectors_of(teachers[0]).detach().to(DType::kF32);  // (N, m)
  // A part of a batch may have no rows at all: its mean is nothing, not a mistake.
  Tensor total = features.dim(0) == 0 ? sum(features) : cosine_distance(features, wanted);
  const double share = options_.over == CosineOver::kPositions ? rows.value_share : rows.row_share;
  if (share != 1) total = scale(total, share);
  return {total, {{"loss_cos", total.detach(), Per::kStep}}};
}

}  // namespace retort::distill
