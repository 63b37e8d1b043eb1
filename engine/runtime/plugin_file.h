// Opening a plug-in without trusting it: what is broken is a sentence, not a signal.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <string>

#include "kernels/common/cuda_runtime.h"

namespace retort {

/// "" if the file is whole and a shared library for this machine, else what is wrong with it. The
/// loader maps what the headers promise, and a page that a cut file does not have is a SIGBUS; so
/// the promises are compared with the file first.
std::string plugin_file_problem(const std::string& path);

/// The folder that libretort itself was loaded from: plug-ins stand beside it.
std::string library_folder();

/// Opens the library `path` after plugin_file_problem, finds its function `entry` and hands it to
/// `bind`, which returns "" or what is wrong with it, and may throw. "" if all went well, else one
/// sentence: "no KIND plug-in: PATH: ...". A library that was opened stays open for the life of the
/// process.
std::string open_plugin_file(const std::string& path, const std::string& kind, const char* entry,
                             const std::function<std::string(void* entry)>& bind);

/// What `bind` says of a plug-in of other headers, and of one whose table has a null.
inline constexpr const char* kOtherHeaders =
    "it was built from other headers than this library: rebuild both";
inline constexpr const char* kNotWhole = "it is not whole: it leaves functions out";

/// True if no function of a table, a struct of pointers to functions, was left out.
template <class Table>
bool is_complete(const Table& table) {
  using Functions = std::array<void*, sizeof(Table) / sizeof(void*)>;
  static_assert(sizeof(Functions) == sizeof(Table));
  const auto functions = std::bit_cast<Functions>(table);
  return std::none_of(functions.begin(), functions.end(), [](void* f) { return f == nullptr; });
}

/// The CUDA plug-in: checks that it was built from our headers, lets it bind its ops and fill
/// `runtime`. "" if all went well, else one sentence, and `runtime` is empty.
std::string open_plugin(const std::string& path, CudaRuntime* runtime);

}  // namespace retort
