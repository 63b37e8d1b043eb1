#include "nn/inputs.h"

#include <gtest/gtest.h>

#include "nn/data/dataset.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using I32 = std::vector<std::int32_t>;

I32 values(const Tensor& t) { return t.to_vector<std::int32_t>(); }

Tensor ids(int n) {
  I32 list;
  for (int i = 0; i < n; ++i) list.push_back(10 + i);
  return Tensor::from(list, {n});
}

TEST(Inputs, images_and_features_are_one_sample_a_row) {
  const Inputs in = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  EXPECT_EQ(in.samples(), 3);
  const Inputs part = in.slice(1, 3);
  EXPECT_EQ(part.values.to_vector<float>(), (std::vector<float>{3, 4, 5, 6}));
  EXPECT_EQ(part.values.storage(), in.values.storage());  // a view
  EXPECT_EQ(in.slice(2, 2).samples(), 0);
  EXPECT_THROW(in.slice(-1, 2), Error);
  EXPECT_THROW(in.slice(2, 1), Error);
  EXPECT_THROW(in.slice(0, 4), Error);
  EXPECT_FALSE(Inputs{}.defined());
  EXPECT_EQ(Inputs{}.samples(), 0);
}

TEST(Inputs, tokens_are_sequences_end_to_end) {
  for (const Device device : test::devices()) {
    Inputs in = Inputs::tokens(ids(9).to(device), {0, 2, 3, 7, 9}, {1, 2, 4, 6, 7});
    in.segments = Tensor::from(I32{0, 1, 0, 0, 0, 1, 1, 0, 0}, {9}, device);
    EXPECT_EQ(in.samples(), 4);
    EXPECT_EQ(values(in.starts), (I32{0, 2, 3, 7, 9}));
    EXPECT_EQ(in.starts.device(), device);
    const Inputs part = in.slice(1, 3);  // tokens 2 .. 6
    EXPECT_EQ(part.samples(), 2);
    EXPECT_EQ(values(part.values), (I32{12, 13, 14, 15, 16}));
    EXPECT_EQ(values(part.starts), (I32{0, 1, 5}));
    EXPECT_EQ(part.starts_on_host, (I32{0, 1, 5}));
    EXPECT_EQ(values(part.rows), (I32{0, 2, 4}));  // 2, 4, 6 of the whole
    EXPECT_EQ(part.rows_on_host, (I32{0, 2, 4}));
    EXPECT_EQ(values(part.segments), (I32{0, 0, 0, 1, 1}));
    EXPECT_EQ(part.values.storage(), in.values.storage());
    // A slice of a slice is the slice of the whole.
    EXPECT_EQ(values(part.slice(1, 2).values), values(in.slice(2, 3).values));
    EXPECT_EQ(values(part.slice(1, 2).rows), values(in.slice(2, 3).rows));
  }
}

TEST(Inputs, rows_that_nobody_asked_for_stay_undefined_and_none_stay_none) {
  const Inputs all = Inputs::tokens(ids(4), {0, 2, 4});
  EXPECT_FALSE(all.rows.defined());
  EXPECT_FALSE(all.slice(0, 1).rows.defined());
  EXPECT_FALSE(all.slice(0, 1).segments.defined());
  // Rows of the other sample alone: this one has none, which is not "as the model has it".
  const Inputs some = Inputs::tokens(ids(4), {0, 2, 4}, {3});
  ASSERT_TRUE(some.slice(0, 1).rows.defined());
  EXPECT_EQ(some.slice(0, 1).rows.numel(), 0);
  EXPECT_EQ(values(some.slice(1, 2).rows), (I32{1}));
}

TEST(Inputs, tokens_that_do_not_fit_their_starts_are_refused) {
  EXPECT_THROW(Inputs::tokens(Tensor::zeros({4}), {0, 4}), Error);  // no ids
  EXPECT_THROW(Inputs::tokens(ids(4), {}), Error);
  EXPECT_THROW(Inputs::tokens(ids(4), {0}), Error);
  EXPECT_THROW(Inputs::tokens(ids(4), {1, 4}), Error);
  EXPECT_THROW(Inputs::tokens(ids(4), {0, 3}), Error);
  EXPECT_THROW(Inputs::tokens(ids(4), {0, 2, 2, 4}), Error);  // an empty sequence
  EXPECT_THROW(Inputs::tokens(ids(4), {0, 4}, {2, 1}), Error);
  EXPECT_THROW(Inputs::tokens(ids(4), {0, 4}, {4}), Error);
}

TEST(Want, logits_are_computed_if_one_reader_needs_them) {
  const Want logits{}, head{.head = true}, first{1, true}, features{0, false, true, true};
  EXPECT_FALSE((head | logits).head);
  EXPECT_TRUE((head | head).head && (head | features).head);
  EXPECT_EQ(head | first, (Want{0, true, false, true}));  // the first layers need no logits
  EXPECT_FALSE((first | logits).head);
  EXPECT_TRUE(logits.logits_suffice() && head.logits_suffice());
  EXPECT_FALSE(first.logits_suffice() || features.logits_suffice());
}

TEST(Want, joined_is_the_larger_of_both) {
  const Want logits{}, first{1, true}, second{2, true}, features{0, false, true};
  EXPECT_EQ(first | second, (Want{2, true}));
  EXPECT_EQ(first | logits, (Want{0, true}));  // everything, and the hidden layers
  EXPECT_EQ(features | second, (Want{0, true, true}));
  EXPECT_EQ(logits | logits, logits);
}

// Four texts of 1, 2, 0 and 3 rows.
Batch texts(Device device) {
  Batch batch(Inputs::tokens(ids(8).to(device), {0, 2, 4, 5, 8}, {1, 2, 3, 5, 6, 7}),
              Tensor::from(I32{7, 8, 9, 4, 5, 6}, {6}, device));
  batch.set_rows({0, 1, 1, 3, 3, 3});
  batch.sample = {100, 101, 102, 103};
  batch.variant = {0, 1, 2, 3};
  return batch;
}

TEST(Batch, slices_keep_the_rows_of_their_samples) {
  for (const Device device : test::devices()) {
    const Batch batch = texts(device);
    batch.check();
    EXPECT_EQ(batch.size(), 4);
    EXPECT_EQ(batch.rows(), 6);
    const Batch part = batch.slice(1, 4);
    part.check();
    EXPECT_EQ(part.size(), 3);
    EXPECT_EQ(part.rows(), 5);
    EXPECT_EQ(values(part.targets), (I32{8, 9, 4, 5, 6}));
    EXPECT_EQ(values(part.sample_of_row), (I32{0, 0, 2, 2, 2}));
    EXPECT_EQ(part.sample_of_row_on_host, (I32{0, 0, 2, 2, 2}));
    EXPECT_EQ(values(part.inputs[0].rows), (I32{0, 1, 3, 4, 5}));
    EXPECT_EQ(part.sample, (std::vector<std::int64_t>{101, 102, 103}));
    EXPECT_EQ(part.variant, (std::vector<std::uint32_t>{1, 2, 3}));
    const Batch none = batch.slice(2, 3);
    EXPECT_EQ(none.size(), 1);
    EXPECT_EQ(none.rows(), 0);
    std::int64_t rows = 0;
    for (std::int64_t b = 0; b < 4; ++b) rows += batch.slice(b, b + 1).rows();
    EXPECT_EQ(rows, 6);
  }
}

TEST(Batch, readings_that_share_memory_share_it_in_slices_too) {
  const Tensor one = test::randn({4, 3}, 1), other = test::randn({4, 3}, 2);
  Batch batch(one, Tensor::from(I32{0, 1, 2, 3}, {4}));
  batch.inputs.emplace_back(one);
  batch.inputs.emplace_back();  // nobody asked for it
  batch.inputs.emplace_back(other);
  batch.check();
  const Batch part = batch.slice(1, 3);
  ASSERT_EQ(part.inputs.size(), 4u);
  EXPECT_EQ(part.inputs[0].values.raw(), part.inputs[1].values.raw());
  EXPECT_FALSE(part.inputs[2].defined());
  EXPECT_EQ(part.inputs[3].values.to_vector<float>(), other.slice(1, 3).to_vector<float>());
  EXPECT_EQ(values(part.targets), (I32{1, 2}));
  EXPECT_EQ(part.read_by(3).values.raw(), part.inputs[3].values.raw());
  EXPECT_EQ(part.read_by(9).values.raw(), part.inputs[0].values.raw());  // the student's
}

TEST(Batch, fields_that_do_not_fit_are_named) {
  const auto error_of = [](const Batch& batch) -> std::string {
    try {
      batch.check();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "accepted";
  };
  const Batch good(test::randn({3, 2}, 1), Tensor::from(I32{0, 1, 2}, {3}));
  EXPECT_EQ(error_of(good), "accepted");
  EXPECT_NE(error_of({}).find("expected inputs"), std::string::npos);
  Batch bad = good;
  bad.targets = Tensor::from(I32{0, 1}, {2});
  EXPECT_NE(error_of(bad).find("expected targets (3)"), std::string::npos);
  bad.targets = Tensor::zeros({3});
  EXPECT_NE(error_of(bad).find("of i32"), std::string::npos);
  bad = good;
  bad.inputs.emplace_back(test::randn({2, 2}, 1));
  EXPECT_NE(error_of(bad).find("expected readings of 3 samples, got one of 2"), std::string::npos);
  bad = good;
  bad.sample = {1, 2};
  EXPECT_NE(error_of(bad).find("names of 3 samples"), std::string::npos);
  bad = good;
  bad.variant = {1, 2};
  EXPECT_NE(error_of(bad).find("variants of 3 samples"), std::string::npos);
  bad = good;
  bad.set_rows({0, 0, 1, 2});
  EXPECT_NE(error_of(bad).find("sample_of_row"), std::string::npos);  // 4 rows, 3 targets
  EXPECT_THROW(bad.set_rows({1, 0}), Error);
  EXPECT_THROW(bad.set_rows({0, 3}), Error);
  EXPECT_THROW(bad.set_rows({-1}), Error);
}

TEST(Reading, equal_texts_are_equal_readings) {
  EXPECT_EQ(Reading{}.str(), "f32");
  EXPECT_EQ((Reading{DType::kBF16, {{"normalize", "cifar"}}}.str()), "bf16 normalize=\"cifar\"");
  EXPECT_NE((Reading{DType::kF32, {{"normalize", Floats{0.5, 0.25}}}}.str()),
            (Reading{DType::kF32, {{"normalize", Floats{0.5, 0.5}}}}.str()));
}

}  // namespace
}  // namespace retort::nn
