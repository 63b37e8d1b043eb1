// What an action throws, for tests that read its message.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "kernels/common/check.h"

namespace retort::test {

/// The message of the Error that f throws, which must have this code; "accepted" if it throws none.
std::string error_of(auto&& f, ErrorCode code) {
  try {
    f();
    return "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
}

}  // namespace retort::test
