#include "kernels/dropout/dropout.h"

#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/dropout.h"
#include "engine/ops/view.h"
#include "engine/runtime/graph.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr std::uint32_t kPath = path_hash("layer1.dropout");

Tensor i32(const std::vector<std::int32_t>& values, Device device) {
  return Tensor::from<std::int32_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}
Tensor i64(const std::vector<std::int64_t>& values, Device device) {
  return Tensor::from<std::int64_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}

TEST(Dropout, elements_are_kept_by_the_words_of_philox) {
  for (const Device device : devices()) {
    const Noise noise{42, i64({9}, device).view({}), i64({1000, 7}, device), i32({3, 0}, device)};
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}, {2, 6}, device);
    const std::vector<float> y = dropout(x, 0.25, noise, kPath).to_vector<float>();
    for (std::size_t n = 0; n < 2; ++n)
      for (std::size_t c = 0; c < 6; ++c) {
        // A row of six has two blocks, so row 3 of sample 1000 begins at block 6.
        const auto block = static_cast<std::uint32_t>((n == 0 ? 6 : 0) + c / 4);
        const std::uint32_t word = philox(42, block, n == 0 ? 1000 : 7, 9, kPath).v[c % 4];
        const float value = static_cast<float>(c + 1) * static_cast<float>(1 / 0.75);
        EXPECT_EQ(y[6 * n + c], word < 0x40000000u ? 0 : value) << n << c << name_of(device);
      }
  }
}

// Two of 2^32 words apart: p is chosen to be the word of an element, and the next share above it.
TEST(Dropout, an_element_whose_word_is_the_threshold_is_kept) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const std::int64_t columns : {8, 7})  // in packs of four, and one by one
        for (std::size_t c = 0; c < 7; ++c) {
          const std::uint32_t word =
              philox(42, static_cast<std::uint32_t>(c / 4), 5, 9, kPath).v[c % 4];
          for (const std::uint32_t above : {0u, 1u}) {
            const double p = (static_cast<double>(word) + above) / 4294967296.0;
            const Tensor y = dropout(Tensor::full({1, columns}, 1, dtype, device), p,
                                     {42, i64({9}, device).view({}), i32({5}, device), {}}, kPath);
            ASSERT_EQ(y.to_vector<double>()[c] != 0, above == 0)
                << c << " of " << columns << " " << name_of(dtype) << " on " << name_of(device);
          }
        }
}

TEST(Dropout, p_zero_and_evaluation_are_the_input_itself) {
  for (const Device device : devices()) {
    Tensor x = randn({4, 5}, 1).to(device);
    x.set_requires_grad(true);
    for (const Tensor& y : {dropout(x, 0, {}, kPath), dropout(x, 0.5, {}, kPath, false)}) {
      EXPECT_EQ(y.storage(), x.storage());
      EXPECT_EQ(y.autograd(), x.autograd());
    }
  }
}

TEST(Dropout, cuda_equals_cpu_with_any_threads_at_edge_sizes) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const std::int64_t rows : {0, 1, 7, 130})
      for (const std::int64_t columns : {1, 3, 4, 5, 63, 64, 65, 256, 301}) {
        const Tensor x = randn({rows, columns}, 1, dtype), sample = randint({rows}, 2, 1u << 30),
                     position = randint({rows}, 3, 128);
        const auto run = [&](Device device) {
          return dropout(x.to(device), 0.1, {5, {}, sample.to(device), position.to(device)}, kPath);
        };
        set_thread_count(1);
        const Tensor want = run(Device::kCpu);
        set_thread_count(3);
        for (const Device device : devices())
          ASSERT_TRUE(same_bytes(run(device), want))
              << name_of(dtype) << " on " << name_of(device) << " " << rows << " x " << columns;
      }
  set_thread_count(before);
}

TEST(Dropout, a_samples_mask_is_the_same_in_any_batch_and_order) {
  for (const Device device : devices()) {
    // Packed text: sample 4 has three rows, sample 9 two. Images: one entry of several rows.
    const Tensor step = i64({3}, device).view({});
    const Tensor whole =
        dropout_mask(Tensor::empty({5, 6}, DType::kF32, device), 0.4,
                     {1, step, i32({4, 4, 4, 9, 9}, device), i32({0, 1, 2, 0, 1}, device)}, kPath);
    const Tensor mixed =
        dropout_mask(Tensor::empty({3, 6}, DType::kF32, device), 0.4,
                     {1, step, i64({9, 4, 9}, device), i32({1, 2, 0}, device)}, kPath);
    EXPECT_TRUE(same_bytes(mixed.slice(0, 1), whole.slice(4, 5)));
    EXPECT_TRUE(same_bytes(mixed.slice(1, 2), whole.slice(2, 3)));
    EXPECT_TRUE(same_bytes(mixed.slice(2, 3), whole.slice(3, 4)));
    EXPECT_FALSE(same_bytes(whole.slice(0, 1), whole.slice(1, 2)));  // rows of one sample differ

    const Noise of_batch{1, step, i64({7, 2, 8}, device), {}}, alone{1, step, i64({8}, device), {}};
    const Tensor images = dropout_mask(Tensor::empty({3, 4, 5, 2}, DType::kF32, device), 0.4,
                                       of_batch, kPath),
                 image = dropout_mask(Tensor::empty({1, 4, 5, 2}, DType::kF32, device), 0.4, alone,
                                      kPath);
    EXPECT_TRUE(same_bytes(image, images.slice(2, 3)));
  }
}

TEST(Dropout, seed_step_sample_position_and_path_each_change_the_mask) {
  const auto mask = [](std::uint64_t seed, std::int64_t step, std::int64_t sample,
                       std::int32_t position, std::uint32_t path) {
    return dropout_mask(Tensor::empty({1, 256}), 0.5,
                        {seed, i64({step}, Device::kCpu), i64({sample}, Device::kCpu),
                         i32({position}, Device::kCpu)},
                        path);
  };
  const std::vector<Tensor> masks{mask(1, 2, 3, 4, 5), mask(9, 2, 3, 4, 5), mask(1, 9, 3, 4, 5),
                                  mask(1, 2, 9, 4, 5), mask(1, 2, 3, 9, 5), mask(1, 2, 3, 4, 9)};
  for (std::size_t i = 0; i < masks.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const auto a = masks[i].to_vector<float>(), b = masks[j].to_vector<float>();
      int equal = 0;
      for (std::size_t k = 0; k < 256; ++k) equal += a[k] == b[k];
      EXPECT_NEAR(equal, 128, 48) << i << " " << j;  // six deviations of 256 coins
    }
}

TEST(Dropout, keep_rate_and_mean_are_what_p_says) {
  constexpr std::int64_t kRows = 500, kColumns = 400;
  for (const double p : {0.1, 0.5, 0.9}) {
    const auto y = dropout_mask(Tensor::empty({kRows, kColumns}), p, {7, {}, {}, {}}, kPath)
                       .to_vector<double>();
    const double n = kRows * kColumns, six_deviations = 6 * std::sqrt(p * (1 - p) * n);
    double kept = 0, sum = 0;
    std::vector<double> by_column(kColumns);
    for (std::size_t i = 0; i < y.size(); ++i) {
      kept += y[i] != 0;
      sum += y[i];
      by_column[i % kColumns] += y[i] != 0;
    }
    EXPECT_NEAR(kept, (1 - p) * n, six_deviations) << p;
    EXPECT_NEAR(sum / n, 1, six_deviations / n / (1 - p)) << p;
    for (const double column : by_column)
      EXPECT_NEAR(column, (1 - p) * kRows, 6 * std::sqrt(p * (1 - p) * kRows));
  }
}

TEST(Dropout, equals_its_definition_and_draws_the_same_mask_backwards) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<std::vector<Tensor>> results;
      for (const bool composed : {false, true}) {
        Tensor x = randn({33, 20}, 1, dtype).to(device);
        x.set_requires_grad(true);
        const Noise noise{
            3, {}, i32(std::vector<std::int32_t>(33, 5), device), randint({33}, 4, 99).to(device)};
        const Tensor y =
            composed ? dropout_composed(x, 0.3, noise, kPath) : dropout(x, 0.3, noise, kPath);
        y.backward(randn({33, 20}, 2, dtype).to(device));
        results.push_back({y.detach(), x.grad()});
      }
      for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(all_close(results[0][i], results[1][i]));
    }
  const auto result = gradcheck([](const auto& in) { return dropout(in[0], 0.5, {}, kPath); },
                                {randn({4, 3}, 1, DType::kF64)});
  EXPECT_TRUE(result.ok) << result.message;
}

TEST(Dropout, pitched_rows_are_copied) {
  const Tensor wide = randn({6, 9}, 1), x = slice_columns(wide, 2, 7);
  EXPECT_TRUE(same_bytes(dropout(x, 0.5, {}, kPath), dropout(x.clone(), 0.5, {}, kPath)));
}

TEST(Dropout, a_captured_graph_reads_the_step_and_the_samples_of_its_time) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  const Device gpu = Device::kCuda;
  const Tensor x = randn({8, 12}, 1).to(gpu), out = Tensor::zeros({8, 12}, DType::kF32, gpu),
               step = i64({0}, gpu).view({}), sample = i64(std::vector<std::int64_t>(8), gpu);
  const Noise noise{11, step, sample, {}};
  Graph graph(std::make_shared<GraphMemory>());
  const auto f = [&] { out.copy_from(dropout(x, 0.5, noise, kPath)); };
  for (int i = 0; i < 5 && !graph.rehearse(f); ++i) {
  }
  graph.capture(f);
  for (const std::int64_t k : {1, 2}) {
    step.fill(static_cast<double>(k));
    sample.copy_from(randint({8}, static_cast<std::uint64_t>(k), 1000).to(DType::kI64));
    graph.launch();
    const Noise here{11, step.to(Device::kCpu), sample.to(Device::kCpu), {}};
    EXPECT_TRUE(same_bytes(out, dropout(x.to(Device::kCpu), 0.5, here, kPath))) << k;
  }
}

TEST(Dropout, threshold_is_a_share_of_all_words) {
  EXPECT_EQ(kernels::dropout_threshold(0), 0u);
  EXPECT_EQ(kernels::dropout_threshold(0.5), 0x80000000u);
  EXPECT_EQ(kernels::dropout_threshold(1 - 1e-12), 0xffffffffu);
}

TEST(Dropout, errors) {
  const Tensor x = randn({4, 6}, 1);
  for (const double p : {-0.1, 1.0, double{NAN}}) EXPECT_THROW(dropout(x, p, {}, kPath), Error);
  const Device cpu = Device::kCpu;
  EXPECT_THROW(dropout(x, 0.5, {0, {}, i32({1, 2, 3}, cpu), {}}, kPath), Error);
  EXPECT_THROW(dropout(x, 0.5, {0, i32({1}, cpu), {}, {}}, kPath), Error);
  EXPECT_THROW(dropout(x, 0.5, {0, {}, Tensor::zeros({4}), {}}, kPath), Error);
  EXPECT_THROW(dropout(x, 0.5, {0, {}, {}, i32({1, 2}, cpu)}, kPath), Error);
  if (cuda_available()) {
    EXPECT_THROW(dropout(x, 0.5, {0, {}, i32({1, 2, 3, 4}, Device::kCuda), {}}, kPath), Error);
  }
}

}  // namespace
}  // namespace retort::test
