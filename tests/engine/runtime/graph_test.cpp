#include "engine/runtime/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/ops/axpy.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/upload_ring.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

constexpr Device kGpu = Device::kCuda;

class GraphTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  }
  // Rehearses until the memory is there, then captures.
  static void prepare(Graph& graph, const std::function<void()>& f) {
    for (int i = 0; i < 5; ++i)
      if (graph.rehearse(f)) return graph.capture(f);
    FAIL() << "the system is asked for memory again and again";
  }
  static std::string refusal(const std::function<void()>& f, bool warm = true) {
    Graph graph(std::make_shared<GraphMemory>());
    if (warm) graph.rehearse(f);
    try {
      graph.capture(f);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDevice);
      EXPECT_FALSE(graph.captured());
      return error.what();
    }
    return "captured";
  }
};

TEST_F(GraphTest, a_replay_reads_the_values_of_its_time) {
  const Tensor a = randn({1000}, 1).to(kGpu), b = randn({1000}, 2).to(kGpu);
  const Tensor out = Tensor::zeros({1000}, DType::kF32, kGpu);
  Graph graph(std::make_shared<GraphMemory>());
  const auto f = [&] {
    const Tensor sum = add(a, b);
    const Tensor product = multiply(sum, sum);
    out.copy_from(product);
  };
  prepare(graph, f);
  for (int i = 0; i < 4; ++i) {
    a.copy_from(randn({1000}, static_cast<std::uint64_t>(10 + i)));
    const Tensor sum = add(a, b);
    graph.launch();
    EXPECT_TRUE(same_bytes(out, multiply(sum, sum))) << i;
  }
  const GraphInfo info = graph.info();
  EXPECT_EQ(info.kernels, 2);
  EXPECT_EQ(info.copies, 1);
}

TEST_F(GraphTest, capturing_runs_nothing) {
  const Tensor x = Tensor::full({8}, 1, DType::kF32, kGpu);
  Graph graph(std::make_shared<GraphMemory>());
  const auto f = [&] { add_into(x, x, 1.0); };
  graph.rehearse(f);
  const double before = x.to_vector<double>()[0];
  graph.capture(f);
  EXPECT_EQ(x.to_vector<double>()[0], before);
  graph.launch();
  EXPECT_EQ(x.to_vector<double>()[0], 2 * before);
}

TEST_F(GraphTest, what_cannot_be_replayed_is_an_error_that_names_the_launch_before) {
  const Tensor x = randn({300}, 1).to(kGpu);
  const auto after_add = [&](const std::function<void()>& bad) {
    return refusal([&x, bad] {
      const Tensor y = add(x, x);
      bad();
    });
  };
  const std::string name = "(after the launch of '";
  EXPECT_THAT(after_add([] { synchronize(kGpu); }),
              HasSubstr("waiting for the device cannot be captured " + name));
  EXPECT_THAT(after_add([&] { static_cast<void>(x.to_vector<float>()); }),
              HasSubstr("a copy of 1200 bytes to pageable host memory cannot be captured " + name));
  EXPECT_THAT(after_add([] {
                Tensor::from<float>({1, 2}, {2}, kGpu);
              }),
              HasSubstr("a copy of 8 bytes from pageable host memory cannot be captured " + name));
  // Memory that the rehearsal did not need.
  int calls = 0;
  EXPECT_THAT(after_add([&calls] {
                if (++calls > 1) Tensor::empty({1 << 20}, DType::kF32, kGpu);
              }),
              HasSubstr("needs 4194304 bytes that its warm-up did not"));
  // The runtime refuses by itself, whoever calls it; the first refusal voids the capture even if
  // nobody looks at it.
  EXPECT_THAT(after_add([] {
                void* p = nullptr;
                static_cast<void>(cuda_runtime.allocate(&p, 16));
              }),
              HasSubstr("memory from the driver cannot be captured " + name));
  EXPECT_EQ(after_add([] {}), "captured");
  // And the thread works as before.
  EXPECT_TRUE(all_close(add(x, x), multiply(x, Tensor::full({300}, 2, DType::kF32, kGpu))));
}

TEST_F(GraphTest, pinned_memory_may_be_read) {
  void* host = nullptr;
  ASSERT_EQ(cuda_runtime.allocate_pinned(&host, 64).code, ErrorCode::kOk);
  const Tensor x = Tensor::zeros({16}, DType::kF32, kGpu);
  {
    Graph graph(std::make_shared<GraphMemory>());
    const auto f = [&] {
      static_cast<void>(
          cuda_runtime.copy(x.raw(), host, 64, CopyKind::kHostToDevice, context_of(kGpu).stream));
    };
    graph.capture(f);
    for (int i = 0; i < 16; ++i) static_cast<float*>(host)[i] = static_cast<float>(i);
    graph.launch();
    EXPECT_EQ(x.to_vector<float>()[7], 7);
  }
  static_cast<void>(cuda_runtime.release_pinned(host));
}

TEST_F(GraphTest, the_memory_of_a_graph_is_its_own) {
  const Tensor a = randn({5000}, 1).to(kGpu), out = Tensor::zeros({5000}, DType::kF32, kGpu);
  Graph graph(std::make_shared<GraphMemory>());
  prepare(graph, [&] {
    const Tensor twice = add(a, a);
    const Tensor four = add(twice, twice);
    out.copy_from(add(four, twice));
  });
  // Tensors of the same size must not get the blocks that the graph goes on using.
  std::vector<Tensor> others;
  for (int i = 0; i < 8; ++i) others.push_back(Tensor::full({5000}, i, DType::kF32, kGpu));
  graph.launch();
  for (int i = 0; i < 8; ++i)
    EXPECT_TRUE(same_bytes(others[static_cast<std::size_t>(i)], Tensor::full({5000}, i))) << i;
  EXPECT_TRUE(all_close(out, multiply(a.to(Device::kCpu), Tensor::full({5000}, 6))));
}

TEST_F(GraphTest, a_pool_outlives_its_handle_while_tensors_live_in_it) {
  Tensor kept;
  {
    const MemoryPool pool(kGpu);
    const MemoryPoolScope scope(pool);
    kept = Tensor::full({100}, 3, DType::kF32, kGpu);
    const void* const block = Tensor::empty({100}, DType::kF32, kGpu).raw();
    EXPECT_EQ(Tensor::empty({20}, DType::kF32, kGpu).raw(),
              block);  // blocks have 512 bytes at least
    EXPECT_LE(pool.system_allocations(), 2u);
  }
  EXPECT_EQ(kept.to_vector<float>()[99], 3);
}

TEST_F(GraphTest, streams_fork_and_join) {
  const Tensor a = randn({2000}, 1).to(kGpu), left = Tensor::zeros({2000}, DType::kF32, kGpu),
               right = Tensor::zeros({2000}, DType::kF32, kGpu),
               out = Tensor::zeros({2000}, DType::kF32, kGpu);
  const auto work = [&](bool join) {
    const Tensor twice = add(a, a);
    left.copy_from(twice);
    {
      const OnSideStream side;
      right.copy_from(multiply(left, left));  // sees `left`: the fork waits for it
    }
    for (int i = 0; i < 3; ++i) add_into(twice, a, 1.0);  // beside it
    if (join) join_side_stream();
    out.copy_from(add(twice, right));
  };
  Graph graph(std::make_shared<GraphMemory>());
  prepare(graph, [&] { work(true); });
  for (std::uint64_t i = 0; i < 4; ++i) {
    a.copy_from(randn({2000}, 7 + i));
    right.fill(0);
    work(true);
    const Tensor want = out.clone();
    out.fill(0);
    graph.launch();
    EXPECT_TRUE(same_bytes(out, want)) << i;
  }
  EXPECT_THAT(refusal([&] { work(false); }), HasSubstr("was not joined"));
}

// Both streams add up through their scratch at the same time.
TEST_F(GraphTest, each_stream_has_scratch_of_its_own) {
  const Tensor a = randn({70000}, 1).to(kGpu), b = randn({70000}, 2).to(kGpu),
               sum_a = Tensor::zeros({}, DType::kF32, kGpu), sum_b = sum_a.clone();
  Graph graph(std::make_shared<GraphMemory>());
  prepare(graph, [&] {
    {
      const OnSideStream side;
      for (int i = 0; i < 3; ++i) sum_a.copy_from(sum(a));
    }
    for (int i = 0; i < 3; ++i) sum_b.copy_from(sum(b));
    join_side_stream();
  });
  const Tensor want_a = sum(a), want_b = sum(b);
  for (int i = 0; i < 3; ++i) {
    sum_a.fill(0);
    sum_b.fill(0);
    graph.launch();
    EXPECT_TRUE(same_bytes(sum_a, want_a)) << i;
    EXPECT_TRUE(same_bytes(sum_b, want_b)) << i;
  }
}

// The emulator replays in other orders by turns: a missing dependency must show.
TEST_F(GraphTest, a_missing_dependency_shows) {
  if (!cuda_device_info().emulated) GTEST_SKIP() << "on a GPU it may or may not show";
  const Tensor a = Tensor::full({64}, 1, DType::kF32, kGpu), out = a.clone();
  Graph graph(std::make_shared<GraphMemory>());
  prepare(graph, [&] {
    {
      const OnSideStream side;
      out.copy_from(a);
    }
    add_into(out, a, 1.0);  // does not wait for the copy
    join_side_stream();
  });
  graph.launch();
  const double first = out.to_vector<double>()[0];
  graph.launch();
  EXPECT_NE(out.to_vector<double>()[0], first);
}

TEST(UploadRing, the_device_sees_each_block_in_turn) {
  for (const Device device : devices()) {
    UploadRing ring(device, 2 * sizeof(std::int64_t), 3);
    const Tensor seen = Tensor::zeros({10, 16}, DType::kU8, device);
    const void* const address = ring.device_block().raw();
    for (std::int64_t i = 0; i < 10; ++i) {
      auto* const values = static_cast<std::int64_t*>(ring.host());
      values[0] = i;
      values[1] = -i;
      ring.upload();
      seen.slice(i, i + 1).copy_from(ring.device_block().view({1, 16}));
      EXPECT_EQ(ring.device_block().raw(), address);
    }
    const auto bytes = seen.to_vector<std::uint8_t>();
    for (std::size_t i = 0; i < 10; ++i) {
      std::int64_t values[2];
      std::memcpy(values, &bytes[16 * i], 16);
      EXPECT_EQ(values[0], static_cast<std::int64_t>(i));
      EXPECT_EQ(values[1], -static_cast<std::int64_t>(i));
    }
  }
}

}  // namespace
}  // namespace retort::test
