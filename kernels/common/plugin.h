// What a <op>_cuda.cu file says to be found by the plug-in. The file is compiled twice: by nvcc for
// the GPU, and by the host compiler into the emulated plug-in (kernels/simt), from the same text.
#pragma once
#include <cstdio>
#include <exception>

#include "kernels/common/dispatch.h"

namespace retort {

/// The one place where exceptions end at the plug-in's boundary: f may throw, the Status says what.
template <class F>
Status status_of(F&& f) noexcept {
  Status status;
  try {
    f();
  } catch (const Error& e) {
    status.code = e.code();
    std::snprintf(status.message, sizeof status.message, "%s", e.what());
  } catch (const std::exception& e) {
    status.code = ErrorCode::kDevice;
    std::snprintf(status.message, sizeof status.message, "%s", e.what());
  }
  return status;
}

/// Turns a launcher that may throw into the noexcept function the op's pointer wants.
template <class Args, void (*Launch)(const Context&, const Args&)>
Status guarded(const Context& context, const Args& args) noexcept {
  return status_of([&] { Launch(context, args); });
}

}  // namespace retort

/// RETORT_CUDA_BIND(foo, FooArgs): inside RETORT_CUDA_PLUGIN, points foo_cuda at foo_launch.
#define RETORT_CUDA_BIND(op, Args) op##_cuda = ::retort::guarded<Args, op##_launch>

/// RETORT_CUDA_PLUGIN(folder) { RETORT_CUDA_BIND(foo, FooArgs); ... }: run once when the plug-in
/// loads. The build generates the list of folders from the retort_add_op calls.
#define RETORT_CUDA_PLUGIN(folder) extern "C" void retort_bind_##folder()
