// How a case is timed, and in which order a GPU meets them.
#include "bench/harness/session.h"

#include <gtest/gtest.h>

#include <set>

#include "bench/cases/cases.h"
#include "engine/ops/axpy.h"
#include "engine/runtime/device.h"

namespace retort::bench {
namespace {

// y += x of n elements, and whatever else `also` does.
Case add_case(
    std::int64_t n, std::function<void()> also = [] {}) {
  Case c;
  c.name = "add/" + shape_name(n);
  c.device = Device::kCuda;
  c.working_set = 64e6;  // four works
  c.make = [n, also](const Case& made) {
    const Tensor x = Tensor::full({n}, static_cast<double>(made.seed), DType::kF32, made.device),
                 y = Tensor::zeros({n}, DType::kF32, made.device);
    Work w;
    w.run = [=] {
      add_into(y, x, 1.0);
      also();
    };
    w.reset = [=] { y.fill(0); };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    return w;
  };
  return c;
}

TEST(Session, short_calls_are_timed_as_one_graph_that_goes_through_all_works) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  Session eager(add_case(8), false, 0);
  EXPECT_FALSE(eager.graphed());
  EXPECT_GT(eager.sample(), 0);
  Session session(add_case(8), false, 1e9);
  ASSERT_TRUE(session.graphed());
  EXPECT_EQ(session.works(), 4);
  EXPECT_EQ(session.calls_per_sample() % 4, 0);
  session.work().reset();
  EXPECT_GT(session.sample(), 0);
  // Seed 1 is the first work's x.
  EXPECT_EQ(session.work().outputs()[0].to_vector<float>()[7],
            static_cast<float>(session.calls_per_sample() / 4));
  const Facts facts = session.facts();
  EXPECT_TRUE(facts.hash_equal);
  EXPECT_EQ(facts.hashed_bytes, 32);
}

TEST(Session, what_waits_for_the_device_is_timed_eagerly) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  Session session(add_case(8, [] { synchronize(Device::kCuda); }), false, 1e9);
  EXPECT_FALSE(session.graphed());
  EXPECT_GT(session.sample(), 0);
}

TEST(Session, of_a_large_output_on_a_gpu_a_sample_is_hashed) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  constexpr std::int64_t n = 5 << 20;
  const Case good = add_case(n);
  const Facts facts = Session(good, true).facts();
  EXPECT_EQ(facts.hashed_bytes, 65.0 * 65536);
  EXPECT_TRUE(facts.hash_equal);
  // The last element belongs to the sample.
  Case bad = good;
  bad.make = [good](const Case& made) {
    Work w = good.make(made);
    w.reset = [y = w.outputs()[0], k = std::make_shared<int>(0)] {
      y.fill(0);
      y.slice(n - 1, n).fill(++*k);
    };
    return w;
  };
  EXPECT_FALSE(Session(bad, true).facts().hash_equal);
}

// A run on a budget ends somewhere: what comes before.
TEST(Cases, on_a_gpu_goals_come_first_then_the_kernels_by_turns) {
  const std::vector<Case> cases = all_cases(Device::kCuda, false).cases;
  std::size_t goals = 0;
  while (cases[goals].goal) ++goals;
  for (const char* name :
       {"cuda/distill_loss/forward_kl/8192x30522/bf16",
        "cuda/distill_loss/forward_kl/8192x50257/bf16",
        "cuda/distill_loss/forward_kl/8192x128256/bf16", "cuda/adamw/66362880/f32"})
    EXPECT_TRUE(std::any_of(cases.begin(), cases.begin() + static_cast<std::ptrdiff_t>(goals),
                            [&](const Case& c) { return c.full_name() == name; }))
        << name;
  // No kernel has its second case before another has its first.
  std::set<std::string> seen, names;
  std::size_t first_repeat = cases.size(), last_first = 0;
  for (std::size_t i = goals; i < cases.size(); ++i) {
    names.insert(cases[i].full_name());
    if (cases[i].step || cases[i].name.rfind("distill_loss/", 0) == 0) continue;
    const bool is_new = seen.insert(cases[i].name.substr(0, cases[i].name.rfind('/'))).second;
    if (is_new) last_first = i;
    if (!is_new) first_repeat = std::min(first_repeat, i);
  }
  EXPECT_GT(seen.size(), 20u);
  EXPECT_LT(last_first, first_repeat);
  EXPECT_EQ(names.size() + goals, cases.size());
}

}  // namespace
}  // namespace retort::bench
