// Fences: a kernel with one missing, or in the wrong place, is refused in every build; the sound
// one is not. Those between blocks are ThreadSanitizer's (planted_bug.cpp).
#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/simt/expect_fault.h"
#include "tests/kernels/simt/fence_bugs.cuh"

namespace retort::planted {
namespace {

using namespace SIMT_NS;
using simt::emu::Fault;

alignas(16) float g_in[256] = {};

float product(Fences fences, bool plain, unsigned blocks = 1) {
  const std::vector<bf16> ones(8, to_bf16(1));
  std::vector<float> out(128, -1);
  simt::launch({"product_of_ones", blocks, 128, 16384}, product_of_ones, ones.data(), out.data(),
               fences, plain);
  return out[0];
}

TEST(SimtFences, tiles_need_the_proxy_fence_after_the_writes) {
  for (const bool plain : {false, true}) {
    SCOPED_TRACE(plain ? "plain stores" : "cp.async");
    EXPECT_EQ(product(Fences::right, plain), 128);
    for (const Fences wrong :
         {Fences::none, Fences::too_early, Fences::one_missing, Fences::by_one})
      expect_fault(
          Fault::proxy_fence, [&] { product(wrong, plain); }, "without async_proxy_fence()");
  }
}

// Each thread's own fence counts: other threads' later ones do not make up for it. A single thread's
// mistake is seen in the block that watches it (block 1 has thread 37).
TEST(SimtFences, plain_writes_after_the_own_fence_are_unseen_by_wgmma) {
  for (const bool plain : {false, true}) {
    expect_fault(
        Fault::proxy_fence, [&] { product(Fences::written_after, plain); },
        "without async_proxy_fence()");
    expect_fault(
        Fault::proxy_fence, [&] { product(Fences::by_one_after, plain, 128); },
        "without async_proxy_fence()");
  }
}

TEST(SimtFences, sums_need_the_fence_of_wgmma) {
  expect_fault(
      Fault::register_fence, [&] { product(Fences::none_of_wgmma, false); }, "without a");
  expect_fault(
      Fault::register_fence, [&] { product(Fences::sums_after, false); }, "written after");
  expect_fault(
      Fault::register_fence, [&] { product(Fences::once_for_two, false); }, "without a");
}

TEST(SimtFences, products_are_waited_for) {
  expect_fault(
      Fault::async_outstanding, [&] { product(Fences::never_waited, false); }, "under way");
}

TEST(SimtFences, bulk_copies_over_plain_writes) {
  std::vector<float> out(64);
  const auto go = [&](void (*kernel)(const float*, float*)) {
    simt::launch({"tiles", 1, 64}, kernel, g_in, out.data());
  };
  go(tile_over_plain_writes<true>);
  EXPECT_EQ(out[63], 1.f);
  expect_fault(
      Fault::proxy_fence, [&] { go(tile_over_plain_writes<false>); }, "a bulk copy over");
}

TEST(SimtFences, barriers_are_made_ready_by_who_initialised_them) {
  std::vector<float> out(64);
  expect_fault(
      Fault::bad_tile,
      [&] {
        simt::launch({"tiles", 1, 64}, another_thread_makes_the_barrier_ready, g_in, out.data());
      },
      "tile_barriers_ready");
}

}  // namespace
}  // namespace retort::planted
