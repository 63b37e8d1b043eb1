// What files and logs have in common: how a failed call is told, and where a test makes one fail.
// Private to engine/io.
#pragma once
#include <string>
#include <system_error>

#include "engine/io/file.h"

namespace retort::detail {

[[noreturn]] inline void refuse(const std::string& path, const char* what, int code) {
  fail(ErrorCode::kIo, escaped(path, 4096), ": cannot ", what, ": ",
       std::generic_category().message(code));
}

/// What a test wants to happen instead of the call: an errno, or 0.
inline int injected(const char* call, const std::string& path) {
  return before_io ? before_io(call, path) : 0;
}

}  // namespace retort::detail
