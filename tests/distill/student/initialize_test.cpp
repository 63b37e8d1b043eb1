#include "distill/student/initialize.h"

#include <gtest/gtest.h>

#include "tests/distill/models.h"
#include "tests/support/close.h"

namespace retort::test {
namespace {

using namespace distill;

TEST(CopyLayers, copies_by_prefix_and_leaves_the_rest) {
  TinyMlp teacher(5, {8, 8, 8}, 3, 1), student(5, {8, 8}, 3, 2);
  const auto before = student.named_parameters();
  const Tensor untouched = before[4].second.detach().clone();  // w3
  const auto names = copy_layers(student, teacher, {{"w1", "w1"}, {"b1", "b1"}, {"w2", "w3"}});
  EXPECT_EQ(names, (std::vector<std::string>{"w1", "b1", "w2"}));
  const auto s = student.named_parameters(), t = teacher.named_parameters();
  EXPECT_TRUE(same_bytes(s[0].second.detach(), t[0].second.detach()));
  EXPECT_TRUE(same_bytes(s[2].second.detach(), t[4].second.detach()));
  EXPECT_TRUE(same_bytes(s[4].second.detach(), untouched));
  EXPECT_TRUE(s[0].second.requires_grad());
}

TEST(CopyLayers, everything) {
  TinyMlp teacher(5, {8}, 3, 1), student(5, {8}, 3, 2);
  EXPECT_EQ(copy_layers(student, teacher, {{"", ""}}).size(), 4u);
}

TEST(CopyLayers, errors_change_nothing) {
  TinyMlp teacher(5, {8, 6}, 3, 1), student(5, {8, 8}, 3, 2);
  const Tensor w1 = student.named_parameters()[0].second.detach().clone();
  EXPECT_THROW(copy_layers(student, teacher, {{"w1", "w1"}, {"w2", "w2"}}), Error);  // (8,8), (6,8)
  EXPECT_THROW(copy_layers(student, teacher, {{"w", "layer"}}), Error);
  EXPECT_THROW(copy_layers(student, teacher, {{"nothing", "w"}}), Error);
  EXPECT_TRUE(same_bytes(student.named_parameters()[0].second.detach(), w1));
}

}  // namespace
}  // namespace retort::test
