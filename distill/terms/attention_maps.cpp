#include "distill/terms/attention_maps.h"

#include <cmath>

#include "distill/terms/projection_target.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/cast.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/ops/view.h"

namespace retort::distill {
namespace {

constexpr const char* kDistances[] = {"kl", "probabilities", "scores"};

Tensor widened(const Tensor& t) { return t.dtype() == DType::kBF16 ? cast(t, DType::kF32) : t; }

// q k^T / sqrt(D) of a head within a sequence: (L, L).
class Scores {
 public:
  explicit Scores(const nn::AttentionReads& of)
      : queries_(widened(of.queries)),
        keys_(widened(of.keys)),
        size_(of.queries.dim(1) / of.heads) {}

  Tensor operator()(std::int64_t begin, std::int64_t end, std::int64_t head) const {
    const auto part = [&](const Tensor& t) {
      return slice_columns(slice_rows(t, begin, end), head * size_, (head + 1) * size_);
    };
    return scale(matmul(part(queries_), part(keys_), false, true),
                 1 / std::sqrt(static_cast<double>(size_)));
  }

 private:
  Tensor queries_, keys_;
  std::int64_t size_;
};

// Summed over the rows of one map.
Tensor distance_of(const Tensor& s, const Tensor& t, AttentionDistance distance) {
  const double length = static_cast<double>(s.dim(1));
  switch (distance) {
    case AttentionDistance::kKl:
      return sum(multiply(softmax(t), subtract(log_softmax(t), log_softmax(s))));
    case AttentionDistance::kProbabilities:
      return scale(sum(square(subtract(softmax(s), softmax(t)))), 1 / length);
    case AttentionDistance::kScores: return scale(sum(square(subtract(s, t))), 1 / length);
  }
  fail(ErrorCode::kUsage, "[attention] no such distance");
}

}  // namespace

const char* name_of(AttentionDistance distance) {
  return kDistances[static_cast<std::size_t>(distance)];
}

AttentionDistance parse_attention_distance(const std::string& text) {
  for (std::size_t i = 0; i < std::size(kDistances); ++i)
    if (text == kDistances[i]) return static_cast<AttentionDistance>(i);
  fail(ErrorCode::kUsage, "[attention] expected kl, probabilities or scores, got '", text, "'");
}

Tensor attention_distance(const nn::AttentionReads& student, const nn::AttentionReads& teacher,
                          std::span<const std::int32_t> starts, AttentionDistance distance) {
  RETORT_CHECK(student.heads == teacher.heads, "[attention] expected as many heads in both, got ",
               student.heads, " and ", teacher.heads);
  const Scores of_student(student), of_teacher(teacher);
  std::int64_t rows = 0;
  std::vector<Tensor> sums;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t begin = starts[s], end = starts[s + 1];
    if (end <= begin) continue;
    rows += end - begin;
    for (std::int64_t head = 0; head < student.heads; ++head)
      sums.push_back(reshape(distance_of(of_student(begin, end, head),
                                         of_teacher(begin, end, head).detach(), distance),
                             {1}));
  }
  if (sums.empty()) return sum(widened(student.queries));  // a part of a batch without rows
  return scale(sum(concatenate(sums)), 1 / static_cast<double>(rows * student.heads));
}

void AttentionMaps::begin(const Calibration& c, bool /*resuming*/) {
  RETORT_CHECK(c.teachers.size() == 1 && c.teachers[0] != nullptr,
               "[attention] expected one teacher");
  const NoGrad no_grad;
  const nn::Batch one = c.batch.slice(0, 1);
  const nn::Evaluating evaluating(c.student);
  const nn::Outputs student = c.student.forward(one.inputs[0], of_student());
  const nn::Outputs taught = c.teachers[0]->forward(one.read_by(c.readings[0]), of_student());
  for (const nn::Outputs* outputs : {&student, &taught}) {
    const char* const who = outputs == &student ? "student" : "teacher";
    RETORT_CHECK(!outputs->attention.empty(),
                 "[attention] expected models with attention, and the ", who, " has none");
    RETORT_CHECK(!outputs->attention[0].causal, "[attention] the ", who,
                 "'s positions look back only: maps of causal models are not compared");
  }
  const std::int64_t heads = student.attention[0].heads, wanted = taught.attention[0].heads;
  RETORT_CHECK(heads == wanted, "[attention] expected as many heads in both, got ", heads,
               " in the student and ", wanted, " in the teacher");
  const auto of_student_layers = static_cast<std::int64_t>(student.attention.size()),
             of_teacher_layers = static_cast<std::int64_t>(taught.attention.size());
  std::vector<std::int64_t> layers = options_.layers;
  if (layers.empty())
    for (std::int64_t i = 1; i <= of_student_layers; ++i) layers.push_back(i);
  pairs_.clear();
  for (const std::int64_t i : layers) {
    RETORT_CHECK(i >= 1 && i <= of_student_layers, "[attention] layer ", i, " of a student with ",
                 of_student_layers, " layers");
    pairs_.emplace_back(
        static_cast<std::size_t>(i - 1),
        static_cast<std::size_t>(teacher_layer(i, of_student_layers, of_teacher_layers) - 1));
  }
}

TermLoss AttentionMaps::operator()(const nn::Outputs& student,
                                   std::span<const nn::Outputs> teachers, const Rows& rows) const {
  RETORT_CHECK(!pairs_.empty(), "[attention] expected begin() before the first step");
  Tensor total;
  for (const auto& [of_student, of_teacher] : pairs_) {
    const Tensor loss =
        attention_distance(student.attention[of_student], teachers[0].attention[of_teacher],
                           student.starts_on_host, options_.distance);
    total = total.defined() ? retort::add(total, loss) : loss;
  }
  if (rows.value_share != 1) total = scale(total, rows.value_share);
  return {total, {{"loss_attention", total.detach(), Per::kStep}}};
}

std::string AttentionMaps::key() const {
  std::string text = name() + " " + name_of(options_.distance);
  for (const std::int64_t i : options_.layers) text += " " + std::to_string(i);
  return text;
}

}  // namespace retort::distill
