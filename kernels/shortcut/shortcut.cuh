// CUDA kernels of the option-A shortcut and their launch configuration.
#pragma once
#include "kernels/shortcut/shortcut.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// One thread per element of y (N, P, Q, K), grid-stride. Only bits move: U is an unsigned integer
// of the element's size. Shared: none. Launch: block 256.
template <class U>
__global__ void __launch_bounds__(256)
    shortcut_thread_per_output_kernel(const U* x, U* y, std::int64_t batch, std::int64_t height,
                                      std::int64_t width, std::int64_t channels,
                                      std::int64_t out_channels, int stride) {
  const std::int64_t out_h = (height + stride - 1) / stride, out_w = (width + stride - 1) / stride;
  const std::int64_t total = batch * out_h * out_w * out_channels;
  const std::int64_t before = (out_channels - channels) / 2;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % out_channels - before, pixel = o / out_channels;
    const std::int64_t q = pixel % out_w, p = pixel / out_w % out_h, n = pixel / out_w / out_h;
    const bool inside = c >= 0 && c < channels;
    y[o] = inside ? x[((n * height + p * stride) * width + q * stride) * channels + c] : U{0};
  }
}

// One thread per element of dx (N, H, W, C), grid-stride. Shared: none. Launch: block 256.
template <class U>
__global__ void __launch_bounds__(256)
    shortcut_backward_thread_per_input_kernel(const U* dy, U* dx, std::int64_t batch,
                                              std::int64_t height, std::int64_t width,
                                              std::int64_t channels, std::int64_t out_channels,
                                              int stride) {
  const std::int64_t out_h = (height + stride - 1) / stride, out_w = (width + stride - 1) / stride;
  const std::int64_t total = batch * height * width * channels;
  const std::int64_t before = (out_channels - channels) / 2;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % channels, pixel = o / channels;
    const std::int64_t w = pixel % width, h = pixel / width % height, n = pixel / width / height;
    const bool taken = h % stride == 0 && w % stride == 0;
    dx[o] = taken ? dy[((n * out_h + h / stride) * out_w + w / stride) * out_channels + before + c]
                  : U{0};
  }
}

inline unsigned shortcut_blocks(std::int64_t elements) {
  const std::int64_t blocks = (elements + 255) / 256;
  return static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
}

// Calls f<U>() with the unsigned integer of the dtype's size.
template <class F>
void shortcut_dispatch(DType dtype, F&& f) {
  switch (size_of(dtype)) {
    case 8: return f.template operator()<std::uint64_t>();
    case 4: return f.template operator()<std::uint32_t>();
    case 2: return f.template operator()<std::uint16_t>();
    default: return f.template operator()<std::uint8_t>();
  }
}

}  // namespace SIMT_NS

inline void shortcut_launch(const Context& context, const ShortcutArgs& a) {
  using namespace SIMT_NS;
  const std::int64_t out_h = (a.height + a.stride - 1) / a.stride;
  const std::int64_t out_w = (a.width + a.stride - 1) / a.stride;
  shortcut_dispatch(a.dtype, [&]<class U>() {
    simt::launch({"shortcut", dim3(shortcut_blocks(a.batch * out_h * out_w * a.out_channels)),
                  dim3(256), 0, static_cast<cudaStream_t>(context.stream)},
                 shortcut_thread_per_output_kernel<U>, static_cast<const U*>(a.x),
                 static_cast<U*>(a.y), a.batch, a.height, a.width, a.channels, a.out_channels,
                 a.stride);
  });
}
inline void shortcut_backward_launch(const Context& context, const ShortcutBackwardArgs& a) {
  using namespace SIMT_NS;
  shortcut_dispatch(a.dtype, [&]<class U>() {
    simt::launch(
        {"shortcut_backward", dim3(shortcut_blocks(a.batch * a.height * a.width * a.channels)),
         dim3(256), 0, static_cast<cudaStream_t>(context.stream)},
        shortcut_backward_thread_per_input_kernel<U>, static_cast<const U*>(a.dy),
        static_cast<U*>(a.dx), a.batch, a.height, a.width, a.channels, a.out_channels, a.stride);
  });
}

}  // namespace retort::kernels
