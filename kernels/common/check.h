// Errors of the whole library: every failure a caller can meet is a retort::Error whose code is
// also the exit status that the tools document.
#pragma once
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace retort {

/// What kind of failure this is. The values are the exit codes of the command line tools.
enum class ErrorCode : int {
  kOk = 0,
  kUsage = 2,     // a caller's or a recipe's mistake: shapes, settings, unknown keys
  kBadInput = 3,  // a file that is not what it should be
  kIo = 4,        // the operating system refused: open, write, disk full
  kMemory = 5,    // out of memory
  kNumerics = 6,  // NaN or infinity where there must be none
  kPeer = 7,      // another rank of a distributed run
  kDevice = 8,    // GPU, driver, plug-in, missing capability
};

/// The one exception type. what() is a plain sentence: "[op] expected ..., got ...".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// Concatenates its arguments through a stream (GCC 12 has no std::format). Numbers look the same
/// in every program, whatever std::locale::global it set.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, join(parts...));
}

}  // namespace retort

/// Throws Error(kUsage) unless cond: for what a caller can get wrong.
#define RETORT_CHECK(cond, ...)                                 \
  do {                                                          \
    if (!(cond)) [[unlikely]]                                   \
      ::retort::fail(::retort::ErrorCode::kUsage, __VA_ARGS__); \
  } while (false)

/// The same with another code: RETORT_CHECK_AS(kBadInput, size == 8, "...").
#define RETORT_CHECK_AS(code, cond, ...)                      \
  do {                                                        \
    if (!(cond)) [[unlikely]]                                 \
      ::retort::fail(::retort::ErrorCode::code, __VA_ARGS__); \
  } while (false)

/// For what only we can get wrong. Compiled out with NDEBUG.
#if defined(NDEBUG)
#define RETORT_ASSERT(cond) static_cast<void>(0)
#else
#define RETORT_ASSERT(cond)                                                                    \
  do {                                                                                         \
    if (!(cond)) throw std::logic_error(::retort::join(__FILE__, ":", __LINE__, ": ", #cond)); \
  } while (false)
#endif
