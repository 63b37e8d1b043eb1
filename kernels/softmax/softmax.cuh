// CUDA kernels of softmax and its backward, and their launch configuration.
#pragma once
#include "kernels/common/row_io.cuh"
#include "kernels/softmax/softmax.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr float kSoftmaxLog2E = 1.4426950408889634f;
inline constexpr int kSoftmaxWarpClasses = 1024;  // up to here one warp takes a row, else a block
inline constexpr int kSoftmaxBlock = 256;

/// Sum or maximum over a warp, or over a block through `shared` (a float a warp).
template <int kThreads, bool kMax>
SIMT_D float row_reduce(float x, [[maybe_unused]] float* shared) {
  x = kMax ? warp_max(x) : warp_sum(x);
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[0];
    for (int w = 1; w < kThreads / 32; ++w) x = kMax ? fmaxf(x, shared[w]) : x + shared[w];
  }
  return x;
}

// One warp (four rows a block) or one block per row; chunk c of 16 bytes belongs to thread
// c mod kThreads, which alone reads and writes it, so y may be x.
// Shared: a float a warp where a block takes the row. Launch: any rows, classes < 2^31 - 2^13.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads == 32 ? 128 : kThreads)
    softmax_row_kernel(T* y_base, const T* x_base, std::int64_t rows, int classes,
                       std::int64_t y_pitch, std::int64_t x_pitch, bool log) {
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_SHARED(float, shared, [kThreads / 32]);
  const std::int64_t i = row_of_thread<kThreads>();
  if (i >= rows) return;
  const int rank = rank_in_row<kThreads>();
  const T* const x = x_base + i * x_pitch;
  T* const y = y_base + i * y_pitch;
  const int phase = phase_of(x);
  const bool whole = phase_of(y) == phase;
  const int first = whole ? -phase : 0;
  const int chunks = (classes - first + kVec - 1) / kVec;
  float max = -3.402823466e38f, sum = 0.0f;  // finite: -inf - -inf would be NaN
  for (int c = rank; c < chunks; c += kThreads) {
    float v[kVec];
    load_chunk(x, first + c * kVec, classes, whole, v);
    float higher = max;
#pragma unroll
    for (int j = 0; j < kVec; ++j) higher = fmaxf(higher, v[j]);
    if (higher > max) sum *= exp2_approx((max - higher) * kSoftmaxLog2E);
    max = higher;
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum += exp2_approx((v[j] - max) * kSoftmaxLog2E);
  }
  const float top = row_reduce<kThreads, true>(max, shared);
  sum = row_reduce<kThreads, false>(sum * exp2_approx((max - top) * kSoftmaxLog2E), shared);
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum, log_sum = sum == 0.0f ? 0.0f : logf(sum);
  for (int c = rank; c < chunks; c += kThreads) {
    float v[kVec];
    load_chunk(x, first + c * kVec, classes, whole, v);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float d = v[j] - top;
      v[j] = log ? d - log_sum : exp2_approx(d * kSoftmaxLog2E) * inverse;
    }
    store_chunk(y, first + c * kVec, classes, whole, v);
  }
}

// The same mapping. Reads dy and y twice.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads == 32 ? 128 : kThreads)
    softmax_backward_row_kernel(const SoftmaxBackwardArgs a) {
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_SHARED(float, shared, [kThreads / 32]);
  const std::int64_t i = row_of_thread<kThreads>();
  if (i >= a.rows) return;
  const int rank = rank_in_row<kThreads>();
  const int classes = static_cast<int>(a.classes);
  const T* const dy = static_cast<const T*>(a.dy) + i * a.dy_pitch;
  const T* const y = static_cast<const T*>(a.y) + i * a.y_pitch;
  T* const dx = static_cast<T*>(a.dx) + i * a.dx_pitch;
  const int phase = phase_of(y);
  const bool whole = phase_of(dy) == phase && phase_of(dx) == phase;
  const int first = whole ? -phase : 0;
  const int chunks = (classes - first + kVec - 1) / kVec;
  float sum = 0.0f;
  for (int c = rank; c < chunks; c += kThreads) {
    const int at = first + c * kVec;
    float g[kVec], p[kVec] = {};
    load_chunk(dy, at, classes, whole, g);
    if (!a.log) load_chunk(y, at, classes, whole, p);
#pragma unroll
    for (int j = 0; j < kVec; ++j)
      if (at + j >= 0 && at + j < classes) sum += a.log ? g[j] : g[j] * p[j];
  }
  sum = row_reduce<kThreads, false>(sum, shared);
  for (int c = rank; c < chunks; c += kThreads) {
    const int at = first + c * kVec;
    float g[kVec], p[kVec];
    load_chunk(dy, at, classes, whole, g);
    load_chunk(y, at, classes, whole, p);
#pragma unroll
    for (int j = 0; j < kVec; ++j)
      g[j] = a.log ? g[j] - exp2_approx(p[j] * kSoftmaxLog2E) * sum : (g[j] - sum) * p[j];
    store_chunk(dx, at, classes, whole, g);
  }
}

}  // namespace SIMT_NS

template <class F>
void softmax_dispatch_cuda(const char* name, DType dtype, std::int64_t rows, std::int64_t classes,
                           F&& f) {
  RETORT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "[", name,
               "] expected f32 or bf16 on cuda, got ", name_of(dtype));
  RETORT_CHECK(rows < std::int64_t{1} << 31 && classes < (std::int64_t{1} << 31) - 8192, "[", name,
               "] expected fewer than 2^31 rows and 2^31 - 8192 classes, got ", rows, ", ",
               classes);
  if (dtype == DType::kF32)
    f.template operator()<float>();
  else
    f.template operator()<bf16>();
}

inline void softmax_launch(const Context& context, const SoftmaxArgs& a) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  softmax_dispatch_cuda("softmax", a.dtype, a.rows, a.classes, [&]<class T>() {
    const bool warp = a.classes <= kSoftmaxWarpClasses;
    simt::launch({"softmax", static_cast<unsigned>(warp ? (a.rows + 3) / 4 : a.rows),
                  warp ? 128u : static_cast<unsigned>(kSoftmaxBlock), 0, stream},
                 warp ? softmax_row_kernel<T, 32> : softmax_row_kernel<T, kSoftmaxBlock>,
                 static_cast<T*>(a.y), static_cast<const T*>(a.x), a.rows,
                 static_cast<int>(a.classes), a.y_pitch, a.x_pitch, a.log);
  });
}

inline void softmax_backward_launch(const Context& context, const SoftmaxBackwardArgs& a) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  softmax_dispatch_cuda("softmax_backward", a.dtype, a.rows, a.classes, [&]<class T>() {
    const bool warp = a.classes <= kSoftmaxWarpClasses;
    simt::launch(
        {"softmax_backward", static_cast<unsigned>(warp ? (a.rows + 3) / 4 : a.rows),
         warp ? 128u : static_cast<unsigned>(kSoftmaxBlock), 0, stream},
        warp ? softmax_backward_row_kernel<T, 32> : softmax_backward_row_kernel<T, kSoftmaxBlock>,
        a);
  });
}

}  // namespace retort::kernels
