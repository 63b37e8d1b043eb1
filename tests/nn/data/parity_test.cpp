#include "nn/data/parity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/data/loader.h"
#include "tests/support/close.h"

namespace retort::nn {
namespace {

using test::same_bytes;
using ::testing::HasSubstr;

std::shared_ptr<const ParityDataset> parity(const ParityOptions& options) {
  return std::make_shared<ParityDataset>(options);
}

std::vector<std::int64_t> iota(std::int64_t n) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

TEST(Parity, labels_are_the_product_of_the_support) {
  const auto data = parity({.n = 40, .k = 5, .size = 5000, .seed = 3});
  EXPECT_EQ(data->support(), (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  const Batch batch = data->source({})->make(iota(5000));
  const auto x = batch.inputs[0].values.to_vector<float>();
  const auto y = batch.targets.to_vector<std::int32_t>();
  double sum = 0, correlation = 0;
  int ones = 0;
  for (std::size_t i = 0; i < 5000; ++i) {
    float product = 1;
    for (std::size_t j = 0; j < 5; ++j) product *= x[i * 40 + j];
    ASSERT_EQ(y[i], product > 0 ? 0 : 1);
    for (std::size_t j = 0; j < 40; ++j) {
      ASSERT_TRUE(x[i * 40 + j] == 1 || x[i * 40 + j] == -1);
      sum += static_cast<double>(x[i * 40 + j]);
    }
    correlation += static_cast<double>(x[i * 40] * x[i * 40 + 39]);
    ones += y[i];
  }
  EXPECT_EQ(data->labels(), y);
  EXPECT_LT(std::abs(sum), 4.5 * std::sqrt(200000.0));
  EXPECT_LT(std::abs(correlation), 4.5 * std::sqrt(5000.0));
  EXPECT_NEAR(ones, 2500, 4.5 * 35);
}

TEST(Parity, streams_differ_by_seed_and_by_being_held_out) {
  const auto values = [](std::uint64_t seed, bool held_out) {
    return parity({.n = 40, .k = 5, .size = 64, .seed = seed, .held_out = held_out})
        ->source({})
        ->make(iota(64))
        .inputs[0]
        .values.to_vector<float>();
  };
  EXPECT_EQ(values(1, false), values(1, false));
  EXPECT_NE(values(1, false), values(2, false));
  EXPECT_NE(values(1, false), values(1, true));
}

TEST(Parity, online_samples_are_read_in_sequence) {
  const auto data = parity({.n = 130, .k = 2, .epoch_size = 100});
  EXPECT_TRUE(data->facts().endless());
  EXPECT_EQ(data->facts().epoch_size, 100);
  Loader loader(data->source({.seed = 9}), sequential_plan(data->facts().indices(), 32), {});
  const Batch far = loader.at(std::int64_t{1} << 30);
  EXPECT_EQ(far.sample[0], std::int64_t{1} << 35);
  EXPECT_EQ(far.inputs[0].values.shape(), (Shape{32, 130}));
  // The high half of the index counts: 2^35 and 0 are other samples.
  EXPECT_NE(far.inputs[0].values.to_vector<float>(),
            loader.at(0).inputs[0].values.to_vector<float>());
}

TEST(Parity, without_end_the_source_has_the_seed_and_there_are_no_labels_to_count) {
  const auto values = [](const ParityOptions& options, std::uint64_t seed) {
    return parity(options)->source({.seed = seed})->make(iota(16)).inputs[0].values;
  };
  const ParityOptions endless{.n = 40, .k = 5}, fixed{.n = 40, .k = 5, .size = 16, .seed = 7};
  EXPECT_FALSE(same_bytes(values(endless, 1), values(endless, 2)));
  EXPECT_TRUE(same_bytes(values(endless, 7), values(fixed, 1)));  // one stream
  EXPECT_TRUE(same_bytes(values(fixed, 1), values(fixed, 2)));    // a fixed set is that of its seed
  EXPECT_FALSE(parity(endless)->facts().labelled);
  EXPECT_TRUE(parity(endless)->labels().empty());
  EXPECT_TRUE(parity(fixed)->facts().labelled);
  EXPECT_THROW(parity(endless)->subset(iota(3)), Error);
}

TEST(Parity, subsets_keep_their_samples) {
  const auto data = parity({.n = 40, .k = 5, .size = 20, .seed = 3});
  const std::vector<std::int64_t> picked{7, 3, 19}, again{2, 0}, both{19, 7};
  const auto part = data->subset(picked);
  EXPECT_EQ(part->size(), 3);
  EXPECT_EQ(part->facts().epoch_size, 3);
  const Batch want = data->source({})->make(picked), got = part->source({})->make(iota(3));
  EXPECT_TRUE(same_bytes(got.inputs[0].values, want.inputs[0].values));
  EXPECT_EQ(part->labels(), want.targets.to_vector<std::int32_t>());
  EXPECT_NE(part->hash(), data->hash());
  EXPECT_TRUE(same_bytes(part->subset(again)->source({})->make(iota(2)).inputs[0].values,
                         data->source({})->make(both).inputs[0].values));
  EXPECT_THROW(part->subset(std::vector<std::int64_t>{3}), Error);
}

TEST(Parity, nothing_is_done_to_samples_but_the_dtype) {
  const auto data = parity({.n = 8, .k = 2, .size = 4});
  SourceOptions options;
  options.readings = {Reading{DType::kBF16}, Reading{}, Reading{}};
  const Batch batch = data->source(options)->make(iota(4));
  EXPECT_TRUE(same_bytes(batch.inputs[0].values, batch.inputs[1].values.to(DType::kBF16)));
  EXPECT_EQ(batch.inputs[1].values.raw(), batch.inputs[2].values.raw());
  EXPECT_THROW(data->source({.treatment = {{"augment", "none"}}}), Error);
  options.readings[0].options.set("normalize", "cifar");
  EXPECT_THROW(data->source(options), Error);
}

TEST(Parity, a_seeded_support_has_k_distinct_coordinates) {
  const auto a = parity({.n = 40, .k = 6, .size = 1, .support_seed = 1}),
             b = parity({.n = 40, .k = 6, .size = 1, .support_seed = 2});
  EXPECT_EQ(a->support().size(), 6u);
  EXPECT_EQ(std::adjacent_find(a->support().begin(), a->support().end()), a->support().end());
  EXPECT_NE(a->support(), b->support());
  EXPECT_NE(a->hash(), b->hash());
  EXPECT_THROW(parity({.n = 4, .k = 5, .size = 1}), Error);
  EXPECT_THROW(parity({.n = 4, .k = 0, .size = 1}), Error);
  EXPECT_THROW(parity({.n = 4, .k = 2, .size = -1}), Error);
  EXPECT_THROW(parity({.n = 4, .k = 2, .epoch_size = 0}), Error);
}

TEST(ParityKind, trains_without_end_and_tests_on_a_held_out_set) {
  const DataKind& kind = data_kinds().at("parity");
  EXPECT_TRUE(kind.endless);
  const Options options{{"bits", std::int64_t{20}},
                        {"support", std::int64_t{3}},
                        {"epoch_size", std::int64_t{50}},
                        {"test_size", std::int64_t{16}}};
  const auto train = open_data({"parity", "train", options}),
             test = open_data({"parity", "test", options});
  EXPECT_TRUE(train->facts().endless());
  EXPECT_EQ(train->facts().epoch_size, 50);
  EXPECT_EQ(test->size(), 16);
  EXPECT_EQ(test->facts().input, (Shape{20}));
  EXPECT_TRUE(test->facts().scalar_target);
  EXPECT_EQ(open_data({"parity", "validation", options}), nullptr);
  // Sample i of one is not sample i of the other.
  EXPECT_FALSE(same_bytes(train->source({})->make(iota(16)).inputs[0].values,
                          test->source({})->make(iota(16)).inputs[0].values));
  ASSERT_TRUE(kind.check);
  const auto fault = kind.check(
      complete("parity", kind.options, {{"bits", std::int64_t{4}}, {"support", std::int64_t{5}}}));
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->key, "support");
  EXPECT_THAT(fault->message, HasSubstr("at most bits = 4"));
  EXPECT_FALSE(kind.check(complete("parity", kind.options, {})).has_value());
}

TEST(DataKinds, a_kind_from_outside_is_opened_by_name) {
  if (data_kinds().find("two_points") == nullptr)
    data_kinds().add({.names = {"two_points"},
                      .options = {count_option("seed", 4, 0, 9, "", "Draws the points.")},
                      .open = [](const DataRequest& request) -> std::shared_ptr<const Dataset> {
                        return parity(
                            {.n = 2,
                             .k = 1,
                             .size = 2,
                             .seed = static_cast<std::uint64_t>(request.options.integer("seed"))});
                      }});
  const auto got = open_data({"two_points", "train", {}});
  EXPECT_EQ(got->hash(), parity({.n = 2, .k = 1, .size = 2, .seed = 4})->hash());
  try {
    open_data({"cifar11", "train", {}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("unknown data format 'cifar11'"));
    EXPECT_THAT(e.what(), HasSubstr("did you mean 'cifar10"));
  }
}

}  // namespace
}  // namespace retort::nn
