// Hand-written matrix product: the emulated backend's gemm, and on CUDA the fallback for what
// cuBLASLt refuses (the plug-in puts cuBLASLt in front: kernels/plugin/gemm_cublaslt.cpp).
#pragma once
#include "kernels/gemm/gemm.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kGemmTile = 64, kGemmDepth = 16, kGemmThreads = 256;

template <class T>
struct GemmParams {
  T* c;
  const T *a, *b, *bias;
  std::int64_t m, n, k, lda, ldb, ldc;
  accumulator_t<T> alpha, beta;
  bool relu;
};

// A thread's four neighbours are 16-byte accesses; the 4 extra columns spread the banks.
template <class Sum>
struct alignas(16) GemmLine {
  Sum v[kGemmTile + 4];
};

// One block per 64 x 64 tile of C; a thread owns 4 x 4 elements. K in steps of 16 through shared
// memory. Neighbouring threads load neighbouring addresses whichever way A and B are stored.
// Shared: 2 x 16 x 68 accumulators. Launch: grid (tiles across N, tiles down M), block 256.
template <class T, bool kTransposeA, bool kTransposeB>
__global__ void __launch_bounds__(kGemmThreads, 2) gemm_block_per_tile_kernel(GemmParams<T> p) {
  using Sum = accumulator_t<T>;
  SIMT_SHARED(GemmLine<Sum>, a_tile, [kGemmDepth]);
  SIMT_SHARED(GemmLine<Sum>, b_tile, [kGemmDepth]);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row0 = std::int64_t{blockIdx.y} * kGemmTile,
                     column0 = std::int64_t{blockIdx.x} * kGemmTile;
  const int my_row = thread / 16 * 4, my_column = thread % 16 * 4;
  Sum sum[4][4];
  for (auto& line : sum)
    for (Sum& s : line) s = 0;

  for (std::int64_t k0 = 0; k0 < p.k; k0 += kGemmDepth) {
    for (int i = thread; i < kGemmTile * kGemmDepth; i += kGemmThreads) {
      const int row = kTransposeA ? i % kGemmTile : i / kGemmDepth,
                depth = kTransposeA ? i / kGemmTile : i % kGemmDepth;
      const std::int64_t r = row0 + row, q = k0 + depth;
      Sum value = 0;
      if (r < p.m && q < p.k) value = to_float(p.a[kTransposeA ? q * p.lda + r : r * p.lda + q]);
      a_tile[depth].v[row] = value;
    }
    for (int i = thread; i < kGemmTile * kGemmDepth; i += kGemmThreads) {
      const int column = kTransposeB ? i / kGemmDepth : i % kGemmTile,
                depth = kTransposeB ? i % kGemmDepth : i / kGemmTile;
      const std::int64_t c = column0 + column, q = k0 + depth;
      Sum value = 0;
      if (c < p.n && q < p.k) value = to_float(p.b[kTransposeB ? c * p.ldb + q : q * p.ldb + c]);
      b_tile[depth].v[column] = value;
    }
    __syncthreads();
#pragma unroll 4
    for (int depth = 0; depth < kGemmDepth; ++depth)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sum[i][j] += a_tile[depth].v[my_row + i] * b_tile[depth].v[my_column + j];
    __syncthreads();
  }

  // The sums of rows 4 l + half and 4 l + half + 1 go through the tiles, so that neighbouring threads
  // store neighbouring elements.
  static_assert(kGemmThreads / 16 == kGemmDepth);
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    if (half != 0) __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      a_tile[thread / 16].v[my_column + j] = sum[half][j];
      b_tile[thread / 16].v[my_column + j] = sum[half + 1][j];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 2 * kGemmDepth * kGemmTile / kGemmThreads; ++k) {
      const int i = k * kGemmThreads + thread, line = i / kGemmTile % kGemmDepth,
                column = i % kGemmTile, second = i / (kGemmDepth * kGemmTile);
      const std::int64_t r = row0 + 4 * line + half + second, c = column0 + column;
      if (r >= p.m || c >= p.n) continue;
      T& out = p.c[r * p.ldc + c];
      Sum value = p.alpha * (second == 0 ? a_tile : b_tile)[line].v[column];
      if (p.beta != 0) value += p.beta * to_float(out);
      if (p.bias != nullptr) value += to_float(p.bias[c]);
      if (p.relu && value < 0) value = 0;
      out = from_float<T>(value);
    }
  }
}

// c := f(z). One thread per element; blockIdx.y strides over rows, x over columns.
// Shared: none. Launch: any grid.
template <class T, Activation kF>
__global__ void __launch_bounds__(256)
    gemm_activate_thread_per_element_kernel(T* c, const T* z, std::int64_t m, std::int64_t n,
                                            std::int64_t ldc) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t r = blockIdx.y; r < m; r += gridDim.y)
#pragma unroll 1  // several at a time spill in tanh
    for (std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; j < n; j += step)
      c[r * ldc + j] = from_float<T>(activate<kF>(accumulator_t<T>(to_float(z[r * ldc + j]))));
}

}  // namespace SIMT_NS

// Relu is part of the product's kernel. What needs more registers, or Z, is a pass of its own: this
// product is not what anything waits for where there is cuBLASLt.
inline void gemm_launch(const Context& context, const GemmArgs& args) {
  using namespace SIMT_NS;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const auto across = static_cast<unsigned>((args.n + kGemmTile - 1) / kGemmTile),
             down = static_cast<unsigned>((args.m + kGemmTile - 1) / kGemmTile);
  RETORT_CHECK(down <= 65535, "[gemm] expected M <= ", 65535 * kGemmTile, ", got ", args.m);
  void* const z = args.pre_activation != nullptr ? args.pre_activation : args.c;
  const bool relu = z == args.c && args.activation == Activation::kRelu;
  dispatch_float(args.dtype, "gemm", [&]<class T>() {
    dispatch_bool(args.transpose_a, [&](auto ta) {
      dispatch_bool(args.transpose_b, [&](auto tb) {
        simt::launch({"gemm", dim3(across, down), kGemmThreads, 0, stream},
                     gemm_block_per_tile_kernel<T, decltype(ta)::value, decltype(tb)::value>,
                     GemmParams<T>{static_cast<T*>(z), static_cast<const T*>(args.a),
                                   static_cast<const T*>(args.b), static_cast<const T*>(args.bias),
                                   args.m, args.n, args.k, args.lda, args.ldb, args.ldc,
                                   static_cast<accumulator_t<T>>(args.alpha),
                                   static_cast<accumulator_t<T>>(args.beta), relu});
      });
    });
    if (z == args.c && (relu || args.activation == Activation::kNone)) return;
    const dim3 grid(static_cast<unsigned>((args.n + 255) / 256),
                    static_cast<unsigned>(args.m < 65535 ? args.m : 65535));
    dispatch_activation(args.activation, [&]<Activation kF>() {
      simt::launch({"gemm_activate", grid, 256, 0, stream},
                   gemm_activate_thread_per_element_kernel<T, kF>, static_cast<T*>(args.c),
                   static_cast<const T*>(z), args.m, args.n, args.ldc);
    });
  });
}

}  // namespace retort::kernels
