// RETORT_EXTENSION: the one entry point of a library that adds rows to the registries from outside,
// for `kdtrain --load LIBRARY`.
#pragma once
#include <cstddef>
#include <cstdio>
#include <exception>

#include "kernels/common/check.h"
#include "retort_abi.h"  // generated: RETORT_PUBLIC_HEADERS_HASH

#define RETORT_TEXT_OF_(value) #value
#define RETORT_TEXT_OF(value) RETORT_TEXT_OF_(value)

#if defined(__clang__)
#define RETORT_COMPILER "clang " RETORT_TEXT_OF(__clang_major__)
#else
#define RETORT_COMPILER "gcc " RETORT_TEXT_OF(__GNUC__)
#endif
#if defined(_LIBCPP_VERSION)
#define RETORT_STANDARD_LIBRARY "libc++ " RETORT_TEXT_OF(_LIBCPP_VERSION)
#elif defined(_GLIBCXX_DEBUG)
#define RETORT_STANDARD_LIBRARY "libstdc++ " RETORT_TEXT_OF(_GLIBCXX_RELEASE) " debug"
#else
#define RETORT_STANDARD_LIBRARY \
  "libstdc++ " RETORT_TEXT_OF(_GLIBCXX_RELEASE) " abi " RETORT_TEXT_OF(_GLIBCXX_USE_CXX11_ABI)
#endif

/// What two binaries must have in common to pass C++ objects to each other: the public headers, the
/// compiler's major version, the standard library. It begins with a mark that is looked for in the
/// file, so that nothing of a library with another text is ever run.
#define RETORT_EXTENSION_MARK "retort extension abi: "
#define RETORT_EXTENSION_ABI                                                       \
  RETORT_EXTENSION_MARK "headers " RETORT_PUBLIC_HEADERS_HASH ", " RETORT_COMPILER \
                        ", " RETORT_STANDARD_LIBRARY

namespace retort::nn::detail {

// What an exception says must not cross the C entry point as an exception.
inline int add_rows(void (*rows)(), char* message, std::size_t size) noexcept {
  try {
    rows();
    return 0;
  } catch (const Error& e) {
    std::snprintf(message, size, "%s", e.what());
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    std::snprintf(message, size, "%s", e.what());
  } catch (...) {
    std::snprintf(message, size, "it threw something that is no std::exception");
  }
  return static_cast<int>(ErrorCode::kBadInput);
}

}  // namespace retort::nn::detail

/// Once in a library, outside of any namespace; the block adds the library's rows:
///
///   RETORT_EXTENSION {
///     retort::nn::model_kinds().add(my_model_kind());
///     retort::distill::register_metric(my_metric());
///   }
///
/// It defines two functions of C linkage:
///   retort_extension_abi()                    RETORT_EXTENSION_ABI as this library saw it
///   retort_extension_register(message, size)  runs the block; 0, or an ErrorCode and, in message,
///                                             what was thrown, cut to size - 1 characters
#define RETORT_EXTENSION                                                                 \
  static void retort_extension_rows();                                                   \
  extern "C" __attribute__((visibility("default"))) const char* retort_extension_abi() { \
    return RETORT_EXTENSION_ABI;                                                         \
  }                                                                                      \
  extern "C" __attribute__((visibility("default"))) int retort_extension_register(       \
      char* message, std::size_t size) {                                                 \
    return ::retort::nn::detail::add_rows(&retort_extension_rows, message, size);        \
  }                                                                                      \
  static void retort_extension_rows()
