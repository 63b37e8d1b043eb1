#include "curriculum/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "curriculum/sampling/permutation.h"
#include "kernels/common/check.h"

namespace retort::test {
namespace {

using namespace curriculum;
using Indices = std::vector<std::int64_t>;

Indices iota(std::int64_t n, std::int64_t first = 0) {
  Indices list(static_cast<std::size_t>(n));
  std::iota(list.begin(), list.end(), first);
  return list;
}
Indices sorted(Indices list) {
  std::sort(list.begin(), list.end());
  return list;
}

TEST(Permutation, is_one_and_every_order_of_three_is_equally_likely) {
  EXPECT_TRUE(permutation(0, 1, 0, 0).empty());
  EXPECT_EQ(permutation(1, 1, 0, 0), Indices{0});
  EXPECT_EQ(sorted(permutation(1000, 1, 0, 0)), iota(1000));
  EXPECT_NE(permutation(1000, 1, 0, 0), permutation(1000, 1, 1, 0));
  std::array<int, 27> count{};
  for (std::uint32_t epoch = 0; epoch < 6000; ++epoch) {
    const Indices p = permutation(3, 9, epoch, 0);
    ++count[static_cast<std::size_t>(p[0] * 9 + p[1] * 3 + p[2])];
  }
  for (const int c : {count[5], count[7], count[11], count[15], count[19], count[21]})
    EXPECT_NEAR(c, 1000, 150);  // five standard deviations
}

TEST(Permutation, draws_are_distinct_and_uniform) {
  std::array<int, 10> count{};
  for (std::uint64_t step = 0; step < 5000; ++step) {
    const Indices d = draw_without_replacement(10, 4, 3, step, 0);
    EXPECT_EQ(std::set<std::int64_t>(d.begin(), d.end()).size(), 4u);
    for (const std::int64_t i : d) ++count[static_cast<std::size_t>(i)];
  }
  for (const int c : count) EXPECT_NEAR(c, 2000, 175);
  EXPECT_EQ(sorted(draw_without_replacement(7, 7, 1, 1, 0)), iota(7));
  EXPECT_THROW(draw_without_replacement(3, 4, 1, 1, 0), Error);
}

TEST(Sampler, sequential_feeds_the_order_as_it_is) {
  const Sampler s({5, 3, 1, 0, 2}, {.batch_size = 2});
  EXPECT_EQ(s.batches_per_epoch(), 3);
  EXPECT_EQ(s.batch(0), (Indices{5, 3}));
  EXPECT_EQ(s.batch(2), (Indices{2}));
  EXPECT_EQ(s.batch(3), (Indices{5, 3}));
  EXPECT_EQ(s.epoch_of(3), 1);
  const Sampler dropping({5, 3, 1, 0, 2}, {.batch_size = 2, .drop_last = true});
  EXPECT_EQ(dropping.batches_per_epoch(), 2);
  EXPECT_EQ(dropping.batch(2), (Indices{5, 3}));
}

TEST(Sampler, window_shuffle_stays_in_its_window) {
  const Sampler s(iota(23), {.batch_size = 4, .window_batches = 2, .seed = 1});
  std::vector<Indices> epochs;
  for (int epoch = 0; epoch < 2; ++epoch) {
    Indices all;
    for (int b = 0; b < 6; ++b) {
      const Indices batch = s.batch(epoch * 6 + b);
      for (const std::int64_t i : batch) EXPECT_EQ(i / 8, b / 2);
      all.insert(all.end(), batch.begin(), batch.end());
    }
    EXPECT_EQ(sorted(all), iota(23));
    EXPECT_NE(all, iota(23));
    epochs.push_back(all);
  }
  EXPECT_NE(epochs[0], epochs[1]);
}

TEST(Sampler, shuffled_covers_every_epoch_and_needs_no_history) {
  const SamplerOptions o{.feeding = Feeding::kShuffled, .batch_size = 4, .seed = 7};
  const Sampler s(iota(10, 100), o), fresh(iota(10, 100), o);
  Indices all;
  for (int step = 3; step < 6; ++step) {
    const Indices b = s.batch(step);
    all.insert(all.end(), b.begin(), b.end());
  }
  EXPECT_EQ(sorted(all), iota(10, 100));
  s.batch(0);
  EXPECT_EQ(s.batch(4), fresh.batch(4));
  EXPECT_NE(s.batch(0), s.batch(3));
}

TEST(Sampler, paced_batches_come_from_the_prefix) {
  const Sampler s(iota(100),
                  {.feeding = Feeding::kPaced,
                   .batch_size = 8,
                   .seed = 2,
                   .pacing = Pacing("single_step", {{"start", 0.2}, {"pacing_steps", 50}})});
  for (int step = 0; step <= 50; ++step) {
    const Indices b = s.batch(step);
    EXPECT_EQ(std::set<std::int64_t>(b.begin(), b.end()).size(), 8u);
    EXPECT_LT(*std::max_element(b.begin(), b.end()), 20);
  }
  std::int64_t top = 0;
  for (int step = 51; step < 100; ++step)
    for (const std::int64_t i : s.batch(step)) top = std::max(top, i);
  EXPECT_GT(top, 90);
  EXPECT_EQ(s.batch(60), s.batch(60));
  EXPECT_NE(s.batch(60), s.batch(61));
}

TEST(Sampler, a_prefix_smaller_than_the_batch_grows_to_it) {
  const Sampler s(iota(100), {.feeding = Feeding::kPaced,
                              .batch_size = 30,
                              .pacing = Pacing("single_step", {{"start", 0.01}})});
  EXPECT_EQ(sorted(s.batch(0)), iota(30));
}

TEST(Sampler, errors) {
  EXPECT_THROW(Sampler({}, {}), Error);
  EXPECT_THROW(Sampler({1, 2}, {.batch_size = 3}), Error);
  EXPECT_THROW(Sampler({1, 2}, {.batch_size = 0}), Error);
  EXPECT_THROW(Sampler({1, 2}, {.batch_size = 1}).batch(-1), Error);
}

TEST(Split, three_to_two) {
  const std::vector<double> ratios{3, 2};
  const auto parts = split(50000, ratios, 1);
  EXPECT_EQ(parts[0].size(), 30000u);
  EXPECT_EQ(parts[1].size(), 20000u);
  Indices all = parts[0];
  all.insert(all.end(), parts[1].begin(), parts[1].end());
  EXPECT_EQ(sorted(all), iota(50000));
  EXPECT_TRUE(std::is_sorted(parts[0].begin(), parts[0].end()));
  EXPECT_NE(parts[0], split(50000, ratios, 2)[0]);
  EXPECT_EQ(split(0, ratios, 1)[1].size(), 0u);
  EXPECT_THROW(split(5, std::vector<double>{}, 1), Error);
  EXPECT_THROW(split(5, std::vector<double>{-1, 2}, 1), Error);
}

TEST(Split, stratified_keeps_class_shares) {
  std::vector<std::int32_t> labels(103);
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = i < 50 ? 0 : i < 100 ? 4 : 8;  // class 8 has three samples
  const auto parts = stratified_split(labels, std::vector<double>{3, 2}, 1);
  std::array<int, 9> count{};
  for (const std::int64_t i : parts[0])
    ++count[static_cast<std::size_t>(labels[static_cast<std::size_t>(i)])];
  EXPECT_EQ(count[0], 30);
  EXPECT_EQ(count[4], 30);
  EXPECT_EQ(count[8], 2);
  EXPECT_EQ(parts[0].size() + parts[1].size(), labels.size());
}

TEST(Sampler, batches_of_tokens_keep_the_order_and_their_number) {
  std::vector<std::int64_t> order, sizes;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < 50; ++i) {
    order.push_back(49 - i);
    sizes.push_back(1 + i * 7 % 10);
    tokens += sizes.back();
  }
  for (const Feeding feeding : {Feeding::kSequential, Feeding::kShuffled})
    for (const std::int64_t budget : {10, 13, 64, 1000}) {
      SamplerOptions options;
      options.feeding = feeding;
      options.batch_size = 1;
      options.batch_tokens = budget;
      options.sizes = sizes;
      const Sampler sampler(order, options);
      ASSERT_EQ(sampler.batches_per_epoch(), token_batches(tokens, budget));
      std::vector<std::int64_t> first;
      for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
        std::vector<std::int64_t> fed;
        std::int64_t before = 0;
        for (std::int64_t b = 0; b < sampler.batches_per_epoch(); ++b) {
          const auto batch = sampler.batch(epoch * sampler.batches_per_epoch() + b);
          ASSERT_FALSE(batch.empty());
          for (const std::int64_t i : batch) {
            before += sizes[static_cast<std::size_t>(i)];
            EXPECT_EQ((before - 1) / budget, b);
            fed.push_back(i);
          }
        }
        if (feeding == Feeding::kSequential) {
          EXPECT_EQ(fed, order);
        }
        if (epoch == 0) first = fed;
        if (epoch > 0 && feeding == Feeding::kShuffled) {
          EXPECT_NE(fed, first);
        }
        std::sort(fed.begin(), fed.end());
        EXPECT_EQ(fed.size(), 50u);
        EXPECT_EQ(std::unique(fed.begin(), fed.end()), fed.end());
      }
      // Any step by itself, backwards too.
      EXPECT_EQ(sampler.batch(0), Sampler(order, options).batch(0));
    }
  SamplerOptions small;
  small.batch_size = 1, small.batch_tokens = 9, small.sizes = sizes;
  EXPECT_THROW(Sampler(order, small), Error);  // a sample of 10
  small.batch_tokens = 10, small.sizes.pop_back();
  EXPECT_THROW(Sampler(order, small), Error);
}

}  // namespace
}  // namespace retort::test
