#include "kernels/gather_rows/gather_rows.h"

#include <gtest/gtest.h>

#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "engine/ops/axpy.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather_rows.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/graph.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

Tensor ids(const std::vector<std::int32_t>& values, Device device = Device::kCpu) {
  return Tensor::from<std::int32_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}

Tensor leaf(Tensor t) { return t.set_requires_grad(true); }

TEST(GatherRows, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor table = leaf(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2}, device));
    const Tensor y = gather_rows(table, ids({2, 0, 2, 2}, device));
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{5, 6, 1, 2, 5, 6, 5, 6}));
    y.backward(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2}, device));
    EXPECT_EQ(table.grad().to_vector<float>(), (std::vector<float>{3, 4, 0, 0, 13, 16}));
    const Tensor square = gather_rows(table.detach(), ids({1, 1}, device).view({1, 2, 1}));
    EXPECT_EQ(square.shape(), (Shape{1, 2, 1, 2}));
  }
}

TEST(GatherRows, other_element_types_are_copied) {
  for (const Device device : devices())
    for (const DType dtype :
         {DType::kF64, DType::kBF16, DType::kF16, DType::kI64, DType::kI32, DType::kU8})
      for (const std::int64_t columns : {1, 3, 16}) {
        const Tensor table = randint({5, columns}, 1, 100).to(dtype).to(device);
        const auto got = gather_rows(table, ids({4, 1}, device)).to_vector<double>(),
                   all = table.to_vector<double>();
        for (std::size_t c = 0; c < static_cast<std::size_t>(columns); ++c) {
          EXPECT_EQ(got[c], all[4 * static_cast<std::size_t>(columns) + c]) << name_of(dtype);
          EXPECT_EQ(got[static_cast<std::size_t>(columns) + c],
                    all[static_cast<std::size_t>(columns) + c]);
        }
      }
}

struct Sizes {
  std::int64_t rows, columns, table_rows;
};
std::vector<Sizes> edge_sizes() {
  std::vector<Sizes> list;
  for (const std::int64_t rows : {0, 1, 32, 33, 401})
    for (const std::int64_t columns : {1, 8, 33})
      for (const std::int64_t table_rows : {1, 3, 256}) list.push_back({rows, columns, table_rows});
  list.push_back({65, 2, 70000});  // three passes over the bits
  list.push_back({2500, 4, 300});  // several blocks of keys, two passes
  list.push_back({2500, 1, 2});    // one run over dozens of tiles
  list.push_back({40, 1271, 7});   // several blocks of columns
  return list;
}

// What the table holds before, in padded rows with a sentinel between them.
struct Scattered {
  Tensor wide, table;
};
Scattered scatter(const Sizes& s, DType dtype, Device device, std::int64_t pad) {
  const Tensor wide = Tensor::full({s.table_rows, s.columns + pad}, 7, dtype, device),
               table = wide.slice_columns(0, s.columns);
  table.copy_from(randn({s.table_rows, s.columns}, 1, dtype));
  const Tensor all = randn({s.rows, s.columns + pad}, 2, dtype).to(device),
               x = all.slice_columns(pad, s.columns + pad),
               at = randint({s.rows}, 3, static_cast<std::uint32_t>(s.table_rows)).to(device);
  kernels::scatter_rows(context_of(device),
                        {table.raw(), x.raw(), at.data<std::int32_t>(), s.rows, s.columns,
                         s.table_rows, table.row_pitch(), x.row_pitch(), dtype});
  return {wide, table};
}

TEST(GatherRows, scatter_adds_to_what_is_there_as_the_definition_says) {
  for (const Sizes& s : edge_sizes()) {
    std::vector<double> want = randn({s.table_rows, s.columns}, 1, DType::kF64).to_vector<double>();
    const std::vector<double> x = randn({s.rows, s.columns}, 2, DType::kF64).to_vector<double>();
    const auto at =
        randint({s.rows}, 3, static_cast<std::uint32_t>(s.table_rows)).to_vector<std::int32_t>();
    for (std::size_t n = 0; n < at.size(); ++n)
      for (std::size_t c = 0; c < static_cast<std::size_t>(s.columns); ++c)
        want[static_cast<std::size_t>(at[n]) * static_cast<std::size_t>(s.columns) + c] +=
            x[n * static_cast<std::size_t>(s.columns) + c];
    EXPECT_TRUE(all_close(scatter(s, DType::kF64, Device::kCpu, 0).table,
                          Tensor::from(want, {s.table_rows, s.columns})))
        << s.rows << " x " << s.columns << " into " << s.table_rows;
  }
}

TEST(GatherRows, scatter_gives_the_same_bits_on_every_device_with_any_threads_and_again) {
  const int before = thread_count();
#if defined(RETORT_SANITIZED)  // minutes there; the other builds run all
  const std::vector<DType> dtypes = {DType::kF32};
  const bool all = false;
#else
  const std::vector<DType> dtypes = {DType::kF64, DType::kF32, DType::kBF16};
  const bool all = true;
#endif
  for (const DType dtype : dtypes)
    for (const Sizes& s : edge_sizes())
      for (const std::int64_t pad : {0, 3}) {
        if (pad > 0 && (dtype != DType::kF32 || s.rows > 401)) continue;  // time
        if (!all && (pad > 0 ? s.table_rows > 256 : s.rows > 401 && s.columns > 1)) continue;
        set_thread_count(1);
        const Tensor one = scatter(s, dtype, Device::kCpu, pad).wide;
        set_thread_count(3);
        for (const Device device : devices())
          for (int again = all && dtype == DType::kF32 ? 0 : 1; again < 2; ++again)
            ASSERT_TRUE(same_bytes(scatter(s, dtype, device, pad).wide, one))
                << name_of(dtype) << " on " << name_of(device) << " " << s.rows << " x "
                << s.columns << " into " << s.table_rows << " pad " << pad;
      }
  set_thread_count(before);
}

TEST(GatherRows, a_run_is_summed_in_float_and_rounded_once) {
  // 1 + 512 times 2^-9: in bf16, additions one by one would stay at 1.
  for (const Device device : devices()) {
    const Tensor table = Tensor::full({2, 1}, 1, DType::kBF16, device),
                 x = Tensor::full({512, 1}, 1.0 / 512, DType::kBF16, device),
                 at = Tensor::full({512}, 1, DType::kI32, device);
    kernels::scatter_rows(context_of(device), {table.raw(), x.raw(), at.data<std::int32_t>(), 512,
                                               1, 2, 1, 1, DType::kBF16});
    EXPECT_EQ(table.to_vector<double>(), (std::vector<double>{1, 2})) << name_of(device);
  }
}

TEST(GatherRows, equals_its_definition_forward_and_backward) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const std::int64_t rows : {1, 33, 200}) {
        const Tensor at = randint({rows}, 4, 50).to(device);
        std::vector<std::vector<Tensor>> results;
        for (const bool composed : {false, true}) {
          const Tensor table = leaf(randn({50, 12}, 1, dtype).to(device));
          const Tensor y = composed ? gather_rows_composed(table, at) : gather_rows(table, at);
          y.backward(randn({rows, 12}, 2, dtype).to(device));
          results.push_back({y.detach(), table.grad()});
        }
        EXPECT_TRUE(same_bytes(results[0][0], results[1][0]));
        EXPECT_TRUE(all_close(results[0][1], results[1][1],
                              {tolerance_of(dtype).rtol, dtype == DType::kF32 ? 1e-5 : 1e-2}))
            << name_of(dtype) << " " << rows;
      }
}

TEST(GatherRows, gradients_agree_with_differences) {
  const Tensor at = ids({3, 0, 3, 1, 3});
  const auto f = [&](const std::vector<Tensor>& in) {
    // A leaf, then something computed from it.
    return add(gather_rows(in[0], at), gather_rows(square(in[0]), at));
  };
  const auto result = gradcheck(f, {randn({4, 3}, 1, DType::kF64)});
  EXPECT_TRUE(result.ok) << result.message;
}

// ---- two consumers of one parameter: an embedding and the decoder tied to it
// ---------------------

Tensor tied(const Tensor& weight, const Tensor& at) {
  return linear(tanh(gather_rows(weight, at)), weight, {});
}

TEST(GatherRows, a_tied_decoder_adds_to_the_same_gradient) {
  const Tensor at = ids({2, 0, 2, 5});
  const auto result = gradcheck([&](const std::vector<Tensor>& in) { return tied(in[0], at); },
                                {randn({6, 3}, 1, DType::kF64)});
  EXPECT_TRUE(result.ok) << result.message;
}

TEST(GatherRows, micro_batches_add_in_place_without_a_table_of_their_own) {
  constexpr std::int64_t kTable = 4096, kColumns = 64;
  for (const Device device : devices()) {
    const Tensor weight = leaf(randn({kTable, kColumns}, 1, DType::kF32, 0.1).to(device));
    const Tensor gradient = Tensor::full(weight.shape(), 3, DType::kF32, device);
    weight.set_grad(gradient);  // as an arena does
    weight.zero_grad();
    // The output gradient is large as well: only a part of the decoder, so that it does not hide
    // what is looked for.
    const auto step = [&](std::uint64_t seed) {
      const Tensor at = randint({8}, seed, kTable).to(device);
      const Tensor rows = gather_rows(weight, at);
      sum(square(linear(rows, weight, {}))).backward();
    };
    step(2);
    const auto reset = memory_statistics(device);
    const std::size_t before = reset.current_bytes;
    reset_peak_memory(device);
    step(3);
    const std::size_t peak = memory_statistics(device).peak_bytes - before;
    EXPECT_LT(peak, static_cast<std::size_t>(kTable * kColumns) * sizeof(float)) << name_of(device);
    EXPECT_EQ(weight.grad().storage(), gradient.storage());
    // The same in one batch, to rounding.
    const Tensor whole = leaf(weight.detach().clone());
    const Tensor at = Tensor::empty({16}, DType::kI32, device);
    at.slice(0, 8).copy_from(randint({8}, 2, kTable));
    at.slice(8, 16).copy_from(randint({8}, 3, kTable));
    sum(square(linear(gather_rows(whole, at), whole, {}))).backward();
    EXPECT_TRUE(all_close(weight.grad(), whole.grad(), {1e-5, 1e-5})) << name_of(device);
  }
}

TEST(GatherRows, arena_or_not_and_captured_or_not_the_gradient_has_the_same_bits) {
  const Tensor start = randn({40, 8}, 1);
  for (const Device device : devices()) {
    const auto batch = [&](std::uint64_t k) { return randint({70}, k, 40).to(device); };
    const auto loss = [](const Tensor& w, const Tensor& at) { return sum(square(tied(w, at))); };
    const std::vector<Tensor> batches{batch(2), batch(3)};
    std::vector<Tensor> gradients;
    for (const bool arena : {false, true}) {
      const Tensor w = leaf(start.to(device).clone());
      if (arena) {
        const Tensor flat = Tensor::full({400}, 9, DType::kF32, device);
        w.set_grad(flat.slice(16, 336).view({40, 8}));
        w.zero_grad();
      }
      for (const Tensor& at : batches) loss(w, at).backward();
      gradients.push_back(w.grad().clone());
      if (device == Device::kCuda && arena) {
        // A step of two micro-batches as a graph, from gradients that hold something.
        Graph graph(std::make_shared<GraphMemory>());
        const auto step = [&] {
          w.zero_grad();
          for (const Tensor& at : batches) loss(w, at).backward();
        };
        for (int i = 0; i < 5 && !graph.rehearse(step); ++i) {
        }
        graph.capture(step);
        w.grad().fill(5);
        graph.launch();
        gradients.push_back(w.grad().clone());
      }
    }
    for (const Tensor& g : gradients) EXPECT_TRUE(same_bytes(g, gradients[0])) << name_of(device);
  }
}

TEST(GatherRows, an_index_outside_is_named_or_flagged) {
  const Tensor table = randn({4, 3}, 1);
  const auto message = [&](const std::vector<std::int32_t>& at) -> std::string {
    try {
      gather_rows(table, ids(at));
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({0, 1, 4, -1}), "[gather_rows] expected indices in [0, 4), got 4 in row 2");
  EXPECT_EQ(message({-1}), "[gather_rows] expected indices in [0, 4), got -1 in row 0");
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  const Tensor there = leaf(table.to(Device::kCuda)),
               flag = Tensor::full({}, 77, DType::kI32, Device::kCuda);
  const Tensor y = gather_rows(there, ids({3, 9, -5, 0}, Device::kCuda), flag);
  EXPECT_EQ(flag.item(), 2);
  const auto got = y.to_vector<float>(), want = table.to_vector<float>();
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_EQ(got[c], want[9 + c]);
    EXPECT_TRUE(std::isnan(got[3 + c]) && std::isnan(got[6 + c]));
    EXPECT_EQ(got[9 + c], want[c]);
  }
  y.backward(Tensor::full({4, 3}, 1, DType::kF32, Device::kCuda));
  EXPECT_EQ(there.grad().to_vector<float>(),
            (std::vector<float>{1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1}));
  gather_rows(there, ids({3, 0}, Device::kCuda), flag);
  EXPECT_EQ(flag.item(), 0);
}

TEST(GatherRows, bad_arguments_throw) {
  EXPECT_THROW(gather_rows(Tensor::zeros({4}), ids({0})), Error);
  EXPECT_THROW(gather_rows(Tensor::zeros({4, 2}), Tensor::zeros({2})), Error);
  EXPECT_THROW(gather_rows(Tensor::zeros({4, 2}), {}), Error);
  EXPECT_THROW(gather_rows(Tensor::zeros({4, 2}), ids({0}), Tensor::zeros({})), Error);
  const Context& cpu = context_of(Device::kCpu);
  float x[4] = {};
  const std::int32_t at[2] = {};
  EXPECT_THROW(kernels::gather_rows(cpu, {x, x, at, 2, 2, 2, 1, 2, DType::kF32}), Error);
  EXPECT_THROW(kernels::gather_rows(cpu, {x, x, nullptr, 2, 2, 2, 2, 2, DType::kF32}), Error);
  EXPECT_THROW(kernels::scatter_rows(cpu, {x, x, at, 2, 2, 2, 2, 1, DType::kF32}), Error);
  EXPECT_THROW(kernels::scatter_rows(cpu, {x, x, at, 2, 2, 2, 2, 2, DType::kI32}), Error);
}

}  // namespace
}  // namespace retort::test
