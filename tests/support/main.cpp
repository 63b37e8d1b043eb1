// Entry of every test program. Without a GPU plug-in named, device tests run on the emulated one;
// convolutions are the hand-written ones unless RETORT_CONV2D says otherwise.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "engine/runtime/device.h"
#include "tests/support/own_convolution.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  setenv("RETORT_CUDA_LIBRARY", RETORT_EMULATED_PLUGIN, /*overwrite=*/0);
  retort::test::ask_for_own_convolutions();
  const int failed = RUN_ALL_TESTS();
  const auto& unit = *::testing::UnitTest::GetInstance();
  if (unit.skipped_test_count() > 0)
    std::printf("skipped: %d (each says what it lacks)\n", unit.skipped_test_count());
  return failed;
}
