#include "distill/metrics/degree_one.h"

#include <gtest/gtest.h>

#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

Tensor bits(std::int64_t first, std::int64_t count, std::int64_t n) {
  std::vector<float> x;
  for (std::int64_t s = first; s < first + count; ++s)
    for (std::int64_t i = 0; i < n; ++i)
      x.push_back(
          philox(5, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(s), 0, 0).v[0] & 1
              ? 1.0f
              : -1.0f);
  return Tensor::from(x, {count, n});
}

// h = relu((x_0, -x_0)): only the first bit shows, and perfectly: z = r_0 relu(x) + r_1 relu(-x)
// takes two values, so its correlation with x_0 is 1 in every projection.
class FirstBit : public nn::Model {
 public:
  FirstBit() : weight_(add_parameter("weight", Tensor::zeros({2, 8}))) {
    weight_.detach().copy_from(
        Tensor::from<float>({1, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0}, {2, 8}));
  }
  nn::Outputs forward(const nn::Inputs& x, const nn::Want&) override {
    const Tensor pre = linear(x.values, weight_, {});
    nn::Outputs out;
    out.logits = pre, out.pre = {pre}, out.post = {relu(pre)};
    return out;
  }
  nn::ModelFacts facts() const override { return {.classes = 2, .hidden_layers = 1}; }

 private:
  Tensor& weight_;
};

TEST(DegreeOne, sees_the_bit_that_matters_and_noise_elsewhere) {
  const Teacher teacher(std::make_shared<FirstBit>());
  const std::vector<std::int64_t> support{0};
  const auto inputs = [](std::int64_t first, std::int64_t count) { return bits(first, count, 8); };
  const DegreeOneResult r = degree_one_probe(
      teacher, inputs, support, {.samples = 4096, .projections = 16, .seed = 1, .chunk = 1000});
  EXPECT_TRUE(close(r.in_support, 1, 1e-3, 0)) << r.in_support;
  EXPECT_TRUE(close(r.output_in, 1, 1e-3, 0)) << r.output_in;
  EXPECT_LT(r.off_support, 3 * r.floor);
  EXPECT_GT(r.ratio, 20);
  const DegreeOneResult whole = degree_one_probe(
      teacher, inputs, support, {.samples = 4096, .projections = 16, .seed = 1, .chunk = 4096});
  EXPECT_TRUE(close(whole.off_support, r.off_support, 1e-5, 0));  // chunks do not matter
}

TEST(DegreeOne, an_untrained_network_has_no_preference) {
  const Teacher teacher(std::make_shared<TinyMlp>(12, std::vector<std::int64_t>{256}, 2, 3));
  const std::vector<std::int64_t> support{0, 1, 2};
  const DegreeOneResult r =
      degree_one_probe(teacher, [](std::int64_t f, std::int64_t c) { return bits(f, c, 12); },
                       support, {.samples = 8192, .projections = 32});
  EXPECT_GT(r.ratio, 0.8);
  EXPECT_LT(r.ratio, 1.25);
}

TEST(DegreeOne, errors) {
  const Teacher shallow(std::make_shared<LinearModel>(8, 2));
  const auto inputs = [](std::int64_t f, std::int64_t c) { return bits(f, c, 8); };
  const std::vector<std::int64_t> support{0}, outside{8};
  EXPECT_THROW(degree_one_probe(shallow, inputs, support), Error);
  const Teacher teacher(std::make_shared<FirstBit>());
  EXPECT_THROW(degree_one_probe(teacher, inputs, outside), Error);
  EXPECT_THROW(degree_one_probe(teacher, inputs, support, {.samples = 1}), Error);
  EXPECT_THROW(degree_one_probe(teacher, inputs, support, {.layer = 1}), Error);
}

}  // namespace
}  // namespace retort::test
