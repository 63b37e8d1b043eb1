// Opening a plug-in without trusting it: what is broken is a sentence, not a signal.
#pragma once
#include <string>

#include "kernels/common/cuda_runtime.h"

namespace retort {

/// "" if the file is whole and a shared library for this machine, else what is wrong with it. The
/// loader maps what the headers promise, and a page that a cut file does not have is a SIGBUS; so
/// the promises are compared with the file first.
std::string plugin_file_problem(const std::string& path);

/// Opens the plug-in, checks that it was built from our headers, lets it bind its ops and fill
/// `runtime`. "" if all went well, else one sentence, and `runtime` is empty. A library that was
/// opened stays open for the life of the process.
std::string open_plugin(const std::string& path, CudaRuntime* runtime);

}  // namespace retort
