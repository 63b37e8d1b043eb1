#include "distill/terms/attention_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "distill/step.h"
#include "distill/terms/registry.h"
#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "nn/models/transformer/transformer.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;
using ::testing::HasSubstr;

constexpr AttentionDistance kAll[] = {AttentionDistance::kKl, AttentionDistance::kProbabilities,
                                      AttentionDistance::kScores};

// Written out in double, from the queries and keys.
double by_hand(const nn::AttentionReads& student, const nn::AttentionReads& teacher,
               std::span<const std::int32_t> starts, AttentionDistance distance) {
  const auto scores = [&](const nn::AttentionReads& of, std::int64_t i, std::int64_t begin,
                          std::int64_t end, std::int64_t head) {
    const std::int64_t width = of.queries.dim(1), size = width / of.heads;
    const std::vector<double> q = of.queries.to_vector<double>(), k = of.keys.to_vector<double>();
    std::vector<double> z;
    for (std::int64_t j = begin; j < end; ++j) {
      double dot = 0;
      for (std::int64_t c = head * size; c < (head + 1) * size; ++c)
        dot +=
            q[static_cast<std::size_t>(i * width + c)] * k[static_cast<std::size_t>(j * width + c)];
      z.push_back(dot / std::sqrt(static_cast<double>(size)));
    }
    return z;
  };
  const auto probabilities = [](std::vector<double> z) {
    double total = 0;
    for (double& v : z) total += v = std::exp(v);
    for (double& v : z) v /= total;
    return z;
  };
  double sum = 0, rows = 0;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s)
    for (std::int64_t i = starts[s]; i < starts[s + 1]; ++i)
      for (std::int64_t head = 0; head < student.heads; ++head, ++rows) {
        auto a = scores(student, i, starts[s], starts[s + 1], head),
             b = scores(teacher, i, starts[s], starts[s + 1], head);
        if (distance != AttentionDistance::kScores) a = probabilities(a), b = probabilities(b);
        for (std::size_t j = 0; j < a.size(); ++j)
          sum += distance == AttentionDistance::kKl
                     ? b[j] * std::log(b[j] / a[j])
                     : (a[j] - b[j]) * (a[j] - b[j]) / static_cast<double>(a.size());
      }
  return sum / rows;
}

nn::AttentionReads reads(std::int64_t rows, std::int64_t heads, std::int64_t size,
                         std::uint32_t seed, DType dtype = DType::kF32) {
  return {randn({rows, heads * size}, seed, dtype), randn({rows, heads * size}, seed + 1, dtype),
          heads, false};
}

TEST(AttentionMaps, distance_is_the_formula) {
  // A sequence of one position looks at itself alone; an empty one counts for nothing.
  const std::vector<std::int32_t> starts{0, 5, 5, 6, 9};
  const nn::AttentionReads student = reads(9, 2, 3, 1), teacher = reads(9, 2, 4, 3);
  for (const AttentionDistance distance : kAll) {
    const double got = attention_distance(student, teacher, starts, distance).item();
    EXPECT_TRUE(close(got, by_hand(student, teacher, starts, distance), 1e-5, 1e-7))
        << name_of(distance);
    EXPECT_GT(got, 0.01);
    EXPECT_EQ(parse_attention_distance(name_of(distance)), distance);
    EXPECT_NEAR(attention_distance(student, student, starts, distance).item(), 0, 1e-6);
  }
}

TEST(AttentionMaps, gradient_is_the_one_that_differences_show) {
  const std::vector<std::int32_t> starts{0, 3, 5};
  const nn::AttentionReads teacher = reads(5, 2, 3, 7, DType::kF64);
  for (const AttentionDistance distance : kAll) {
    const GradcheckResult r = gradcheck(
        [&](const std::vector<Tensor>& x) {
          return attention_distance({x[0], x[1], 2, false}, teacher, starts, distance);
        },
        {randn({5, 4}, 11, DType::kF64), randn({5, 4}, 12, DType::kF64)});
    EXPECT_TRUE(r) << name_of(distance) << ": " << r.message;
  }
}

nn::TransformerConfig tiny(std::int64_t layers, std::int64_t hidden, std::int64_t heads = 2) {
  nn::TransformerConfig c;
  c.head = nn::TextTask::kClassification;
  c.layers = layers;
  c.hidden = hidden;
  c.heads = heads;
  c.intermediate = 2 * hidden;
  c.vocabulary = 11;
  c.positions = 8;
  c.dropout = c.attention_dropout = c.head_dropout = 0;
  c.init_deviation = 0.5;
  return c;
}

std::shared_ptr<nn::Model> model_of(const nn::TransformerConfig& config, std::uint64_t seed) {
  auto model = std::make_shared<nn::Transformer>(config, seed);
  model->initialize(seed);
  return model;
}

struct Pair {
  explicit Pair(nn::TransformerConfig student_config, nn::TransformerConfig teacher_config)
      : student(model_of(student_config, 1)),
        teacher(std::make_shared<const Teacher>(model_of(teacher_config, 2))),
        batch(nn::Inputs::tokens(
                  Tensor::from(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {10}),
                  {0, 4, 5, 10}),
              Tensor::from(std::vector<std::int32_t>{0, 1, 0}, {3})) {}
  void begin(Term& term) {
    constexpr std::size_t kReads[] = {0};
    term.begin({*student, std::span(&teacher, 1), kReads, batch}, false);
  }
  // Loss and gradients of a step with the term alone.
  double step(const std::shared_ptr<Term>& term, std::int64_t micro_batch,
              std::map<std::string, Tensor>* gradients) {
    const RunTeacher one{teacher};
    const Terms terms{{1, term}};
    const StepSettings settings{.lambda = {0.5f}, .micro_batch = micro_batch};
    const StepReport report = eager_step(std::span(&one, 1), terms, *student, batch, settings, [&] {
      for (const auto& [name, p] : student->named_parameters()) {
        if (p.grad().defined()) gradients->emplace(name, p.grad().clone());
        p.zero_grad();
      }
    });
    EXPECT_TRUE(close(report.host().mean("loss_attention"), report.loss(), 1e-6, 0));
    return report.loss();
  }
  std::shared_ptr<nn::Model> student;
  std::shared_ptr<const Teacher> teacher;
  nn::Batch batch;
};

TEST(AttentionMaps, layers_look_at_those_of_the_teacher) {
  Pair pair(tiny(2, 8), tiny(3, 12));
  const NoGrad no_grad;
  const nn::Want want{.attention = true};
  const nn::Outputs s = pair.student->forward(pair.batch.inputs[0], want),
                    t = pair.teacher->forward(pair.batch.inputs[0], want);
  ASSERT_EQ(s.attention.size(), 2u);
  ASSERT_EQ(t.attention.size(), 3u);
  const auto& starts = pair.batch.inputs[0].starts_on_host;
  for (const AttentionDistance distance : kAll) {
    AttentionMaps all({{}, distance}), second({{2}, distance});
    pair.begin(all);
    pair.begin(second);
    // Layers 1 and 2 of 2 look at round(3 / 2) = 2 and 3 of 3.
    const double first = by_hand(s.attention[0], t.attention[1], starts, distance),
                 last = by_hand(s.attention[1], t.attention[2], starts, distance);
    EXPECT_TRUE(close(all(s, std::span(&t, 1), {}).total.item(), first + last, 1e-5, 1e-7));
    EXPECT_TRUE(close(second(s, std::span(&t, 1), {}).total.item(), last, 1e-5, 1e-7));
    EXPECT_NE(all.key(), second.key());
  }
}

TEST(AttentionMaps, micro_batches_give_the_same_loss_and_gradients) {
  Pair pair(tiny(2, 8), tiny(2, 12));
  const auto term = std::make_shared<AttentionMaps>(AttentionMapsOptions{});
  pair.begin(*term);
  std::map<std::string, Tensor> whole, cut;
  const double loss = pair.step(term, 0, &whole);
  EXPECT_TRUE(close(pair.step(term, 1, &cut), loss, 1e-5, 1e-7));
  ASSERT_EQ(cut.size(), whole.size());
  EXPECT_TRUE(whole.contains("bert.encoder.layer.1.attention.self.query.weight"));
  for (const auto& [name, gradient] : whole)
    EXPECT_TRUE(all_close(cut.at(name), gradient, {1e-4, 1e-6})) << name;
}

TEST(AttentionMaps, what_has_no_such_maps_is_told) {
  const auto refused = [](nn::TransformerConfig student, nn::TransformerConfig teacher,
                          AttentionMapsOptions options, const char* why) {
    Pair pair(std::move(student), std::move(teacher));
    AttentionMaps term(options);
    try {
      pair.begin(term);
      ADD_FAILURE() << "accepted: " << why;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr(why));
    }
  };
  refused(tiny(1, 8, 2), tiny(1, 12, 3), {}, "got 2 in the student and 3 in the teacher");
  refused(tiny(1, 8), tiny(1, 12), {.layers = {2}}, "[attention] layer 2 of a student with 1");
  nn::TransformerConfig causal = tiny(1, 8);
  causal.family = nn::TransformerFamily::kGpt2;
  causal.head = nn::TextTask::kCausalLm;
  refused(causal, causal, {}, "look back only");
  EXPECT_THROW(parse_attention_distance("cosine"), Error);
  EXPECT_THAT(term_kinds().names(), ::testing::Contains("attention"));
}

}  // namespace
}  // namespace retort::test
