#include "engine/ops/embedding.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/graph.h"
#include "kernels/common/parallel.h"
#include "kernels/embedding/embedding.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

Tensor ints(const std::vector<std::int32_t>& values, Device device = Device::kCpu) {
  return Tensor::from<std::int32_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}
Tensor leaf(Tensor t) { return t.set_requires_grad(true); }

// Sequences of lengths 1, 2, ..., some of them empty, that fill `rows`.
std::vector<std::int32_t> starts_of(std::int64_t rows) {
  std::vector<std::int32_t> starts{0, 0};
  for (std::int32_t length = 1; starts.back() < rows; ++length)
    starts.push_back(static_cast<std::int32_t>(
        std::min<std::int64_t>(rows, starts.back() + (length % 4 == 0 ? 0 : length))));
  return starts;
}

struct Sizes {
  std::int64_t rows, columns, words;
};
const std::vector<Sizes>& edge_sizes() {
  static const std::vector<Sizes> list{{0, 8, 5},   {1, 1, 1},     {1, 8, 3},     {33, 12, 300},
                                       {70, 33, 7}, {401, 16, 50}, {7, 1271, 11}, {65, 2, 3000}};
  return list;
}

EmbeddingArgs make(const Sizes& s, DType dtype, Device device, std::int64_t pad = 0) {
  const std::vector<std::int32_t> starts = starts_of(s.rows);
  std::int32_t longest = 1;
  for (std::size_t b = 1; b < starts.size(); ++b)
    longest = std::max(longest, starts[b] - starts[b - 1]);
  const auto table = [&](std::int64_t rows, std::uint64_t seed) {
    const Tensor wide = Tensor::full({rows, s.columns + pad}, 7, dtype, device);
    const Tensor t = pad > 0 ? wide.slice_columns(0, s.columns) : wide;
    t.copy_from(randn({rows, s.columns}, seed, dtype));
    return t;
  };
  EmbeddingArgs a;
  a.position_offset = 2;
  a.word = table(s.words, 1);
  a.position = table(longest + a.position_offset, 2);
  a.type = table(2, 3);
  a.ids = randint({s.rows}, 4, static_cast<std::uint32_t>(s.words)).to(device);
  a.segments = randint({s.rows}, 5, 2).to(device);
  a.starts = ints(starts, device);
  return a;
}

TEST(Embedding, hand_checked_numbers) {
  for (const Device device : devices()) {
    EmbeddingArgs a;
    a.word = leaf(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2}, device));
    a.position = leaf(Tensor::from<float>({10, 20, 30, 40}, {2, 2}, device));
    a.type = leaf(Tensor::from<float>({100, 200, 300, 400}, {2, 2}, device));
    a.ids = ints({2, 0, 2}, device);
    a.starts = ints({0, 2, 3}, device);
    a.segments = ints({0, 1, 1}, device);
    const Tensor y = embedding(a);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{115, 226, 331, 442, 315, 426}));
    y.backward(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2}, device));
    EXPECT_EQ(a.word.grad().to_vector<float>(), (std::vector<float>{3, 4, 0, 0, 6, 8}));
    EXPECT_EQ(a.position.grad().to_vector<float>(), (std::vector<float>{6, 8, 3, 4}));
    EXPECT_EQ(a.type.grad().to_vector<float>(), (std::vector<float>{1, 2, 8, 10}));
    a.type = {};
    EXPECT_EQ(embedding(a).to_vector<float>(), (std::vector<float>{15, 26, 31, 42, 15, 26}));
    a.starts = {};
    a.position = Tensor::from<float>({9, 9, 10, 20, 30, 40, 50, 60}, {4, 2}, device);
    a.position_offset = 1;
    EXPECT_EQ(embedding(a).to_vector<float>(), (std::vector<float>{15, 26, 31, 42, 55, 66}));
    a.position = a.segments = {};
    a.type = Tensor::from<float>({100, 200}, {1, 2}, device);
    EXPECT_EQ(embedding(a).to_vector<float>(), (std::vector<float>{105, 206, 101, 202, 105, 206}));
    a.type = {};
    EXPECT_EQ(embedding(a).to_vector<float>(), (std::vector<float>{5, 6, 1, 2, 5, 6}));
  }
}

TEST(Embedding, equals_its_definition_forward_and_backward) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const Sizes& s : edge_sizes())
        for (const std::int64_t pad : {0, 3}) {
          std::vector<std::vector<Tensor>> results;
          for (const bool composed : {false, true}) {
            EmbeddingArgs a = make(s, dtype, device, pad);
            for (Tensor* t : {&a.word, &a.position, &a.type}) t->set_requires_grad(true);
            const Tensor y = composed ? embedding_composed(a) : embedding(a);
            y.backward(randn(y.shape(), 6, dtype).to(device));
            results.push_back({y.detach(), a.word.grad(), a.position.grad(), a.type.grad()});
          }
          // bf16: the composed sum is rounded twice.
          const Tolerance near{tolerance_of(dtype).rtol, dtype == DType::kBF16 ? 3e-2 : 1e-5};
          for (std::size_t i = 0; i < 4; ++i)
            EXPECT_TRUE(all_close(results[0][i], results[1][i], near))
                << name_of(device) << " " << name_of(dtype) << " " << s.rows << "x" << s.columns
                << " pad " << pad << " result " << i;
          if (dtype != DType::kBF16) {
            EXPECT_TRUE(same_bytes(results[0][0], results[1][0]));
          }
        }
}

TEST(Embedding, the_same_bits_on_every_device_with_any_threads_and_again) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Sizes& s : edge_sizes()) {
      std::vector<std::vector<Tensor>> results;
      const auto run = [&](Device device, int threads) {
        set_thread_count(threads);
        EmbeddingArgs a = make(s, dtype, device);
        for (Tensor* t : {&a.word, &a.position, &a.type}) t->set_requires_grad(true);
        const Tensor y = embedding(a);
        y.backward(randn(y.shape(), 6, dtype).to(device));
        results.push_back({y.detach(), a.word.grad(), a.position.grad(), a.type.grad()});
      };
      run(Device::kCpu, 1);
      for (const Device device : devices()) run(device, 3);
      run(devices().back(), 1);
      for (const auto& result : results)
        for (std::size_t i = 0; i < 4; ++i)
          EXPECT_TRUE(same_bytes(result[i], results[0][i])) << s.rows << "x" << s.columns;
    }
  set_thread_count(before);
}

TEST(Embedding, gradients_agree_with_differences) {
  EmbeddingArgs a = make({9, 3, 4}, DType::kF64, Device::kCpu);
  const auto f = [&](const std::vector<Tensor>& in) {
    EmbeddingArgs b = a;
    b.word = in[0], b.position = in[1], b.type = in[2];
    return square(embedding(b));
  };
  const auto result = gradcheck(f, {a.word, a.position, a.type});
  EXPECT_TRUE(result.ok) << result.message;
}

TEST(Embedding, a_tied_decoder_adds_to_the_same_gradient) {
  EmbeddingArgs a = make({5, 3, 4}, DType::kF64, Device::kCpu);
  const auto f = [&](const std::vector<Tensor>& in) {
    EmbeddingArgs b = a;
    b.word = in[0];
    return linear(tanh(embedding(b)), in[0], {});
  };
  const auto result = gradcheck(f, {a.word});
  EXPECT_TRUE(result.ok) << result.message;
}

TEST(Embedding, gradients_are_added_where_they_lie_without_a_table_of_their_own) {
  for (const Device device : devices()) {
    EmbeddingArgs a = make({40, 64, 4096}, DType::kF32, device);
    a.word.set_requires_grad(true);
    const Tensor gradient = Tensor::full(a.word.shape(), 3, DType::kF32, device);
    a.word.set_grad(gradient);  // as an arena does
    a.word.zero_grad();
    const Tensor dy = randn({40, 64}, 6).to(device);
    embedding(a).backward(dy);
    const Tensor once = gradient.clone();
    const std::size_t before = memory_statistics(device).current_bytes;
    reset_peak_memory(device);
    embedding(a).backward(dy);  // a second micro-batch
    EXPECT_LT(memory_statistics(device).peak_bytes - before, a.word.bytes() / 2);
    EXPECT_EQ(a.word.grad().storage(), gradient.storage());
    EXPECT_TRUE(all_close(gradient, add(once, once)));
  }
}

TEST(Embedding, rows_of_no_sequence_are_zero_and_have_no_gradient) {
  for (const Device device : devices()) {
    EmbeddingArgs a;
    a.word = leaf(randn({4, 8}, 1).to(device));
    a.position = leaf(randn({3, 8}, 2).to(device));
    a.ids = ints({99, 1, 3, 2, -7, 99}, device);  // what is not looked up may be anything
    a.starts = ints({1, 3, 4}, device);
    a.invalid_row = Tensor::full({}, 77, DType::kI32, device);
    const Tensor y = embedding(a);
    EXPECT_EQ(a.invalid_row.item(), 0);
    EmbeddingArgs inner = a;
    inner.word = leaf(a.word.detach()), inner.position = leaf(a.position.detach());
    inner.ids = a.ids.slice(1, 4), inner.starts = ints({0, 2, 3}, device);
    const Tensor want = embedding(inner);
    EXPECT_TRUE(same_bytes(y.detach().slice(1, 4).clone(), want.detach()));
    for (const std::int64_t n : {0, 4, 5})
      EXPECT_EQ(y.detach().slice(n, n + 1).clone().to_vector<float>(), std::vector<float>(8, 0));
    const Tensor dy = randn({6, 8}, 3).to(device);
    y.backward(dy);
    want.backward(dy.slice(1, 4).clone());
    EXPECT_TRUE(same_bytes(a.word.grad(), inner.word.grad()));
    EXPECT_TRUE(same_bytes(a.position.grad(), inner.position.grad()));
  }
}

TEST(Embedding, captured_or_not_the_bits_are_the_same) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  EmbeddingArgs a = make({70, 16, 40}, DType::kF32, Device::kCuda);
  for (Tensor* t : {&a.word, &a.position, &a.type}) t->set_requires_grad(true);
  const Tensor dy = randn({70, 16}, 6).to(Device::kCuda);
  const auto step = [&] {
    for (Tensor* t : {&a.word, &a.position, &a.type}) t->zero_grad();
    embedding(a).backward(dy);
  };
  step();
  const Tensor want = a.word.grad().clone();
  Graph graph(std::make_shared<GraphMemory>());
  for (int i = 0; i < 5 && !graph.rehearse(step); ++i) {
  }
  graph.capture(step);
  a.word.grad().fill(5);
  graph.launch();
  EXPECT_TRUE(same_bytes(a.word.grad(), want));
}

TEST(Embedding, an_index_outside_is_named_or_flagged) {
  const auto message = [](const std::function<void(EmbeddingArgs&)>& change) -> std::string {
    EmbeddingArgs a;
    a.word = randn({4, 2}, 1), a.position = randn({3, 2}, 2), a.type = randn({2, 2}, 3);
    a.ids = ints({0, 1, 3, 2}), a.starts = ints({0, 3, 4}), a.segments = ints({0, 1, 0, 1});
    change(a);
    try {
      embedding(a);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_EQ(message([](auto& a) {
              a.ids = ints({0, 4, -1, 0});
            }),
            "[embedding] expected ids in [0, 4), got 4 in row 1");
  EXPECT_EQ(message([](auto& a) {
              a.ids = ints({0, -1, 4, 0});
            }),
            "[embedding] expected ids in [0, 4), got -1 in row 1");
  EXPECT_EQ(message([](auto& a) {
              a.starts = ints({0, 0, 4});
            }),
            "[embedding] expected positions in [0, 3), got 3 in row 3 of sequence 1");
  EXPECT_EQ(message([](auto& a) { a.position_offset = 1; }),
            "[embedding] expected positions in [0, 3), got 3 in row 2 of sequence 0");
  EXPECT_EQ(message([](auto& a) {
              a.segments = ints({0, 1, 0, 2});
            }),
            "[embedding] expected segments in [0, 2), got 2 in row 3");
  EXPECT_EQ(message([](auto& a) {
              a.starts = ints({0, 3, 2});
            }),
            "[embedding] expected starts ascending from 0 to 4, got 2 for sequence 2");
  EXPECT_EQ(message([](auto& a) {
              a.starts = ints({0, 3, 5});
            }),
            "[embedding] expected starts ascending from 0 to 4, got 5 for sequence 2");
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  EmbeddingArgs a;
  const Device device = Device::kCuda;
  a.word = leaf(randn({4, 2}, 1).to(device)), a.position = leaf(randn({3, 2}, 2).to(device));
  a.type = leaf(randn({2, 2}, 3).to(device));
  a.ids = ints({0, 9, -5, 2, 1}, device), a.starts = ints({0, 1, 5}, device);
  a.segments = ints({1, 0, 0, -1, 0}, device);
  a.invalid_row = Tensor::full({}, 77, DType::kI32, device);
  const Tensor y = embedding(a);
  EXPECT_EQ(a.invalid_row.item(), 2);
  {
    const NoGrad forward_only;
    a.invalid_row.fill(77);
    EXPECT_TRUE(same_bytes(embedding(a), y.detach()));
    EXPECT_EQ(a.invalid_row.item(), 2);
  }
  // Row 0 is sound; 1 and 2 have ids, 3 a segment, 4 a position outside.
  const std::vector<float> got = y.to_vector<float>();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i >= 2) << i;
  y.backward(Tensor::full({5, 2}, 1, DType::kF32, device));
  EXPECT_EQ(a.word.grad().to_vector<float>(), (std::vector<float>{1, 1, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(a.position.grad().to_vector<float>(), (std::vector<float>{1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(a.type.grad().to_vector<float>(), (std::vector<float>{0, 0, 1, 1}));
}

TEST(Embedding, bad_arguments_throw) {
  const EmbeddingArgs good = make({5, 8, 4}, DType::kF32, Device::kCpu);
  const auto throws = [&](const std::function<void(EmbeddingArgs&)>& change) {
    EmbeddingArgs a = good;
    change(a);
    EXPECT_THROW(embedding(a), Error);
  };
  throws([](auto& a) { a.word = {}; });
  throws([](auto& a) { a.word = Tensor::zeros({4}); });
  throws([](auto& a) { a.ids = {}; });
  throws([](auto& a) { a.ids = Tensor::zeros({5}); });
  throws([](auto& a) { a.segments = Tensor::zeros({4}, DType::kI32); });
  throws([](auto& a) { a.starts = Tensor::zeros({0}, DType::kI32); });
  throws([](auto& a) { a.position = Tensor::zeros({9, 7}); });
  throws([](auto& a) { a.type = Tensor::zeros({2, 8}, DType::kF64); });
  throws([](auto& a) { a.position_offset = -1; });
  kernels::EmbeddingArgs raw{};
  float x[4] = {};
  raw.y = x, raw.word = x, raw.rows = 1, raw.columns = 2, raw.words = 2, raw.word_pitch = 2;
  EXPECT_THROW(kernels::embedding(context_of(Device::kCpu), raw), Error);  // no ids
  const std::int32_t id = 1;
  raw.ids = &id;
  raw.word_pitch = 1;
  EXPECT_THROW(kernels::embedding(context_of(Device::kCpu), raw), Error);
}

}  // namespace
}  // namespace retort::test
