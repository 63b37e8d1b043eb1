// CUDA kernels of the bias ops and their launch configuration. No atomics: the bias gradient is
// added from bands of rows in order.
#pragma once
#include "kernels/bias/bias.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kBiasThreads = 256;

// One thread per pack of a row; threadIdx.x and blockIdx.x go over columns, blockIdx.y over rows.
// Shared: none. Launch: any grid; kWidth > 1 wants aligned pointers and columns a multiple of it.
template <class T, int kWidth, Activation kF>
__global__ void __launch_bounds__(kBiasThreads)
    bias_thread_per_pack_kernel(T* y, const T* x, const T* bias, std::int64_t rows,
                                std::int64_t columns) {
  using A = accumulator_t<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x * kWidth;
  for (std::int64_t c = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kWidth; c < columns;
       c += step) {
    const auto r_bias = load_pack<kWidth>(bias + c);
    for (std::int64_t r = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; r < rows;
         r += std::int64_t{gridDim.y} * blockDim.y) {
      const auto in = load_pack<kWidth>(x + r * columns + c);
      Pack<T, kWidth> out;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const A v = to_float(in.v[k]) + to_float(r_bias.v[k]);
        out.v[k] = from_float<T>(activate<kF>(v));
      }
      store_pack(y + r * columns + c, out);
    }
  }
}

// Block (x, y): 32 columns times one band of rows; warp w takes rows w, w + 8, ... of the band, so
// that a warp reads 32 neighbours. Writes dx = dy f'(z) and partial[band, column].
// Shared: 8 x 32 doubles. Launch: grid (ceil(columns / 32), bands), block 256.
template <class T, Activation kF>
__global__ void __launch_bounds__(kBiasThreads)
    bias_backward_block_per_band_kernel(T* dx, double* partial, const T* dy, const T* saved,
                                        const T* bias, std::int64_t rows, std::int64_t columns,
                                        std::int64_t band) {
  using A = accumulator_t<T>;
  SIMT_SHARED(double, part, [kBiasThreads / 32][32]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + lane;
  const std::int64_t begin = std::int64_t{blockIdx.y} * band,
                     end = begin + band < rows ? begin + band : rows;
  A mine = 0;
  [[maybe_unused]] const A shift = bias != nullptr && c < columns ? A(to_float(bias[c])) : A(0);
  if (c < columns)
    for (std::int64_t r = begin + warp; r < end; r += kBiasThreads / 32) {
      A v = to_float(dy[r * columns + c]);
      if constexpr (kF != Activation::kNone) {
        v = activate_backward<kF>(v, A(to_float(saved[r * columns + c])) + shift);
        dx[r * columns + c] = from_float<T>(v);
      }
      mine += v;
    }
  part[warp][lane] = static_cast<double>(mine);
  __syncthreads();
  if (warp != 0 || c >= columns) return;
  double sum = 0;
  for (int w = 0; w < kBiasThreads / 32; ++w) sum += part[w][lane];
  partial[blockIdx.y * columns + c] = sum;
}

// dbias[c] = sum over bands. One thread per column.
template <class T>
__global__ void __launch_bounds__(kBiasThreads)
    bias_backward_thread_per_column_kernel(T* dbias, const double* partial, std::int64_t bands,
                                           std::int64_t columns) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kBiasThreads + threadIdx.x;
  if (c >= columns) return;
  double sum = 0;
  for (std::int64_t b = 0; b < bands; ++b) sum += partial[b * columns + c];
  dbias[c] = from_float<T>(static_cast<accumulator_t<T>>(sum));
}

}  // namespace SIMT_NS

inline void bias_launch(const Context& context, const BiasArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, "bias", [&]<class T>() {
    constexpr int kPack = sizeof(T) == 8 ? 1 : 16 / sizeof(T);  // two f64 at a time spill in erf
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    const T* const bias = static_cast<const T*>(args.bias);
    const auto run = [&](auto width) {
      constexpr int kW = decltype(width)::value;
      const std::int64_t packs = (args.columns + kW - 1) / kW;
      // Narrow rows share a block.
      int across = kBiasThreads;
      while (across > 1 && across / 2 >= packs) across /= 2;
      const int down = kBiasThreads / across;
      const std::int64_t row_blocks = (args.rows + 4 * down - 1) / (4 * down);
      const simt::LaunchConfig config{
          "bias",
          dim3(blocks_for(packs, 1, across),
               static_cast<unsigned>(row_blocks < 65535 ? row_blocks : 65535)),
          dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0,
          static_cast<cudaStream_t>(context.stream)};
      dispatch_activation(args.activation, [&]<Activation kF>() {
        simt::launch(config, bias_thread_per_pack_kernel<T, kW, kF>, y, x, bias, args.rows,
                     args.columns);
      });
    };
    if (kPack > 1 && packs_aligned<kPack>(y, x, bias) && args.columns % kPack == 0)
      run(std::integral_constant<int, kPack>{});
    else
      run(std::integral_constant<int, 1>{});
  });
}

inline void bias_backward_launch(const Context& context, const BiasBackwardArgs& args) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  // At least 64 rows a band, and at most 256 bands: from the sizes alone.
  const std::int64_t even = (args.rows + 255) / 256, band = even < 64 ? 64 : even;
  const std::int64_t bands = (args.rows + band - 1) / band;
  double* const partial = static_cast<double*>(
      context.scratch->get(static_cast<std::size_t>(bands * args.columns + 1) * sizeof(double)));
  dispatch_float(args.dtype, "bias_backward", [&]<class T>() {
    if (bands > 0)
      dispatch_activation(args.activation, [&]<Activation kF>() {
        simt::launch(
            {"bias_backward",
             dim3(static_cast<unsigned>((args.columns + 31) / 32), static_cast<unsigned>(bands)),
             kBiasThreads, 0, stream},
            bias_backward_block_per_band_kernel<T, kF>, static_cast<T*>(args.dx), partial,
            static_cast<const T*>(args.dy), static_cast<const T*>(args.saved),
            static_cast<const T*>(args.bias), args.rows, args.columns, band);
      });
    if (args.dbias)
      simt::launch(
          {"bias_backward", static_cast<unsigned>((args.columns + kBiasThreads - 1) / kBiasThreads),
           kBiasThreads, 0, stream},
          bias_backward_thread_per_column_kernel<T>, static_cast<T*>(args.dbias), partial, bands,
          args.columns);
  });
}

}  // namespace retort::kernels
