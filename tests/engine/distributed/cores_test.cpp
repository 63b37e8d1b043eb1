#include "engine/distributed/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <vector>

namespace retort::test {
namespace {

CoreMask mask_of(std::initializer_list<int> cores) {
  CoreMask mask{};
  for (const int core : cores)
    mask[static_cast<std::size_t>(core / 64)] |= std::uint64_t{1} << core % 64;
  return mask;
}

TEST(Cores, ranks_that_are_not_bound_share_the_machine) {
  const CoreMask all = mask_of({0, 1, 2, 3, 64, 65, 66, 1023});
  EXPECT_EQ(count_cores(all), 8);
  EXPECT_EQ(threads_per_rank(all, std::vector{all}), 8);
  EXPECT_EQ(threads_per_rank(all, std::vector{all, all}), 4);
  EXPECT_EQ(threads_per_rank(all, std::vector{all, all, all}), 2);
  EXPECT_EQ(threads_per_rank(all, std::vector(16, all)), 1);
}

TEST(Cores, bound_ranks_keep_what_is_theirs) {
  const CoreMask left = mask_of({0, 1, 2, 3}), right = mask_of({64, 65, 66, 67});
  EXPECT_EQ(threads_per_rank(left, std::vector{left, right}), 4);
  EXPECT_EQ(threads_per_rank(right, std::vector{left, right, right}), 2);
  EXPECT_EQ(threads_per_rank(mask_of({1}), std::vector{mask_of({0}), mask_of({1})}), 1);
}

TEST(Cores, own_ones_are_those_of_the_kernel) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  EXPECT_EQ(count_cores(own_cores()), CPU_COUNT(&set));
}

}  // namespace
}  // namespace retort::test
