// What the emulator reports by itself about wrong kernels, in every build.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "tests/kernels/simt/expect_fault.h"
#include "tests/kernels/simt/planted_bugs.cuh"

namespace retort::planted {
namespace {

using namespace SIMT_NS;
using simt::emu::Fault;

alignas(16) float g_in[256] = {};

class SimtFaults : public ::testing::Test {
 protected:
  void go(const char* name, void (*kernel)(float*), unsigned grid = 1, unsigned block = 64) {
    simt::launch({name, grid, block}, kernel, out_.data());
  }
  std::vector<float> out_ = std::vector<float>(1024, 0.f);
};

TEST_F(SimtFaults, threads_at_different_barriers) {
  expect_fault(
      Fault::barrier_divergence, [&] { go("divergent_barrier", divergent_barrier); },
      "planted_bugs.cuh:");
}
TEST_F(SimtFaults, exit_before_a_barrier) {
  expect_fault(
      Fault::early_exit, [&] { go("early_exit", early_exit); }, "early_exit");
}
TEST_F(SimtFaults, lanes_at_different_shuffles) {
  expect_fault(
      Fault::bad_collective, [&] { go("half_warp", half_warp_shuffle, 1, 32); }, "lanes diverged");
}
TEST_F(SimtFaults, caller_not_in_its_mask) {
  expect_fault(
      Fault::bad_collective, [&] { go("wrong_mask", wrong_mask, 1, 32); }, "mask");
}
TEST_F(SimtFaults, deadlock_says_who_waits_where) {
  expect_fault(
      Fault::deadlock, [&] { go("one_lane_missing", one_lane_missing, 4, 64); },
      "on wait in __syncthreads");
}
TEST_F(SimtFaults, async_copy_never_waited_for) {
  expect_fault(
      Fault::async_outstanding,
      [&] {
        simt::launch({"never_waits", 1, 32}, never_waits, g_in, out_.data());
      },
      "never waited");
}
TEST_F(SimtFaults, async_copy_misaligned) {
  expect_fault(
      Fault::misaligned,
      [&] {
        simt::launch({"never_waits", 1, 32}, never_waits, g_in + 1, out_.data());
      },
      "16-byte alignment");
}
TEST_F(SimtFaults, too_many_threads) {
  expect_fault(
      Fault::launch_config, [&] { go("early_exit", early_exit, 1, 2048); }, "block size");
}
TEST_F(SimtFaults, too_much_shared_memory) {
  expect_fault(
      Fault::shared_limit,
      [&] {
        simt::launch({"too_much", 1, 32, 230000}, too_much_shared, out_.data());
      },
      "limit");
  expect_fault(
      Fault::shared_limit, [&] { go("too_much", too_much_static_shared, 1, 32); }, "limit 49152");
}
// Static and dynamic share 227 KiB, and the dynamic array begins at a multiple of 1,024 bytes.
TEST_F(SimtFaults, shared_memory_up_to_the_last_byte) {
  constexpr std::size_t kMost = 232448;
  const auto launch = [&](std::size_t dynamic, void (*kernel)(float*)) {
    simt::launch({"last_byte", 1, 32, dynamic}, kernel, out_.data());
  };
  launch(kMost - 4096, too_much_shared);
  expect_fault(
      Fault::shared_limit, [&] { launch(kMost - 4096 + 1, too_much_shared); },
      "232449 bytes of shared memory, 228353 of them dynamic, limit 232448");
  launch(kMost - 1024, little_static_shared);
  EXPECT_EQ(out_[31], 2);
  expect_fault(
      Fault::shared_limit, [&] { launch(kMost - 128, little_static_shared); }, "limit 232448");
}
#if !defined(__SANITIZE_ADDRESS__)  // which reports it first, and stops
TEST_F(SimtFaults, write_past_a_shared_array) {
  expect_fault(
      Fault::shared_overflow, [&] { go("overflow", shared_overflow, 1, 32); },
      "past a shared array of 128 bytes");
}
#endif

TEST_F(SimtFaults, data_used_before_its_copy_is_waited_for_is_nan) {
  simt::launch({"no_wait", 1, 32}, no_wait, g_in, out_.data());
  EXPECT_TRUE(std::isnan(out_[0]));
}
TEST_F(SimtFaults, shared_memory_never_written_is_nan) {
  go("uninitialised", uninitialised, 1, 32);
  EXPECT_TRUE(std::isnan(out_[31]));
}
#if !defined(__SANITIZE_THREAD__)  // which reports it first
TEST_F(SimtFaults, missing_barrier_reads_nan) {
  go("missing_barrier", missing_barrier);
  EXPECT_TRUE(std::isnan(out_[0]) || std::isnan(out_[63]));
}
#endif
TEST_F(SimtFaults, bank_conflicts_are_counted) {
  simt::emu::reset_stats();
  go("bank_conflicts", bank_conflicts, 1, 32);
  EXPECT_EQ(simt::emu::stats().ldmatrix_conflicts, 28u);
}

TEST_F(SimtFaults, bank_conflicts_of_plain_loads_are_counted_on_request) {
  simt::emu::reset_stats();
  go("load_conflicts", load_conflicts, 1, 32);
  EXPECT_EQ(simt::emu::stats().loads, 0u);
  simt::emu::config().count_loads = true;
  go("load_conflicts", load_conflicts, 1, 32);
  simt::emu::config().count_loads = false;
  EXPECT_EQ(out_[31], 10);
  EXPECT_EQ(simt::emu::stats().loads, 4u);
  EXPECT_EQ(simt::emu::stats().load_conflicts, 4u * 7 + 4u * 3);
}

TEST_F(SimtFaults, correct_kernels_stay_silent_and_the_emulator_usable) {
  expect_fault(
      Fault::early_exit, [&] { go("early_exit", early_exit); }, "");
  unsigned ticket = 0;
  float result = 0;
  simt::launch({"last_block", 100, 32}, last_block, out_.data(), &ticket, &result);
  EXPECT_EQ(result, 5050.f);
  out_[0] = 0;
  go("cross_block_atomic", cross_block_atomic, 64, 256);
  EXPECT_EQ(out_[0], 64.f * 256.f);
}

TEST_F(SimtFaults, the_schedule_turns_the_order_of_threads_round) {
  auto& schedule = simt::emu::config().schedule;
  const auto before = schedule;
  const auto order = [](simt::emu::Schedule s) {
    simt::emu::config().schedule = s;
    std::vector<unsigned> list(64);
    unsigned next = 0;
    simt::launch({"arrival_order", 1, 64}, arrival_order, list.data(), &next);
    return list;
  };
  const auto forward = order(simt::emu::Schedule::forward),
             reverse = order(simt::emu::Schedule::reverse),
             random = order(simt::emu::Schedule::random);
  schedule = before;
  EXPECT_EQ(forward.front(), 0u);
  EXPECT_EQ(reverse.front(), 63u);
  EXPECT_NE(random, forward);
  EXPECT_NE(random, reverse);
}

}  // namespace
}  // namespace retort::planted
