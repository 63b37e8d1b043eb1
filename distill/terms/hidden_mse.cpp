#include "distill/terms/hidden_mse.h"

#include "distill/terms/projection_target.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/cast.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/mse.h"
#include "engine/ops/reduce.h"
#include "nn/layers/linear.h"

namespace retort::distill {

// A linear map for each layer, and which of the teacher's layers it aims at.
class HiddenMse::Maps : public nn::Module {
 public:
  struct Pair {
    std::size_t student, teacher;  // layers from 0
    nn::Linear* map;               // owned by the module tree
  };
  void add(std::size_t student, std::size_t teacher, std::int64_t in, std::int64_t out) {
    pairs.push_back({student, teacher,
                     &add_module("layer" + std::to_string(student + 1),
                                 std::make_shared<nn::Linear>(in, out))});
  }
  std::vector<Pair> pairs;
};

void HiddenMse::begin(const Calibration& c, bool /*resuming*/) {
  RETORT_CHECK(c.teachers.size() == 1 && c.teachers[0] != nullptr,
               "[hidden_mse] expected one teacher");
  const Teacher& teacher = *c.teachers[0];
  const std::int64_t of_student = c.student.facts().hidden_layers,
                     of_teacher = teacher.model().facts().hidden_layers;
  RETORT_CHECK(of_student >= 1 && of_teacher >= 1,
               "[hidden_mse] expected hidden layers, got a student with ", of_student,
               " and a teacher with ", of_teacher);
  std::vector<std::int64_t> layers = options_.layers;
  if (layers.empty())
    for (std::int64_t i = 1; i <= of_student; ++i) layers.push_back(i);
  // One sample tells how wide the layers are.
  const NoGrad no_grad;
  const nn::Batch one = c.batch.slice(0, 1);
  const nn::Evaluating evaluating(c.student);
  const nn::Outputs student = c.student.forward(one.inputs[0], {0, true});
  const nn::Outputs taught = teacher.forward(one.read_by(c.readings[0]), {0, true});
  maps_ = std::make_shared<Maps>();
  for (const std::int64_t i : layers) {
    RETORT_CHECK(i >= 1 && i <= of_student, "[hidden_mse] layer ", i, " of a student with ",
                 of_student, " hidden layers");
    const auto from = static_cast<std::size_t>(i - 1);
    const auto to = static_cast<std::size_t>(teacher_layer(i, of_student, of_teacher) - 1);
    maps_->add(from, to, hidden_features(student.post[from]).dim(1),
               hidden_features(taught.post[to]).dim(1));
  }
  maps_->initialize(options_.seed);
  maps_->to(c.batch.inputs[0].device());
}

TermLoss HiddenMse::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                               const Rows& rows) const {
  RETORT_CHECK(maps_ != nullptr, "[hidden_mse] expected begin() before the first step");
  Tensor total;
  for (const Maps::Pair& pair : maps_->pairs) {
    const Tensor mapped = pair.map->forward(hidden_features(student.post[pair.student]));  // (B, m)
    const Tensor target = hidden_features(teachers[0].post[pair.teacher]).detach();        // (B, m)
    const Tensor loss = mse(mapped, target.to(mapped.dtype()));
    total = total.defined() ? retort::add(total, loss) : loss;
  }
  if (rows.value_share != 1) total = scale(total, rows.value_share);
  return {total, {{"loss_hidden", total.detach(), Per::kStep}}};
}

nn::Module* HiddenMse::trained() { return maps_.get(); }

std::string HiddenMse::key() const {
  std::string layers;
  for (const std::int64_t i : options_.layers) layers += " " + std::to_string(i);
  return name() + layers;
}

Tensor hidden_mse_composed(std::span<const Tensor> mapped, std::span<const Tensor> teacher) {
  RETORT_CHECK(mapped.size() == teacher.size() && !mapped.empty(),
               "[hidden_mse] expected as many layers of student and teacher");
  Tensor total = mse_composed(mapped[0], teacher[0]);
  for (std::size_t i = 1; i < mapped.size(); ++i)
    total = retort::add(total, mse_composed(mapped[i], teacher[i]));
  return total;
}

}  // namespace retort::distill
