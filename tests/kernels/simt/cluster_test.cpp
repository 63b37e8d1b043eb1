// Clusters, distributed shared memory and bulk copies: right answers, and what the emulator reports
// about wrong kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/conformance/cluster_probes.cuh"
#include "tests/kernels/simt/cluster_bugs.cuh"
#include "tests/kernels/simt/expect_fault.h"

namespace retort::planted {
namespace {

using namespace SIMT_NS;
using namespace probes::SIMT_NS;
using simt::emu::Fault;

alignas(16) float g_in[260] = {};

class SimtCluster : public ::testing::Test {
 protected:
  void go(void (*kernel)(float*), unsigned cluster = 2, unsigned grid = 2) {
    simt::launch({"clustered", grid, 64, 0, nullptr, cluster}, kernel, out_.data());
  }
  void expect(Fault fault, void (*kernel)(float*), const std::string& part_of_message) {
    expect_fault(
        fault, [&] { go(kernel); }, part_of_message);
  }
  std::vector<float> out_ = std::vector<float>(4096, 0.f);
};

TEST_F(SimtCluster, every_block_sees_the_others) {
  for (const unsigned size : {1u, 2u, 4u, 8u, 16u}) {
    std::vector<std::uint32_t> out(2 * size * 64 * kClusterWords);
    run_cluster_probe(out.data(), size);
    for (unsigned block = 0; block < 2 * size; ++block)
      for (unsigned t = 0; t < 64; ++t) {
        const unsigned rank = block % size, first = block - rank, left = (rank + size - 1) % size;
        std::uint32_t sum = 0, xored = 0;
        for (unsigned r = 0; r < size; ++r) {
          sum += ((first + r) * 1000 + (t + r) % 64) * (r + 1);
          xored ^= ((first + r) * 77 + (63 - t) * (63 - t)) << r;
        }
        const unsigned mirror_left = (size - 1 - rank + size - 1) % size;
        const std::uint32_t* const o = &out[(block * 64 + t) * kClusterWords];
        EXPECT_EQ(o[0], rank | size << 8);
        EXPECT_EQ(o[1], sum);
        EXPECT_EQ(o[2], xored);
        EXPECT_EQ(o[3], left * 100 + t);
        EXPECT_EQ(o[4], t + mirror_left * 100 + 63 - t);
      }
  }
}

TEST_F(SimtCluster, sums_agree_in_every_block) {
  simt::emu::reset_stats();
  go(cluster_sum, 8, 64);
  for (const float v : out_) ASSERT_EQ(v, 512.f * 511.f / 2);
  EXPECT_EQ(simt::emu::stats().cluster_barriers, 8u * 2);
  EXPECT_EQ(simt::emu::stats().blocks, 64u);
}

TEST_F(SimtCluster, launches_that_hardware_refuses) {
  expect_fault(
      Fault::launch_config, [&] { go(cluster_sum, 2, 3); }, "divide");
  expect_fault(
      Fault::launch_config, [&] { go(cluster_sum, 3, 3); }, "divide");
  expect_fault(
      Fault::launch_config, [&] { go(cluster_sum, 32, 32); }, "divide");
  simt::emu::config().capability = 80;
  expect_fault(
      Fault::launch_config, [&] { go(cluster_sum); }, "9.0");
  expect_fault(
      Fault::shared_limit,
      [&] {
        simt::launch({"wide", 1, 64, 180000, nullptr, 1}, cluster_sum, out_.data());
      },
      "limit 166912");
  simt::emu::config().capability = 0;
  go(cluster_sum);
}

TEST_F(SimtCluster, deadlock_counts_the_threads_of_every_block) {
  expect(Fault::deadlock, blocks_at_different_barriers, "deadlock in the cluster");
  expect(Fault::deadlock, blocks_at_different_barriers,
         "block 0: 64 thread(s) from 0 on wait in cluster_wait");
  expect(Fault::deadlock, blocks_at_different_barriers,
         "block 1: 3 thread(s) from 0 on wait in cluster_wait");
  expect(Fault::deadlock, blocks_at_different_barriers,
         "61 thread(s) from 3 on wait in __syncthreads");
}
TEST_F(SimtCluster, a_block_that_leaves_before_the_barrier) {
  expect(Fault::early_exit, one_block_leaves_early, "cluster");
}
TEST_F(SimtCluster, lanes_of_a_warp_at_different_barriers) {
  expect(Fault::barrier_divergence, lanes_at_different_cluster_barriers, "lanes of one warp");
}
TEST_F(SimtCluster, halves_of_the_barrier_out_of_step) {
  expect(Fault::bad_cluster, arrive_twice, "twice");
  expect(Fault::bad_cluster, wait_without_arrive, "without a cluster_arrive");
  expect(Fault::early_exit, arrive_and_exit, "between cluster_arrive and cluster_wait");
}
TEST_F(SimtCluster, exit_while_others_may_still_read) {
  expect(Fault::cluster_exit, no_barrier_before_exit, "cluster_bugs.cuh:");
}
TEST_F(SimtCluster, memory_of_a_block_that_may_not_have_started) {
  expect(Fault::bad_cluster, no_barrier_before_mapping, "may not have started");
}
TEST_F(SimtCluster, addresses_that_are_nobody_s) {
  expect(Fault::bad_cluster, rank_past_the_cluster, "block 2 of a cluster of 2");
  expect(Fault::bad_cluster, maps_global_memory, "shared array");
}
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which report it first
TEST_F(SimtCluster, memory_of_an_exited_block_is_nan) {
  auto& schedule = simt::emu::config().schedule;
  const auto before = schedule;
  schedule = simt::emu::Schedule::forward;  // rank 0 exits first
  go(reads_after_exit);
  schedule = before;
  EXPECT_TRUE(std::isnan(out_[0]) && std::isnan(out_[63]));
}
TEST_F(SimtCluster, remote_memory_read_too_early_is_nan) {
  go(remote_read_without_a_barrier);
  bool nan = false;
  for (unsigned i = 0; i < 128; ++i) nan = nan || std::isnan(out_[i]);
  EXPECT_TRUE(nan);
}
#endif

TEST(SimtPacked, larger_of_two_bf16) {
  const auto of = [](std::uint32_t a, std::uint32_t b) { return simt::max_bf16x2(a, b); };
  constexpr std::uint32_t kOne = 0x3f80, kMinusTwo = 0xc000, kInf = 0x7f80, kNan = 0x7fc0;
  EXPECT_EQ(of(kOne << 16 | kMinusTwo, kMinusTwo << 16 | kOne), kOne << 16 | kOne);
  EXPECT_EQ(of(kNan << 16 | kOne, kInf << 16 | kNan), kInf << 16 | kOne);
  EXPECT_EQ(of(0x80000000u, 0x00008000u), 0u);
  EXPECT_EQ(of(kNan, kNan), 0x7fffu);
}

class SimtTile : public SimtCluster {
 protected:
  void load(void (*kernel)(const float*, float*)) {
    simt::launch({"tiles", 1, 64}, kernel, g_in, out_.data());
  }
  void expect(Fault fault, void (*kernel)(const float*, float*), const std::string& message) {
    expect_fault(
        fault, [&] { load(kernel); }, message);
  }
};

TEST_F(SimtTile, two_phases_of_one_barrier) {
  alignas(16) static std::uint32_t in[512];
  for (unsigned i = 0; i < 512; ++i) in[i] = 3 * i + 1;
  std::vector<std::uint32_t> out(512);
  simt::emu::reset_stats();
  simt::launch({"tile_probe", 1, 256}, tile_probe, out.data(), in);
  const auto first = [&](unsigned w) { return w < 128 ? in[256 + w] : in[w - 128]; };
  for (unsigned t = 0; t < 256; ++t) {
    EXPECT_EQ(out[t], first(255 - t));
    EXPECT_EQ(out[256 + t], t >= 4 && t < 8 ? in[504 + t] : first(t)) << t;
  }
  EXPECT_EQ(simt::emu::stats().bulk_bytes, 1040u);
}
TEST_F(SimtTile, deadlock_says_what_is_missing) {
  expect(Fault::deadlock, tile_bytes_missing, "lacks 0 arrival(s) and 256 bytes");
}
TEST_F(SimtTile, barrier_never_initialised) {
  expect(Fault::bad_tile, tile_never_initialised, "never initialised");
}
TEST_F(SimtTile, barrier_not_made_ready) {
  expect(Fault::bad_tile, tile_barrier_not_made_ready, "tile_barriers_ready");
}
TEST_F(SimtTile, load_never_waited_for) {
  expect(Fault::async_outstanding, tile_never_waited, "no thread waited for");
}
TEST_F(SimtTile, load_past_the_array) {
  expect(Fault::shared_overflow, tile_past_the_array, "past the end");
}
TEST_F(SimtTile, alignment) {
  const auto go = [&](const float* in, unsigned bytes) {
    simt::launch({"tile_load_of", 1, 64}, tile_load_of, in, out_.data(), bytes);
  };
  go(g_in, 1024);
  expect_fault(
      Fault::misaligned, [&] { go(g_in + 1, 1024); }, "source needs 16");
  expect_fault(
      Fault::misaligned, [&] { go(g_in, 1000); }, "not whole 16s");
}
#if !defined(__SANITIZE_THREAD__)
TEST_F(SimtTile, data_used_before_the_wait_is_nan) {
  load(tile_read_before_the_wait);
  bool nan = false;
  for (unsigned i = 0; i < 64; ++i) nan = nan || std::isnan(out_[i]);
  EXPECT_TRUE(nan);  // in whoever came before the first that waited
}
#endif

}  // namespace
}  // namespace retort::planted
