#include "kernels/reduce/reduce.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

TEST(Reduce, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, device);
    EXPECT_EQ(sum(x).item(), 21);
    EXPECT_EQ(mean(x).item(), 3.5);
    EXPECT_EQ(sum_rows(x).to_vector<float>(), (std::vector<float>{6, 15}));
    EXPECT_EQ(column_sum(x).to_vector<float>(), (std::vector<float>{5, 7, 9}));
  }
}

// Against sums in double; rows with a pitch, results between sentinels, twice the same bits.
TEST(Reduce, edge_sizes_on_every_device) {
  // The emulator is slow: large shapes in f32 only, and fewer under a sanitizer.
#if defined(RETORT_SANITIZED)
  constexpr std::int64_t kLargest = 2500, kLargestOther = 500;
#else
  constexpr std::int64_t kLargest = 14000, kLargestOther = 3000;
#endif
  using kernels::Sum;
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t rows : {0, 1, 7, 65, 401})
        for (const std::int64_t columns : {0, 1, 31, 32, 33, 257, 1271}) {
          if (rows * columns > (dtype == DType::kF32 ? kLargest : kLargestOther)) continue;
          for (const std::int64_t extra : {0, 5}) {
            if (extra != 0 && dtype == DType::kF64) continue;
            const std::int64_t pitch = columns + extra;
            const Tensor memory = Tensor::full({rows * pitch + 1}, 99, dtype, device);
            const Tensor x = Tensor::wrap(memory.storage(), 0, {rows, columns}, dtype, pitch);
            const Tensor values = randn({rows, columns}, 5, dtype);
            x.copy_from(values);
            const auto v = values.to_vector<double>();
            for (const Sum kind : {Sum::kAll, Sum::kRows, Sum::kColumns}) {
              const std::int64_t results =
                  kind == Sum::kAll ? 1 : (kind == Sum::kRows ? rows : columns);
              std::vector<double> want(static_cast<std::size_t>(results) + 1, 0.0), size = want;
              for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t c = 0; c < columns; ++c) {
                  const auto at = static_cast<std::size_t>(
                      kind == Sum::kAll ? 0 : (kind == Sum::kRows ? r : c));
                  const double term = v[static_cast<std::size_t>(r * columns + c)];
                  want[at] += 0.5 * term;
                  size[at] += std::abs(0.5 * term);
                }
              want.back() = 7;
              const auto run = [&] {
                const Tensor y = Tensor::full({results + 1}, 7, dtype, device);
                kernels::sum(context_of(device),
                             {kind, y.raw(), memory.raw(), rows, columns, pitch, 0.5, dtype});
                return y;
              };
              const Tensor y = run();
              EXPECT_TRUE(same_bytes(y, run()));
              const auto got = y.to_vector<double>();
              const double relative = dtype == DType::kF64   ? 1e-14
                                      : dtype == DType::kF32 ? 1e-6
                                                             : 0.004;  // rounding of the result
              for (std::size_t i = 0; i < got.size(); ++i)
                ASSERT_LE(std::abs(got[i] - want[i]),
                          relative * (dtype == DType::kBF16 ? std::abs(want[i]) : size[i]) + 1e-6)
                    << name_of(device) << " " << name_of(dtype) << " " << rows << " x " << columns
                    << " kind " << static_cast<int>(kind) << " entry " << i;
            }
          }
        }
}

TEST(Reduce, long_flat_sums) {
  for (const Device device : devices())
    for (const std::int64_t n : {4097, 70001, 300000}) {
      const Tensor x = Tensor::full({n + 1}, 0.1, DType::kF32, device).slice(1, n + 1);
      EXPECT_NEAR(sum(x).item(), static_cast<double>(0.1f) * static_cast<double>(n),
                  1e-7 * static_cast<double>(n))
          << name_of(device);
    }
}

// Flat sums of what no pack begins with, and rows long enough for a block, in packs and one by one.
TEST(Reduce, alignment_of_every_type) {
  using kernels::Sum;
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t offset : {0, 1})
        for (const std::int64_t columns : {1032, 1033}) {
          constexpr std::int64_t kRows = 3;
          const Tensor x = randn({kRows * columns + 1}, 1, dtype, 1, 1);
          const auto v = x.to_vector<double>();
          const Tensor on = x.to(device).slice(offset, kRows * columns + offset);
          const Tensor rows = Tensor::empty({kRows}, dtype, device),
                       all = Tensor::empty({1}, dtype, device);
          kernels::sum(context_of(device),
                       {Sum::kRows, rows.raw(), on.raw(), kRows, columns, columns, 0.5, dtype});
          kernels::sum(context_of(device),
                       {Sum::kAll, all.raw(), on.raw(), kRows, columns, columns, 0.5, dtype});
          std::vector<double> want(kRows);
          double total = 0;
          for (std::int64_t i = 0; i < kRows * columns; ++i) {
            const double term = 0.5 * v[static_cast<std::size_t>(i + offset)];
            want[static_cast<std::size_t>(i / columns)] += term;
            total += term;
          }
          EXPECT_TRUE(all_close(rows, Tensor::from(want, {kRows}), tolerance_of(dtype)))
              << name_of(device) << " " << name_of(dtype) << " " << columns << " " << offset;
          EXPECT_TRUE(all_close(all, Tensor::from<double>({total}, {1}), tolerance_of(dtype)))
              << name_of(device) << " " << name_of(dtype) << " " << columns << " " << offset;
        }
}

TEST(Reduce, expand_is_the_factor_times_what_it_spreads) {
  using kernels::Sum;
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const Sum kind : {Sum::kAll, Sum::kRows, Sum::kColumns}) {
        constexpr std::int64_t kRows = 5, kColumns = 67;
        const Tensor x = randn({kind == Sum::kAll    ? 1
                                : kind == Sum::kRows ? kRows
                                                     : kColumns},
                               1, dtype);
        const auto v = x.to_vector<double>();
        const Tensor on = x.to(device), y = Tensor::empty({kRows, kColumns}, dtype, device);
        kernels::expand(context_of(device),
                        {kind, y.raw(), on.raw(), kRows, kColumns, 0.25, dtype});
        std::vector<double> want;
        for (std::int64_t r = 0; r < kRows; ++r)
          for (std::int64_t c = 0; c < kColumns; ++c)
            want.push_back(0.25 * v[static_cast<std::size_t>(kind == Sum::kAll    ? 0
                                                             : kind == Sum::kRows ? r
                                                                                  : c)]);
        EXPECT_TRUE(all_close(y, Tensor::from(want, {kRows, kColumns}), {0, 0}))
            << name_of(device) << " " << name_of(dtype) << " kind " << static_cast<int>(kind);
      }
}

// The order of a sum follows from the sizes, not from the threads.
TEST(Reduce, the_same_bits_with_any_number_of_threads) {
  const Tensor x = randn({70001}, 3), m = randn({900, 130}, 4);
  const int before = thread_count();
  std::vector<Tensor> results;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    for (const Tensor& t : {sum(x), sum(m), sum_rows(m), column_sum(m)}) results.push_back(t);
  }
  set_thread_count(before);
  for (std::size_t i = 4; i < results.size(); ++i)
    EXPECT_TRUE(same_bytes(results[i], results[i % 4])) << i;
}

TEST(Reduce, gradients_on_cuda) {
  for (const Device device : devices())
    for (const auto f : {sum, mean, sum_rows, column_sum}) {
      Tensor x = randn({70, 33}, 1).to(device);
      x.set_requires_grad(true);
      const Tensor y = f(x);
      const Tensor dy = randn(y.shape(), 2);
      y.backward(dy.to(device));
      Tensor host = randn({70, 33}, 1);
      host.set_requires_grad(true);
      f(host).backward(dy);
      EXPECT_TRUE(all_close(x.grad(), host.grad())) << name_of(device);
    }
}

TEST(Reduce, gradients) {
  for (const auto f : {sum, mean, sum_rows, column_sum}) {
    const auto result =
        gradcheck([&](const auto& in) { return f(in[0]); }, {randn({2, 3, 4}, 1, DType::kF64)});
    EXPECT_TRUE(result.ok) << result.message;
  }
}

TEST(Reduce, errors) {
  EXPECT_THROW(mean(Tensor::zeros({0})), Error);
  EXPECT_THROW(sum_rows(Tensor::scalar(1)), Error);
  EXPECT_THROW(sum(Tensor::zeros({3}, DType::kI32)), Error);
}

TEST(Reduce, column_sums_equal_the_definition_and_do_not_depend_on_threads) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const auto& [m, n] : {std::pair{0, 3}, {1, 1}, {5, 33}, {64, 1}, {1000, 70}}) {
      const Tensor x = randn({m, n}, 1, dtype);
      const auto values = x.to_vector<double>();
      std::vector<double> want(static_cast<std::size_t>(n));
      for (std::size_t i = 0; i < values.size(); ++i)
        want[i % static_cast<std::size_t>(n)] += values[i];
      const Tensor sum = Tensor::from(want, {n}).to(dtype);
      for (const Device device : devices()) {
        const Tensor out = Tensor::empty({n}, dtype, device), on = x.to(device);
        kernels::sum(context_of(device),
                     {kernels::Sum::kColumns, out.raw(), on.raw(), m, n, n, 1, dtype});
        // Cancelling sums of 1,000 terms of size 1.
        EXPECT_TRUE(all_close(out.to(Device::kCpu), sum, {tolerance_of(dtype).rtol, 5e-5}));
      }
      Tensor first;
      for (const int threads : {1, 2, 3}) {
        set_thread_count(threads);
        const Tensor out = Tensor::empty({n}, dtype);
        kernels::sum(context_of(Device::kCpu),
                     {kernels::Sum::kColumns, out.raw(), x.raw(), m, n, n, 1, dtype});
        if (!first.defined()) first = out;
        EXPECT_TRUE(same_bytes(out, first));
      }
      set_thread_count(before);
    }
}

}  // namespace
}  // namespace retort::test
