#include <gtest/gtest.h>

#include "engine/ops/axpy.h"
#include "kernels/axpy/axpy.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Axpy, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor y = Tensor::from<float>({1, 2, 3}, {3}, device),
                 x = Tensor::from<float>({10, 20, 30}, {3}, device);
    add_into(y, x, 0.5);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{6, 12, 18})) << name_of(device);
  }
}

TEST(Axpy, doubles_keep_all_their_digits) {
  for (const Device device : devices()) {
    const Tensor y = Tensor::from<double>({1}, {1}, device);
    add_into(y, Tensor::from<double>({1e-12}, {1}, device));
    EXPECT_EQ(y.item(), 1 + 1e-12) << name_of(device);
  }
}

TEST(Axpy, cuda_equals_cpu_at_edge_sizes) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t n : {1, 2, 31, 32, 33, 255, 256, 257, 70001}) {
      const Tensor y = randn({n}, 1, dtype), x = randn({n}, 2, dtype);
      const Tensor device_y = y.to(Device::kCuda);
      add_into(device_y, x.to(Device::kCuda), -1.25);
      add_into(y, x, -1.25);
      EXPECT_TRUE(all_close(device_y.to(Device::kCpu), y)) << name_of(dtype) << " n = " << n;
    }
}

TEST(Axpy, pitched_rows_leave_what_lies_between_them) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t rows : {1, 2, 33})
        for (const std::int64_t columns : {1, 2, 255, 257}) {
          const Tensor wide = Tensor::full({rows, columns + 2}, 7, dtype, device),
                       y = wide.slice_columns(1, columns + 1);
          y.copy_from(randn({rows, columns}, 1, dtype));
          const Tensor all = randn({rows, columns + 5}, 2, dtype).to(device),
                       x = all.slice_columns(5, columns + 5);
          const Tensor want = randn({rows, columns}, 1, dtype);
          add_into(want, x.to(Device::kCpu).clone(), -1.25);
          add_into(y, x, -1.25);
          EXPECT_TRUE(all_close(y.to(Device::kCpu), want))
              << name_of(dtype) << name_of(device) << rows << " x " << columns;
          for (const std::int64_t c : {std::int64_t{0}, columns + 1})
            for (const double v : wide.slice_columns(c, c + 1).to_vector<double>()) EXPECT_EQ(v, 7);
        }
}

TEST(Axpy, empty_input_is_a_no_op) {
  const Tensor y = Tensor::empty({0});
  add_into(y, y);
}

TEST(Axpy, null_pointer_throws) {
  EXPECT_THROW(kernels::axpy(context_of(Device::kCpu), {nullptr, nullptr, 1, 4, DType::kF32}),
               Error);
  EXPECT_THROW(add_into(Tensor::zeros({2}), Tensor::zeros({3})), Error);
  float x[4] = {};
  EXPECT_THROW(kernels::axpy_rows(context_of(Device::kCpu), {x, x, 1, 2, 2, 1, 2, DType::kF32}),
               Error);
  EXPECT_THROW(
      kernels::axpy_rows(context_of(Device::kCpu), {x, nullptr, 1, 2, 2, 2, 2, DType::kF32}),
      Error);
}

}  // namespace
}  // namespace retort::test
