#include "kernels/softmax/softmax.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(SoftmaxKernel, bad_sizes_throw) {
  const Context& cpu = context_of(Device::kCpu);
  float x[4] = {};
  EXPECT_THROW(kernels::softmax(cpu, {x, x, 2, 0, 4, 4, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax(cpu, {x, x, 2, 2, 1, 2, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax(cpu, {nullptr, x, 2, 2, 2, 2, false, DType::kF32}), Error);
  EXPECT_THROW(kernels::softmax_backward(cpu, {x, x, x, 2, 2, 2, 1, 2, false, DType::kF32}), Error);
  kernels::softmax(cpu, {nullptr, nullptr, 0, 2, 2, 2, false, DType::kF32});
}

}  // namespace
}  // namespace retort::test
