#include "distill/terms/hidden_mse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "distill/terms/cosine.h"
#include "distill/terms/projection.h"
#include "distill/terms/projection_target.h"
#include "distill/terms/registry.h"
#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "nn/models/registry.h"
#include "tests/distill/terms/hints.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace distill;
using ::testing::HasSubstr;

// Written out in double: sum over layers of mean (W s + b - t)^2, layer by layer.
double by_hand(Hints& h, nn::Module& maps,
               const std::vector<std::pair<std::size_t, std::size_t>>& pairs) {
  const NoGrad no_grad;
  const nn::Outputs s = h.student.forward(h.batch.inputs[0], {0, true}),
                    t = h.teacher->forward(h.batch.inputs[0], {0, true});
  const auto parameters = by_name(maps);
  double total = 0;
  for (const auto& [of_student, of_teacher] : pairs) {
    const std::string name = join("layer", of_student);
    const std::vector<double> w = parameters.at(name + ".weight").to_vector<double>(),
                              b = parameters.at(name + ".bias").to_vector<double>(),
                              x = s.post[of_student - 1].to_vector<double>(),
                              y = t.post[of_teacher - 1].to_vector<double>();
    const std::size_t m = b.size(), k = w.size() / m, n = x.size() / k;
    EXPECT_EQ(y.size(), n * m);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < m; ++j) {
        double mapped = b[j];
        for (std::size_t c = 0; c < k; ++c) mapped += w[j * k + c] * x[i * k + c];
        sum += (mapped - y[i * m + j]) * (mapped - y[i * m + j]);
      }
    total += sum / static_cast<double>(n * m);
  }
  return total;
}

TEST(HiddenMse, value_is_the_formula) {
  for (const Device device : devices()) {
    Hints h(device);
    const auto all = std::make_shared<HiddenMse>(HiddenMseOptions{.layers = {}, .seed = 5}),
               one = std::make_shared<HiddenMse>(HiddenMseOptions{.layers = {2}, .seed = 5});
    h.begin(*all);
    h.begin(*one);
    std::map<std::string, Tensor> gradients;
    // Layers 1 and 2 of 2 look at round(3 / 2) = 2 and 3 of 3.
    StepReport report = h.step({{1, all}}, 0, &gradients);
    EXPECT_TRUE(close(report.loss(), by_hand(h, *all->trained(), {{1, 2}, {2, 3}}), 1e-5, 1e-6));
    EXPECT_TRUE(close(report.host().mean("loss_hidden"), report.loss(), 1e-6, 0));
    report = h.step({{1, one}}, 0, &gradients);
    EXPECT_TRUE(close(report.loss(), by_hand(h, *one->trained(), {{2, 3}}), 1e-5, 1e-6));
    // The weight is in the loss and not in the column.
    report = h.step({{0.25f, one}}, 0, &gradients);
    EXPECT_TRUE(close(report.loss(), 0.25 * report.host().mean("loss_hidden"), 1e-6, 0));
  }
}

TEST(HiddenMse, gradients_are_those_of_the_composed_definition) {
  for (const Device device : devices()) {
    Hints h(device);
    const auto term = std::make_shared<HiddenMse>(HiddenMseOptions{});
    h.begin(*term);
    std::map<std::string, Tensor> got, heads;
    h.step({{1, term}}, 0, &got, term->trained());
    const nn::Outputs s = h.student.forward(h.batch.inputs[0], {0, true});
    const nn::Outputs t = h.teacher->forward(h.batch.inputs[0], {0, true});
    const auto maps = by_name(*term->trained());
    const std::vector<Tensor> taught{t.post[1], t.post[2]};
    const std::vector<Tensor> mapped{
        linear(s.post[0], maps.at("layer1.weight"), maps.at("layer1.bias")),
        linear(s.post[1], maps.at("layer2.weight"), maps.at("layer2.bias"))};
    hidden_mse_composed(mapped, taught).backward();
    auto want = by_name(h.student);
    want.insert(maps.begin(), maps.end());
    for (const auto& [name, p] : want) {
      if (name == "w3" || name == "b3") {  // behind the last hidden layer
        EXPECT_EQ(got.count(name), 0u) << name;
        continue;
      }
      ASSERT_EQ(got.count(name), 1u) << name;
      EXPECT_TRUE(all_close(got.at(name), p.grad(), {1e-4, 1e-6})) << name;
    }
  }
}

TEST(HiddenMse, composed_definition_has_the_gradient_that_differences_show) {
  const std::vector<Tensor> taught{randn({3, 4}, 1, DType::kF64), randn({3, 2}, 2, DType::kF64)};
  const GradcheckResult r =
      gradcheck([&](const std::vector<Tensor>& x) { return hidden_mse_composed(x, taught); },
                {randn({3, 4}, 3, DType::kF64), randn({3, 2}, 4, DType::kF64)});
  EXPECT_TRUE(r) << r.message;
  EXPECT_THROW(hidden_mse_composed({}, {}), Error);
  EXPECT_THROW(hidden_mse_composed(taught, std::span(taught).first(1)), Error);
}

TEST(HiddenMse, micro_batches_give_the_same_loss_and_gradients) {
  for (const Device device : devices()) {
    Hints h(device);
    const auto term = std::make_shared<HiddenMse>(HiddenMseOptions{});
    h.begin(*term);
    const Terms terms{{1, std::make_shared<SoftTargets>()}, {0.5f, term}};
    std::map<std::string, Tensor> want, got;
    const StepReport whole = h.step(terms, 0, &want, term->trained());
    for (const std::int64_t micro : {1, 3, 4, 9}) {
      const StepReport cut = h.step(terms, micro, &got, term->trained());
      EXPECT_TRUE(close(cut.loss(), whole.loss(), 1e-5, 1e-6)) << micro;
      EXPECT_TRUE(
          close(cut.host().mean("loss_hidden"), whole.host().mean("loss_hidden"), 1e-5, 1e-6));
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [name, gradient] : want)
        EXPECT_TRUE(all_close(got.at(name), gradient, {1e-4, 1e-6})) << name << " " << micro;
    }
  }
}

TEST(HiddenMse, image_layers_are_averaged_over_the_image) {
  const auto student = nn::make_model(
      {.arch = "resnet8", .classes = 4, .seed = 1, .options = {{"widths", nn::Ints{4, 4, 6, 8}}}});
  const auto teacher = std::make_shared<const Teacher>(nn::make_model(
      {.arch = "resnet8", .classes = 4, .seed = 2, .options = {{"widths", nn::Ints{4, 4, 8, 8}}}}));
  student->eval();
  const nn::Batch batch(randn({3, 8, 8, 3}, 1), randint({3}, 2, 4));
  HiddenMse term({.layers = {2}});
  const std::size_t reading = 1;
  term.begin({*student, std::span(&teacher, 1), std::span(&reading, 1), batch}, false);
  EXPECT_FALSE(student->training());  // as it was
  const auto maps = by_name(*term.trained());
  EXPECT_EQ(maps.at("layer2.weight").shape(), (Shape{8, 6}));
  const NoGrad no_grad;
  const nn::Outputs s = student->forward(batch.inputs[0], {0, true}),
                    t = teacher->forward(batch.inputs[0], {0, true});
  const std::vector<Tensor> mapped{
      linear(hidden_features(s.post[1]), maps.at("layer2.weight"), maps.at("layer2.bias"))},
      taught{hidden_features(t.post[1])};
  const TermLoss loss = term(s, std::span(&t, 1), {});
  EXPECT_TRUE(close(loss.total.item(), hidden_mse_composed(mapped, taught).item(), 1e-5, 1e-6));
}

TEST(HiddenMse, maps_follow_their_seed_and_keys_their_layers) {
  Hints h;
  HiddenMse a({.layers = {1}, .seed = 1}), same({.layers = {1}, .seed = 1}),
      other({.layers = {1}, .seed = 2}), more({.layers = {1, 2}, .seed = 1});
  for (HiddenMse* term : {&a, &same, &other, &more}) {
    EXPECT_EQ(term->trained(), nullptr);  // before a stage there is nothing
    h.begin(*term);
  }
  const auto weight = [](HiddenMse& term) { return by_name(*term.trained()).at("layer1.weight"); };
  EXPECT_TRUE(same_bytes(weight(a).detach(), weight(same).detach()));
  EXPECT_FALSE(same_bytes(weight(a).detach(), weight(other).detach()));
  EXPECT_EQ(a.key(), other.key());  // they cost the same
  EXPECT_NE(a.key(), more.key());
  EXPECT_EQ(a.of_teacher({}), (nn::Want{0, true, false, true}));
}

TEST(HiddenMse, errors) {
  const auto error_of = [](Hints& h, std::vector<std::int64_t> layers) -> std::string {
    HiddenMse term({.layers = std::move(layers)});
    try {
      h.begin(term);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "accepted";
  };
  Hints h, shallow(Device::kCpu, {});
  EXPECT_THAT(error_of(h, {3}), HasSubstr("layer 3 of a student with 2 hidden layers"));
  EXPECT_THAT(error_of(h, {0}), HasSubstr("layer 0"));
  EXPECT_THAT(error_of(shallow, {}), HasSubstr("a teacher with 0"));
  HiddenMse term({});
  const std::vector<std::shared_ptr<const Teacher>> two{h.teacher, h.teacher};
  const std::vector<std::size_t> readings{1, 1};
  EXPECT_THROW(term.begin({h.student, two, readings, h.batch}, false), Error);
  EXPECT_THROW(term.begin({h.student, {}, {}, h.batch}, false), Error);
  // A term whose stage never began has no maps.
  std::map<std::string, Tensor> gradients;
  EXPECT_THROW(h.step({{1, std::make_shared<HiddenMse>(HiddenMseOptions{})}}, 0, &gradients),
               Error);
}

// A student that cannot read the calibration batch.
TEST(HiddenMse, a_beginning_that_throws_leaves_the_student_in_training) {
  Hints h;
  TinyMlp other(5, {8, 7}, 4, 1);
  const std::size_t reading = 1;
  HiddenMse hidden({});
  Cosine cosine({});
  Projection projection(ProjectionOptions{});
  for (Term* const term : std::initializer_list<Term*>{&hidden, &cosine, &projection}) {
    EXPECT_THROW(
        term->begin({other, std::span(&h.teacher, 1), std::span(&reading, 1), h.batch}, false),
        Error)
        << term->name();
    EXPECT_TRUE(other.training()) << term->name();
  }
}

TEST(TermKinds, rows_make_their_terms_from_complete_options) {
  EXPECT_THAT(term_kinds().names(), ::testing::IsSupersetOf({"hidden_mse", "cosine"}));
  const TermKind& hidden = term_kinds().at("hidden_mse");
  const auto specs = options_of(hidden);
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_EQ(specs[0].key, "weight");  // which every term has; 0: off
  EXPECT_EQ(specs[0].fallback, nn::OptionValue(0.0));
  const nn::Options options = complete("hidden_mse", hidden.options, {{"layers", nn::Ints{2}}});
  const auto term = hidden.make({options, 3});
  EXPECT_EQ(term->name(), "hidden_mse");
  EXPECT_EQ(term->key(), HiddenMse({.layers = {2}}).key());
  const TermKind& cosine = term_kinds().at("cosine");
  EXPECT_EQ(cosine.make({complete("cosine", cosine.options, {}), 3})->name(), "cosine");
  try {
    term_kinds().at("hiden_mse");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("unknown loss term 'hiden_mse'"));
    EXPECT_THAT(e.what(), HasSubstr("did you mean 'hidden_mse'?"));
  }
}

}  // namespace
}  // namespace retort::test
