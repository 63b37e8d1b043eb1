#include "kernels/common/check.h"

#include <gtest/gtest.h>

#include "tests/support/locale.h"

namespace retort::test {
namespace {

TEST(Check, messages_do_not_depend_on_the_programs_locale) {
  const CommaLocale locale;
  EXPECT_EQ(join(0.5, " ", 1234567), "0.5 1234567");
}

}  // namespace
}  // namespace retort::test
