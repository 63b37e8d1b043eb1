#include "nn/layers/batch_norm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::randn;
using ::testing::HasSubstr;

TEST(BatchNorm, one_value_of_a_channel_is_refused_in_training_alone) {
  BatchNorm norm(3);
  for (const Shape& one : {Shape{1, 3}, Shape{1, 1, 1, 3}}) {
    norm.train();
    try {
      norm.forward(randn(one, 1));
      ADD_FAILURE() << one;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_THAT(e.what(), HasSubstr("one value of each channel has no variance"));
    }
    norm.eval();
    EXPECT_EQ(norm.forward(randn(one, 1)).shape(), one);
  }
  norm.train();
  EXPECT_EQ(norm.forward(randn({1, 1, 2, 3}, 1)).dim(2), 2);
  EXPECT_EQ(norm.forward(randn({2, 3}, 1)).dim(0), 2);
}

TEST(BatchNorm, a_watch_sees_the_values_of_its_own_thread) {
  BatchNorm a(3), b(2);
  const auto pass = [&] {
    a.forward(randn({4, 5, 5, 3}, 1));
    b.forward(randn({4, 2}, 2));
  };
  {
    const BatchNormWatch watch;
    std::thread(pass).join();
    EXPECT_TRUE(watch.seen().empty());
    pass();
    ASSERT_EQ(watch.seen().size(), 2u);
    EXPECT_EQ(watch.seen()[0].values, 100);
    EXPECT_EQ(watch.seen()[0].running_var.raw(), a.named_buffers()[1].second.raw());
    EXPECT_EQ(watch.seen()[1].values, 4);
    b.eval();
    pass();
    EXPECT_EQ(watch.seen().size(), 3u) << "evaluation has no statistics of the batch";
    EXPECT_THROW(BatchNormWatch(), Error);
  }
  pass();
  const BatchNormWatch another;
  EXPECT_TRUE(another.seen().empty());
}

}  // namespace
}  // namespace retort::nn
