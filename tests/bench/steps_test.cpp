// What a training step tells a peer: numbers that depend on forward, backward and update.
#include <cmath>

#include <gtest/gtest.h>

#include "bench/cases/cases.h"

namespace retort::bench {
namespace {

TEST(StepCases, digest_is_of_three_steps_from_the_first_weights) {
  int seen = 0;
  for (const Case& c : all_cases(Device::kCpu, true).cases) {
    if (!c.step || c.dtype != DType::kF32 || c.name.find("_forward") != std::string::npos) continue;
    SCOPED_TRACE(c.name);
    ++seen;
    const Work w = c.make(c);
    w.run();  // as a worker does: it must not show
    const std::vector<double> digest = w.digest();
    ASSERT_EQ(digest.size(), 3U);
    for (const double x : digest) EXPECT_TRUE(std::isfinite(x) && x > 0) << x;
    EXPECT_NE(digest[0], digest[2]);
    EXPECT_EQ(digest, w.digest());
    const Work other = c.make(c);
    EXPECT_EQ(digest, other.digest());
  }
  EXPECT_GE(seen, 3);
}

}  // namespace
}  // namespace retort::bench
