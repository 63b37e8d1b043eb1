// How a case is timed, and in which order a GPU meets them.
#include "bench/harness/session.h"

#include <gtest/gtest.h>

#include <memory>
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

// A case of nothing but counters: what the session calls, and how often.
struct Counts {
  int runs = 0, prepared = 0, chains = 0;
};
Case counting_case(const std::shared_ptr<Counts>& counts) {
  Case c;
  c.name = "counting";
  c.working_set = cold_bytes(Device::kCpu) / 3;  // three works
  c.make = [counts](const Case&) {
    const auto one_hot = std::make_shared<bool>(false);
    Work w;
    w.run = [=] { ++counts->runs; };
    w.prepare_composed = [=] {
      *one_hot = true;
      ++counts->prepared;
    };
    w.composed = [=] {
      RETORT_CHECK(*one_hot, "the chain ran before it was prepared");
      ++counts->chains;
    };
    return w;
  };
  return c;
}

TEST(Session, the_chain_is_warm_and_timed_over_as_many_calls_as_the_kernel) {
  const auto counts = std::make_shared<Counts>();
  Session session(counting_case(counts), false);
  ASSERT_EQ(session.works(), 3);
  EXPECT_EQ(counts->prepared, 0);  // a peer's turns have no chain, nor its memory
  session.prepare_composed();
  EXPECT_EQ(counts->prepared, 3);
  EXPECT_EQ(counts->chains, 3);
  ASSERT_GT(session.calls_per_sample(), 1);
  session.sample_composed();
  EXPECT_EQ(counts->prepared, 3);
  EXPECT_EQ(counts->chains, 3 + session.calls_per_sample());
  const int runs = counts->runs;
  session.sample();
  EXPECT_EQ(counts->runs - runs, session.calls_per_sample());
}

TEST(Session, the_chain_is_a_graph_where_the_kernel_is_one_unless_it_waits) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  for (const bool waits : {false, true}) {
    Case c = add_case(8);
    c.make = [make = c.make, waits](const Case& made) {
      Work w = make(made);
      w.composed = [run = w.run, waits] {
        run();
        if (waits) synchronize(Device::kCuda);
      };
      return w;
    };
    Session session(c, false, 1e9);
    ASSERT_TRUE(session.graphed());
    EXPECT_GT(session.sample_composed(), 0);
    EXPECT_EQ(session.composed_graphed(), !waits);
    EXPECT_GT(session.sample(), 0);
  }
}

// y := 1 by the first `writes` calls alone; the session itself makes one before facts().
Case lazy_case(int writes) {
  Case c;
  c.name = "lazy";
  c.step = true;  // one call, not timed
  c.make = [writes](const Case&) {
    const Tensor y = Tensor::zeros({4}, DType::kF32, Device::kCpu);
    Work w;
    w.run = [=, calls = std::make_shared<int>(0)] {
      if (++*calls <= writes) y.fill(1);
    };
    w.outputs = [=] { return std::vector<Tensor>{y}; };
    return w;
  };
  return c;
}

TEST(Session, a_second_run_that_writes_nothing_is_not_the_same_bits) {
  EXPECT_TRUE(Session(lazy_case(3), true).facts().hash_equal);
  EXPECT_FALSE(Session(lazy_case(2), true).facts().hash_equal);
  EXPECT_FALSE(Session(lazy_case(1), true).facts().hash_equal);
}

TEST(Cases, all_outputs_are_hashed) {
  const auto hashed = [](const std::string& name) {
    for (const Case& c : all_cases(Device::kCpu, true).cases)
      if (c.full_name() == name) return Session(c, true).facts().hashed_bytes;
    return 0.0;
  };
  EXPECT_EQ(hashed("cpu/adamw/37/f32"), 3 * 4 * 37);               // parameter, m, v
  EXPECT_EQ(hashed("cpu/max_pool_3x3_s2/2x6x3/f32"), 2 * 27 * 5);  // y and the winner's place
  // Gradient, total, statistics, argmax, correct.
  EXPECT_EQ(hashed("cpu/distill_loss/forward_kl/3x10/f32"), 4 * 30 + 4 + 3 * (40 + 8 + 2));
}

TEST(Cases, the_loss_counts_its_statistics_and_labels) {
  int found = 0;
  for (const Case& c : all_cases(Device::kCpu, false).cases)
    if (c.name == "distill_loss/forward_kl/1024x10") {
      ++found;
      EXPECT_EQ(c.bytes, 1024.0 * (30.0 * static_cast<double>(size_of(c.dtype)) + 54));
    }
  EXPECT_EQ(found, 2);
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
