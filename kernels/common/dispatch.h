// One function pointer per op joins the library and the CUDA plug-in.
//
// An op `foo` declares in foo.h
//     void foo_cpu(const Context&, const FooArgs&);
//     extern CudaOp<FooArgs> foo_cuda;            // defined in foo_cpu.cpp, null until filled
//     inline void foo(const Context& c, const FooArgs& a) {
//       ...checks...
//       dispatch("foo", c, a, foo_cpu, foo_cuda);
//     }
// and in foo_cuda.cu (plug-in only)
//     void foo_launch(const Context&, const FooArgs&);      // launches; throws Error on a refusal
//     RETORT_CUDA_PLUGIN(foo) { bind(foo_cuda, foo_launch) ... }     // see kernels/common/plugin.h
#pragma once
#include <cstdio>

#include "kernels/common/check.h"
#include "kernels/common/context.h"

namespace retort {

/// Result of a plug-in call. No exception crosses that boundary.
struct Status {
  ErrorCode code = ErrorCode::kOk;
  char message[252] = {};
};

template <class Args>
using CudaOp = Status (*)(const Context&, const Args&) noexcept;

[[noreturn]] inline void throw_no_cuda(const char* op) {
  fail(ErrorCode::kDevice, "[", op,
       "] this process has no CUDA backend: no plug-in with this op is loaded");
}

/// Runs the op on the context's device. Throws Error(kDevice) if there is no CUDA backend.
template <class Args>
void dispatch(const char* op, const Context& context, const Args& args,
              void (*cpu)(const Context&, const Args&), CudaOp<Args> cuda) {
  if (context.device == Device::kCpu) return cpu(context, args);
  if (cuda == nullptr) throw_no_cuda(op);
  const Status status = cuda(context, args);
  if (status.code != ErrorCode::kOk) throw Error(status.code, join("[", op, "] ", status.message));
}

}  // namespace retort
