// CUDA kernels of pooling and their launch configuration. Neighbouring threads take neighbouring
// channels, so every access is coalesced; each output is written by one thread, in a fixed order.
#pragma once
#include "kernels/pool/pool.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// Windows [first, last) of outputs that hold position h.
SIMT_D void pool_windows(std::int64_t h, int stride, int padding, int kernel, std::int64_t outputs,
                         std::int64_t& first, std::int64_t& last) {
  const std::int64_t below = h + padding - kernel;
  first = below < 0 ? 0 : below / stride + 1;
  last = (h + padding) / stride + 1;
  if (last > outputs) last = outputs;
}

// One thread per output (n, p, q, c), grid-stride. Shared: none. Launch: block 256.
template <class T>
__global__ void __launch_bounds__(256)
    max_pool_thread_per_output_kernel(const T* x, T* y, std::uint8_t* winner, PoolSizes s) {
  using A = accumulator_t<T>;
  const std::int64_t total = s.batch * s.out_height * s.out_width * s.channels;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % s.channels, pixel = o / s.channels;
    const std::int64_t q = pixel % s.out_width, p = pixel / s.out_width % s.out_height;
    const std::int64_t n = pixel / s.out_width / s.out_height;
    A best = 0;
    int won = -1;
    for (int i = 0; i < s.kernel_h; ++i)
      for (int j = 0; j < s.kernel_w; ++j) {
        const std::int64_t h = p * s.stride - s.padding + i, w = q * s.stride - s.padding + j;
        if (h < 0 || w < 0 || h >= s.height || w >= s.width) continue;
        const A v = to_float(x[((n * s.height + h) * s.width + w) * s.channels + c]);
        if (won < 0 || v > best || v != v) best = v, won = i * s.kernel_w + j;
      }
    y[o] = from_float<T>(best);
    winner[o] = static_cast<std::uint8_t>(won);
  }
}

// One thread per input (n, h, w, c), grid-stride. Shared: none. Launch: block 256.
template <class T>
__global__ void __launch_bounds__(256)
    max_pool_backward_thread_per_input_kernel(const T* dy, const std::uint8_t* winner, T* dx,
                                              PoolSizes s) {
  using A = accumulator_t<T>;
  const std::int64_t total = s.batch * s.height * s.width * s.channels;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % s.channels, pixel = o / s.channels;
    const std::int64_t w = pixel % s.width, h = pixel / s.width % s.height;
    const std::int64_t n = pixel / s.width / s.height;
    std::int64_t p_begin, p_end, q_begin, q_end;
    pool_windows(h, s.stride, s.padding, s.kernel_h, s.out_height, p_begin, p_end);
    pool_windows(w, s.stride, s.padding, s.kernel_w, s.out_width, q_begin, q_end);
    A sum = 0;
    for (std::int64_t p = p_begin; p < p_end; ++p)
      for (std::int64_t q = q_begin; q < q_end; ++q) {
        const std::int64_t at = ((n * s.out_height + p) * s.out_width + q) * s.channels + c;
        const std::int64_t k =
            (h + s.padding - p * s.stride) * s.kernel_w + w + s.padding - q * s.stride;
        if (winner[at] == k) sum += to_float(dy[at]);
      }
    dx[o] = from_float<T>(sum);
  }
}

// One thread per output (n, p, q, c), grid-stride. Shared: none. Launch: block 256.
template <class T>
__global__ void __launch_bounds__(256)
    average_pool_thread_per_output_kernel(const T* x, T* y, PoolSizes s) {
  using A = accumulator_t<T>;
  const std::int64_t total = s.batch * s.out_height * s.out_width * s.channels;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const A count = static_cast<A>(s.kernel_h) * static_cast<A>(s.kernel_w);
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % s.channels, pixel = o / s.channels;
    const std::int64_t q = pixel % s.out_width, p = pixel / s.out_width % s.out_height;
    const std::int64_t n = pixel / s.out_width / s.out_height;
    A sum = 0;
    for (int i = 0; i < s.kernel_h; ++i) {
      const std::int64_t h = p * s.stride - s.padding + i;
      if (h < 0 || h >= s.height) continue;
      for (int j = 0; j < s.kernel_w; ++j) {
        const std::int64_t w = q * s.stride - s.padding + j;
        if (w < 0 || w >= s.width) continue;
        sum += to_float(x[((n * s.height + h) * s.width + w) * s.channels + c]);
      }
    }
    y[o] = from_float<T>(sum / count);
  }
}

// One thread per input (n, h, w, c), grid-stride. Shared: none. Launch: block 256.
template <class T>
__global__ void __launch_bounds__(256)
    average_pool_backward_thread_per_input_kernel(const T* dy, T* dx, PoolSizes s) {
  using A = accumulator_t<T>;
  const std::int64_t total = s.batch * s.height * s.width * s.channels;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const A count = static_cast<A>(s.kernel_h) * static_cast<A>(s.kernel_w);
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t c = o % s.channels, pixel = o / s.channels;
    const std::int64_t w = pixel % s.width, h = pixel / s.width % s.height;
    const std::int64_t n = pixel / s.width / s.height;
    std::int64_t p_begin, p_end, q_begin, q_end;
    pool_windows(h, s.stride, s.padding, s.kernel_h, s.out_height, p_begin, p_end);
    pool_windows(w, s.stride, s.padding, s.kernel_w, s.out_width, q_begin, q_end);
    A sum = 0;
    for (std::int64_t p = p_begin; p < p_end; ++p)
      for (std::int64_t q = q_begin; q < q_end; ++q)
        sum += to_float(dy[((n * s.out_height + p) * s.out_width + q) * s.channels + c]);
    dx[o] = from_float<T>(sum / count);
  }
}

inline unsigned pool_blocks(std::int64_t elements) {
  const std::int64_t blocks = (elements + 255) / 256;
  return static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
}
inline std::int64_t pool_inputs(const PoolSizes& s) {
  return s.batch * s.height * s.width * s.channels;
}
inline std::int64_t pool_outputs(const PoolSizes& s) {
  return s.batch * s.out_height * s.out_width * s.channels;
}

}  // namespace SIMT_NS

inline void max_pool_launch(const Context& context, const MaxPoolArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "max_pool", [&]<class T>() {
    simt::launch({"max_pool", dim3(pool_blocks(pool_outputs(args.sizes))), dim3(256), 0,
                  static_cast<cudaStream_t>(context.stream)},
                 max_pool_thread_per_output_kernel<T>, static_cast<const T*>(args.x),
                 static_cast<T*>(args.y), args.winner, args.sizes);
  });
}
inline void max_pool_backward_launch(const Context& context, const MaxPoolBackwardArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "max_pool_backward", [&]<class T>() {
    simt::launch({"max_pool_backward", dim3(pool_blocks(pool_inputs(args.sizes))), dim3(256), 0,
                  static_cast<cudaStream_t>(context.stream)},
                 max_pool_backward_thread_per_input_kernel<T>, static_cast<const T*>(args.dy),
                 args.winner, static_cast<T*>(args.dx), args.sizes);
  });
}
inline void average_pool_launch(const Context& context, const AveragePoolArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "average_pool", [&]<class T>() {
    simt::launch({"average_pool", dim3(pool_blocks(pool_outputs(args.sizes))), dim3(256), 0,
                  static_cast<cudaStream_t>(context.stream)},
                 average_pool_thread_per_output_kernel<T>, static_cast<const T*>(args.x),
                 static_cast<T*>(args.y), args.sizes);
  });
}
inline void average_pool_backward_launch(const Context& context,
                                         const AveragePoolBackwardArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "average_pool_backward", [&]<class T>() {
    simt::launch({"average_pool_backward", dim3(pool_blocks(pool_inputs(args.sizes))), dim3(256), 0,
                  static_cast<cudaStream_t>(context.stream)},
                 average_pool_backward_thread_per_input_kernel<T>, static_cast<const T*>(args.dy),
                 static_cast<T*>(args.dx), args.sizes);
  });
}

}  // namespace retort::kernels
