#include "engine/ops/softmax.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Softmax, hand_checked_numbers) {
  const Tensor x = Tensor::from<double>({0, std::log(3.0), 5, 5}, {2, 2});
  EXPECT_TRUE(all_close(softmax(x), Tensor::from<double>({0.25, 0.75, 0.5, 0.5}, {2, 2})));
  EXPECT_TRUE(all_close(log_softmax(x), Tensor::from<double>({std::log(0.25), std::log(0.75),
                                                              -std::log(2.0), -std::log(2.0)},
                                                             {2, 2})));
}

}  // namespace
}  // namespace retort::test
