#include "distill/terms/projection.h"

#include <algorithm>

#include "engine/ops/elementwise.h"
#include "nn/layers/linear.h"

namespace retort::distill {
namespace {

// Calibration samples in one pass: a pass holds all hidden layers up to the wanted one.
constexpr std::int64_t kCalibrationPass = 2048;

}  // namespace

void Projection::begin(const Calibration& c, bool resuming) {
  RETORT_CHECK(c.teachers.size() == 1 && c.teachers[0] != nullptr,
               "[projection] expected one teacher");
  const Teacher& teacher = *c.teachers[0];
  const std::int64_t layers = c.student.facts().hidden_layers,
                     of_teacher = teacher.model().facts().hidden_layers;
  RETORT_CHECK(options_.student_layer >= 1 && options_.student_layer <= layers,
               "[projection] layer ", options_.student_layer, " of a student with ", layers,
               " hidden layers");
  RETORT_CHECK(of_teacher >= 1, "[projection] '", teacher.name(), "' has no hidden layer");
  teacher_layer_ = teacher_layer(options_.student_layer, layers, of_teacher);
  std::vector<Tensor> hidden;
  for (std::int64_t begin = 0; begin < c.batch.size(); begin += kCalibrationPass) {
    const nn::Batch part = c.batch.slice(begin, std::min(begin + kCalibrationPass, c.batch.size()));
    hidden.push_back(hidden_features(
        teacher.forward(part.read_by(c.readings[0]), {teacher_layer_, true}).post.back()));
  }
  // One row tells how wide the student's layer is; evaluation mode, so that no running statistics
  // move.
  const nn::Evaluating evaluating(c.student);
  const nn::Outputs student = c.student.forward(c.batch.slice(0, 1).inputs[0], of_student());
  head_.reset();
  const std::int64_t width = student_side(student).dim(1);
  const bool with_head = options_.variant == ProjectionVariant::kHead;
  const auto number = static_cast<std::uint64_t>(options_.student_layer);
  target_ =
      std::make_unique<ProjectionTarget>(hidden[0].dim(1), with_head ? options_.width : width,
                                         options_.seed, static_cast<int>(options_.student_layer));
  if (!resuming) target_->calibrate(hidden, options_.centre, options_.scale);
  if (resuming)
    target_->restore(target_->weight().to(hidden[0].device()),
                     target_->bias().to(hidden[0].device()));
  if (!with_head) return;
  head_ = std::make_shared<nn::Linear>(width, options_.width);
  head_->initialize(options_.seed + number);
  head_->to(c.batch.inputs[0].device());
}

Tensor Projection::student_side(const nn::Outputs& student) const {
  const auto layer = static_cast<std::size_t>(options_.student_layer - 1);
  const bool pre = options_.variant == ProjectionVariant::kPre;
  const Tensor h = hidden_features(pre ? student.pre[layer] : student.post[layer]);  // (B, m)
  return head_ ? static_cast<const nn::Linear&>(*head_).forward(h) : h;              // (B, p)
}

TermLoss Projection::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                                const Rows& rows) const {
  RETORT_CHECK(target_ != nullptr, "[projection] expected begin() before the first step");
  const auto layer = static_cast<std::size_t>(teacher_layer_ - 1);
  const Tensor target = (*target_)(hidden_features(teachers[0].post[layer]));  // (B, p)
  Tensor loss = projection_loss(student_side(student), target);
  if (rows.share != 1) loss = scale(loss, rows.share);
  return {loss, {}};
}

NamedTensors Projection::state() const {
  if (!target_) return {};
  return {{"weight", target_->weight()}, {"bias", target_->bias()}};
}

// By name: a file keeps its tensors in an order of its own.
void Projection::load_state(const NamedTensors& state) {
  const Tensor *weight = nullptr, *bias = nullptr;
  for (const auto& [name, tensor] : state) {
    if (name == "weight") weight = &tensor;
    if (name == "bias") bias = &tensor;
  }
  RETORT_CHECK_AS(kBadInput,
                  target_ != nullptr && state.size() == 2 && weight != nullptr && bias != nullptr,
                  "[projection] expected weight and bias of a projection");
  const Device device = target_->weight().device();
  target_->restore(weight->to(device), bias->to(device));
}

std::string Projection::key() const {
  return join(name(), " ", name_of(options_.variant), " ", options_.width, " ",
              options_.student_layer);
}

}  // namespace retort::distill
