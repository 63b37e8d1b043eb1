// Small kernels that ask the backend one thing each. They run on the emulator in every test run,
// and on a GPU where there is one; the two must agree: bit for bit where the answer is defined
// exactly, else within a stated tolerance (conformance.cu).
#pragma once
#include "kernels/common/philox.h"
#include "kernels/simt/tensor_core.h"
#include "kernels/simt/warpgroup.h"

namespace retort::probes {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kWarpWords = 24;

// out[lane][0..23]: shuffles, votes, reductions, ldmatrix. Launch: 1 block of 32.
__global__ void warp_probe(std::uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  std::uint32_t* o = out + lane * kWarpWords;
  const int v = lane * 7 + 3;
  o[0] = static_cast<unsigned>(__shfl_sync(~0u, v, 5));
  o[1] = static_cast<unsigned>(__shfl_sync(~0u, v, lane + 1, 8));
  o[2] = static_cast<unsigned>(__shfl_xor_sync(~0u, v, 9));
  o[3] = static_cast<unsigned>(__shfl_xor_sync(~0u, v, 12, 16));
  o[4] = static_cast<unsigned>(__shfl_up_sync(~0u, v, 3));
  o[5] = static_cast<unsigned>(__shfl_up_sync(~0u, v, 3, 8));
  o[6] = static_cast<unsigned>(__shfl_down_sync(~0u, v, 5));
  o[7] = static_cast<unsigned>(__shfl_down_sync(~0u, v, 5, 8));
  o[8] = __ballot_sync(~0u, lane % 3 == 0);
  o[9] = static_cast<unsigned>(__any_sync(~0u, lane == 31)) |
         static_cast<unsigned>(__all_sync(~0u, lane < 32)) << 1 |
         static_cast<unsigned>(__all_sync(~0u, lane < 31)) << 2;
  o[10] = __reduce_add_sync(~0u, static_cast<unsigned>(v));
  o[11] = static_cast<unsigned>(__reduce_min_sync(~0u, v - 40));
  o[12] = __reduce_xor_sync(~0u, static_cast<unsigned>(v * v));
  o[13] = __match_any_sync(~0u, lane % 5);
  if (lane < 16)
    o[14] = static_cast<unsigned>(__shfl_xor_sync(0xffffu, v, 1));
  else
    o[14] = __reduce_max_sync(0xffff0000u, static_cast<unsigned>(v));
  SIMT_SHARED(bf16x8, tile, [64]);  // 8 x 64 elements numbered 0..511
  for (int i = 0; i < 2; ++i) {
    bf16x8 c;
    for (int j = 0; j < 4; ++j) {
      const int e = (lane * 2 + i) * 8 + 2 * j;
      c.v[j] = {static_cast<std::uint16_t>(e), static_cast<std::uint16_t>(e + 1)};
    }
    tile[lane * 2 + i] = c;
  }
  __syncwarp();
  std::uint32_t r[4];
  ldmatrix_x4(r, &tile[lane * 2]);
  for (int i = 0; i < 4; ++i) o[15 + i] = r[i];
  ldmatrix_x4_trans(r, &tile[lane * 2 + 1]);
  for (int i = 0; i < 4; ++i) o[19 + i] = r[i];
  o[23] = 0;
}

// d = a b + c, the fragments passed through raw. Launch: 1 block of 32.
__global__ void mma_probe(float* d, const std::uint32_t* a, const std::uint32_t* b,
                          const float* c) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::uint32_t fa[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
  float acc[4] = {c[lane * 4], c[lane * 4 + 1], c[lane * 4 + 2], c[lane * 4 + 3]};
  mma_bf16_16x8x16(acc, fa, b[lane * 2], b[lane * 2 + 1]);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = acc[i];
}

// Block-wide votes and the counting atomics. out[0..255] votes, out[256..259] counters (zeroed
// before). Launch: 1 block of 256.
__global__ void block_probe(std::uint32_t* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0), all = __syncthreads_and(t < 256),
            any = __syncthreads_or(t == 77);
  out[t] = static_cast<unsigned>(count) | static_cast<unsigned>(all != 0) << 16 |
           static_cast<unsigned>(any != 0) << 17;
  atomicAdd(&out[256], static_cast<unsigned>(t));
  atomicMax(&out[257], static_cast<unsigned>(t * 31 % 257));
  atomicInc(&out[258], 99u);
  atomicSub(&out[259], 1u);
}

// cp.async of 16 bytes of which t % 17 are read; the rest must become zero. out[t * 4 + i].
// Launch: 1 block of 128.
__global__ void async_copy_probe(std::uint32_t* out, const std::uint32_t* in) {
  SIMT_SHARED(uint4, buffer, [128]);
  const int t = static_cast<int>(threadIdx.x);
  cp_async16(&buffer[t], in + 4 * t, t % 17);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  const uint4 v = buffer[127 - t];
  out[4 * t] = v.x;
  out[4 * t + 1] = v.y;
  out[4 * t + 2] = v.z;
  out[4 * t + 3] = v.w;
}

// Conversions of any float's bits, and the correctly rounded operations. out[8 i ..]. Launch: any.
__global__ void convert_probe(std::uint32_t* out, const std::uint32_t* bits, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const float x = float_from_bits(bits[i]), y = float_from_bits(bits[(i + 1) % n]);
  std::uint32_t* o = out + 8 * i;
  o[0] = to_bf16(x).bits;
  o[1] = pack_bf16(x, y);
  o[2] = to_f16(x).bits;
  // NaN payloads are the one thing IEEE leaves open.
  const float half = to_float(f16{static_cast<std::uint16_t>(bits[i])});
  o[3] = half == half ? bits_from_float(half) : 0x7fffffffu;
  o[4] = bits_from_float(to_float(bf16{static_cast<std::uint16_t>(bits[i] >> 16)}));
  const float quotient = x / y, root = sqrtf(x);
  o[5] = quotient == quotient ? bits_from_float(quotient) : 0x7fffffffu;
  o[6] = root == root ? bits_from_float(root) : 0x7fffffffu;
  o[7] = static_cast<std::uint32_t>(__popc(bits[i])) |
         static_cast<std::uint32_t>(__clz(static_cast<int>(bits[i]))) << 8 |
         static_cast<std::uint32_t>(__ffs(static_cast<int>(bits[i]))) << 16;
}

// Philox and what is drawn from it. out[6 i ..]. Launch: any.
__global__ void philox_probe(std::uint32_t* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const Philox4 r =
      philox(0x123456789abcdefull + static_cast<std::uint64_t>(i), static_cast<std::uint32_t>(i),
             7u * static_cast<std::uint32_t>(i), 3u, path_hash("probe"));
  for (int k = 0; k < 4; ++k) out[6 * i + k] = r.v[k];
  out[6 * i + 4] = bits_from_float(uniform01(r.v[0]));
  out[6 * i + 5] = uniform_below(r.v[1], 1000);
}

// Approximate functions. out[5 i ..] = exp, log, exp2, 1 / sqrt, the sum over the warp. Launch: 1 x
// 256.
__global__ void approximate_probe(float* out, const float* x) {
  const int t = static_cast<int>(threadIdx.x);
  out[5 * t] = exp_approx(x[t]);
  out[5 * t + 1] = log_approx(fabsf(x[t]) + 0.5f);
  out[5 * t + 2] = exp2_approx(x[t]);
  out[5 * t + 3] = rsqrtf(fabsf(x[t]) + 0.5f);
  out[5 * t + 4] = warp_sum(x[t]);
}

struct WarpgroupGemm {
  float* c;           // (m, n)
  const bf16 *a, *b;  // (m, k), (n, k); k a multiple of 64, m padded to 64, n to kColumns
  int m, n, k;
};

// c = a b^T by wgmma, tiles of 64 x kColumns x 64 in three stages, one product under way while the
// next tile is waited for. Shared: 3 * (64 + kColumns) * 128 bytes. Launch: grid (m / 64, n /
// kColumns), block 128. sm_90a only.
template <int kColumns>
__global__ void __launch_bounds__(128) warpgroup_gemm_probe(const WarpgroupGemm p) {
  SIMT_DYNAMIC_SHARED(bf16, tiles);  // [stage][A, B][rows][64]
  constexpr int kStage = (64 + kColumns) * 64;
  const int tid = static_cast<int>(threadIdx.x), m0 = static_cast<int>(blockIdx.x) * 64,
            n0 = static_cast<int>(blockIdx.y) * kColumns;
  const auto load = [&](int tile) {
    bf16* const to = tiles + tile % 3 * kStage;
    const auto rows = [&](bf16* at, const bf16* from, int first, int count, int end) {
      for (int i = tid; i < count * 8; i += 128) {
        const int row = i / 8, c = i % 8;
        cp_async16(at + swizzle128_place(row, c),
                   from + static_cast<std::int64_t>(first + row) * p.k + tile * 64 + c * 8,
                   first + row < end ? 16 : 0);
      }
    };
    rows(to, p.a, m0, 64, p.m);
    rows(to + 64 * 64, p.b, n0, kColumns, p.n);
  };
  WarpgroupAcc<kColumns> acc;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) acc.d[i] = 0.f;
  load(0);
  cp_async_commit();
  for (int t = 0; t * 64 < p.k; ++t) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();  // tile t is in; everyone is done with tile t - 2
    const bf16* const s = tiles + t % 3 * kStage;
    warpgroup_fence(acc);
#pragma unroll
    for (int k = 0; k < 4; ++k) warpgroup_mma(acc, s, s + 64 * 64, k, t == 0 && k == 0);
    warpgroup_commit(acc);
    if ((t + 1) * 64 < p.k) load(t + 1);
    cp_async_commit();
    warpgroup_wait<1>(acc);
  }
  cp_async_wait<0>();
  warpgroup_wait<0>(acc);
  const int row = m0 + tid / 32 * 16 + tid % 32 / 4, column = n0 + 2 * (tid % 4);
#pragma unroll
  for (int i = 0; i < kColumns / 8; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int r = row + 8 * (e / 2), q = column + 8 * i + e % 2;
      if (r < p.m && q < p.n) p.c[static_cast<std::int64_t>(r) * p.n + q] = acc.d[4 * i + e];
    }
}

// c = a^T b with a (k, m) and b (k, n), k up to 64 and zero beyond, one tile each: both by depth.
// Shared: (64 + kColumns) * 128 bytes. Launch: grid 1, block 128. m = 64, n = kColumns. sm_90a
// only.
template <int kColumns>
__global__ void __launch_bounds__(128) warpgroup_by_depth_probe(const WarpgroupGemm p) {
  SIMT_DYNAMIC_SHARED(bf16, tiles);
  const int tid = static_cast<int>(threadIdx.x);
  for (int block = 0; block < 1 + kColumns / 64; ++block)  // A, then B's tiles of 64 columns
    for (int i = tid; i < 512; i += 128) {
      const int row = i / 8, c = i % 8;
      const bf16* const from = block == 0
                                   ? p.a + static_cast<std::int64_t>(row) * p.m
                                   : p.b + static_cast<std::int64_t>(row) * p.n + (block - 1) * 64;
      cp_async16(tiles + block * 4096 + swizzle128_place(row, c), from + c * 8, row < p.k ? 16 : 0);
    }
  cp_async_commit();
  cp_async_wait<0>();
  async_proxy_fence();
  __syncthreads();
  WarpgroupAcc<kColumns> acc;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) acc.d[i] = 0.f;
  warpgroup_fence(acc);
#pragma unroll
  for (int k = 0; k < 4; ++k) warpgroup_mma_by_depth(acc, tiles, tiles + 4096, k, k == 0);
  warpgroup_commit(acc);
  warpgroup_wait<0>(acc);
  const int row = tid / 32 * 16 + tid % 32 / 4, column = 2 * (tid % 4);
#pragma unroll
  for (int i = 0; i < kColumns / 8; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      p.c[(row + 8 * (e / 2)) * p.n + column + 8 * i + e % 2] = acc.d[4 * i + e];
}

template <int kColumns>
void run_warpgroup_by_depth(const WarpgroupGemm& p) {
  simt::launch({"warpgroup_by_depth_probe", 1, 128, (64 + kColumns) * 128},
               warpgroup_by_depth_probe<kColumns>, p);
}

template <int kColumns = 64>
void run_warpgroup_gemm(const WarpgroupGemm& p) {
  simt::launch({"warpgroup_gemm_probe",
                dim3(static_cast<unsigned>((p.m + 63) / 64),
                     static_cast<unsigned>((p.n + kColumns - 1) / kColumns)),
                128, 3 * (64 + kColumns) * 128},
               warpgroup_gemm_probe<kColumns>, p);
}

}  // namespace SIMT_NS
}  // namespace retort::probes
