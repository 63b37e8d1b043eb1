#include "nn/slice_statistics.h"

#include <gtest/gtest.h>

#include "nn/layers/batch_norm.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::devices;
using test::randn;

std::vector<float> mean_of(const BatchNorm& norm) {
  return norm.named_buffers().at(0).second.to_vector<float>();
}

TEST(SliceStatistics, a_scope_takes_what_a_training_pass_leaves) {
  for (const Device device : devices()) {
    BatchNorm norm(3);
    norm.to(device);
    const Tensor x = randn({8, 3}, 1).to(device);
    const std::vector<float> before = mean_of(norm);
    std::vector<Tensor> places;
    {
      const StatisticsScope scope([&](const Tensor& running, double momentum) {
        EXPECT_EQ(momentum, 0.1);
        places.push_back(Tensor::full(running.shape(), 5, DType::kF32, device));
        return StatisticsPlace{places.back(), 1};
      });
      norm.forward(x);
      norm.eval();
      norm.forward(x);  // evaluation reads the running statistics
      norm.train();
    }
    EXPECT_EQ(mean_of(norm), before) << name_of(device);
    ASSERT_EQ(places.size(), 2u);
    norm.forward(x);  // as ever
    const std::vector<float> of_slice = places[0].to_vector<float>(), running = mean_of(norm);
    for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(running[c], 0.1F * of_slice[c], 1e-7);
  }
}

TEST(SliceStatistics, the_inner_scope_is_asked) {
  const Tensor running = Tensor::zeros({1});
  const StatisticsScope outer([](const Tensor& r, double) { return StatisticsPlace{r, 0.5}; });
  {
    const StatisticsScope inner([](const Tensor& r, double) { return StatisticsPlace{r, 0.25}; });
    EXPECT_EQ(statistics_place(running, 0.1).momentum, 0.25);
  }
  EXPECT_EQ(statistics_place(running, 0.1).momentum, 0.5);
}

}  // namespace
}  // namespace retort::nn
