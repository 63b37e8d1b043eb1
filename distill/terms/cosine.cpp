#include "distill/terms/cosine.h"

#include "distill/terms/projection_target.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/cast.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "nn/layers/linear.h"

namespace retort::distill {
namespace {

constexpr double kTiny = 1e-24;  // |a|^2 |b|^2 of what has no direction
constexpr const char* kOver[] = {"rows", "positions", "layers"};

// A map for each layer whose widths differ.
class Maps : public nn::Module {
 public:
  const nn::Linear* add(std::size_t layer, std::int64_t in, std::int64_t out) {
    return &add_module("layer" + std::to_string(layer + 1), std::make_shared<nn::Linear>(in, out));
  }
};

}  // namespace

const char* name_of(CosineOver over) { return kOver[static_cast<std::size_t>(over)]; }

CosineOver parse_cosine_over(const std::string& text) {
  for (const CosineOver over : {CosineOver::kRows, CosineOver::kPositions, CosineOver::kLayers})
    if (text == name_of(over)) return over;
  fail(ErrorCode::kUsage, "[cosine] expected rows, positions or layers, got '", text, "'");
}

std::string Cosine::key() const {
  std::string layers;
  for (const std::int64_t i : options_.layers) layers += " " + std::to_string(i);
  return join(name(), " ", name_of(options_.over), layers);
}

// (N, m) or (T, m)
Tensor Cosine::vectors_of(const nn::Outputs& outputs, std::size_t layer) const {
  if (options_.over == CosineOver::kRows) return outputs.features;
  const bool last = options_.over == CosineOver::kPositions;
  const std::size_t at = last ? outputs.post.size() - 1 : layer;
  RETORT_CHECK(at < outputs.post.size() && outputs.post[at].rank() == 2, "[cosine] over ",
               name_of(options_.over), " expected hidden layers (T, m), got ",
               at < outputs.post.size() ? join(outputs.post[at].shape())
                                        : join(outputs.post.size(), " of them"));
  return outputs.post[at];
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
  const nn::Outputs student = c.student.forward(one.inputs[0], of_student()),
                    taught = c.teachers[0]->forward(one.read_by(c.readings[0]), *of_teacher({}));
  pairs_ = {{}};
  map_.reset();
  if (options_.over == CosineOver::kLayers) {
    pairs_.clear();
    const auto of_student = static_cast<std::int64_t>(student.post.size()),
               of_teacher = static_cast<std::int64_t>(taught.post.size());
    RETORT_CHECK(of_student >= 1 && of_teacher >= 1,
                 "[cosine] expected hidden layers, got a student with ", of_student,
                 " and a teacher with ", of_teacher);
    std::vector<std::int64_t> layers = options_.layers;
    if (layers.empty())
      for (std::int64_t i = 1; i <= of_student; ++i) layers.push_back(i);
    for (const std::int64_t i : layers) {
      RETORT_CHECK(i >= 1 && i <= of_student, "[cosine] layer ", i, " of a student with ",
                   of_student, " hidden layers");
      pairs_.push_back({static_cast<std::size_t>(i - 1),
                        static_cast<std::size_t>(teacher_layer(i, of_student, of_teacher) - 1)});
    }
  }
  auto maps = std::make_shared<Maps>();
  for (Pair& pair : pairs_) {
    const std::int64_t width = vectors_of(student, pair.student).dim(1),
                       wanted = vectors_of(taught, pair.teacher).dim(1);
    if (width == wanted) continue;
    if (options_.over == CosineOver::kLayers) {
      pair.map = maps->add(pair.student, width, wanted);
      map_ = maps;
    } else {
      const auto map = std::make_shared<nn::Linear>(width, wanted);
      pair.map = map.get();
      map_ = map;
    }
  }
  if (!map_) return;
  map_->initialize(options_.seed);
  map_->to(c.batch.inputs[0].device());
}

TermLoss Cosine::operator()(const nn::Outputs& student, std::span<const nn::Outputs> teachers,
                            const Rows& rows) const {
  Tensor total;
  for (const Pair& pair : pairs_) {
    Tensor features = cast(vectors_of(student, pair.student), DType::kF32);  // (N, m)
    if (pair.map) features = pair.map->forward(features);
    const Tensor wanted = vectors_of(teachers[0], pair.teacher).detach().to(DType::kF32);  // (N, m)
    // A part of a batch may have no rows at all: its mean is nothing, not a mistake.
    const Tensor loss = features.dim(0) == 0 ? sum(features) : cosine_distance(features, wanted);
    total = total.defined() ? retort::add(total, loss) : loss;
  }
  const double share = options_.over == CosineOver::kRows ? rows.row_share : rows.value_share;
  if (share != 1) total = scale(total, share);
  return {total, {{"loss_cos", total.detach(), Per::kStep}}};
}

}  // namespace retort::distill
