// The only header a kernel file includes. Under nvcc it is a thin layer over CUDA; under any other
// compiler it maps the same names onto the CPU emulator (kernels/simt/emu.h), without any CUDA
// header.
//
// Rules for kernel files (*.cuh):
//   - put kernels in  namespace X { namespace SIMT_NS { ... } }  : the two builds of one kernel get
//     different symbols, so both may be linked into one program;
//   - shared memory through SIMT_SHARED / SIMT_DYNAMIC_SHARED;
//   - inline PTX only in kernels/simt/*.h, next to its CPU implementation.
#pragma once
#include <cstdint>

#include "kernels/common/bf16.h"
#if !defined(__CUDACC_RTC__)  // NVRTC compiles device code alone: no launch, no standard library
#include "kernels/common/check.h"
#include "kernels/simt/launch_hook.h"
#endif

#if defined(__CUDACC__)
#define SIMT_CUDA 1
#if !defined(__CUDACC_RTC__)
#include <cuda_runtime.h>

#include "kernels/simt/dynamic_shared.h"
#endif
#define SIMT_NS simt_on_cuda
#define SIMT_HD __host__ __device__ __forceinline__
#define SIMT_D __device__ __forceinline__
#define SIMT_RESTRICT __restrict__
#else
#define SIMT_CUDA 0
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/simt/emu.h"
#define SIMT_NS simt_on_cpu
#define SIMT_HD inline
#define SIMT_D inline
#define SIMT_RESTRICT __restrict__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (::retort::simt::emu::t_cur->thread_idx)
#define blockIdx (::retort::simt::emu::t_ids->block_idx)
#define blockDim (::retort::simt::emu::t_ids->block_dim)
#define gridDim (::retort::simt::emu::t_ids->grid_dim)
#endif

// ------------------------------------------------------------------------------ shared memory
#if SIMT_CUDA
#define SIMT_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define SIMT_DYNAMIC_SHARED(type, name)                                  \
  extern __shared__ __align__(1024) unsigned char simt_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(simt_dynamic_shared)
#else
#define SIMT_SHARED(type, name, ...)                                                          \
  typedef type name##_simt_type __VA_ARGS__;                                                  \
  static const char name##_simt_key = 0;                                                      \
  name##_simt_type& name = *static_cast<name##_simt_type*>(::retort::simt::emu::shared_alloc( \
      &name##_simt_key, sizeof(name##_simt_type), alignof(name##_simt_type)))
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::retort::simt::emu::dynamic_shared())
#endif

// ------------------------------------------------------------------------------ vector types
#if !SIMT_CUDA
namespace retort::simt::cpu {
using emu::dim3;
using emu::uint3;
using cudaStream_t = void*;
#define SIMT_VEC(T, name, a2, a4)                            \
  struct alignas(a2) name##2 {                               \
    T x, y;                                                  \
  };                                                         \
  struct alignas(a4) name##4 {                               \
    T x, y, z, w;                                            \
  };                                                         \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VEC(float, float, 8, 16)
SIMT_VEC(int, int, 8, 16)
SIMT_VEC(unsigned, uint, 8, 16)
#undef SIMT_VEC

// ---------------------------------------------------------------------------- intrinsics
using emu::BarOp;
using emu::Loc;
inline void __syncthreads(Loc l = Loc::current()) { emu::block_barrier(0, 0, BarOp::none, 0, l); }
inline int __syncthreads_count(int p, Loc l = Loc::current()) {
  return emu::block_barrier(0, 0, BarOp::count, p, l);
}
inline int __syncthreads_and(int p, Loc l = Loc::current()) {
  return emu::block_barrier(0, 0, BarOp::all_of, p, l);
}
inline int __syncthreads_or(int p, Loc l = Loc::current()) {
  return emu::block_barrier(0, 0, BarOp::any_of, p, l);
}
inline void __syncwarp(unsigned mask = ~0u, Loc l = Loc::current()) {
  emu::warp_collective(emu::syncwarp_body, mask, nullptr, true, "__syncwarp", l);
}
inline void __threadfence() { emu::thread_fence(); }
inline void __threadfence_block() { emu::thread_fence_block(); }

template <class T>
T simt_shfl(unsigned mask, T v, int src, const char* what, Loc l) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  emu::ShflReq r{0, 0, src};
  std::memcpy(&r.value, &v, sizeof v);
  emu::warp_collective(emu::shfl_body, mask, &r, false, what, l);
  std::memcpy(&v, &r.out, sizeof v);
  return v;
}
inline int simt_lane() { return static_cast<int>(emu::t_cur->lane); }
template <class T>
T __shfl_sync(unsigned m, T v, int src, int width = 32, Loc l = Loc::current()) {
  return simt_shfl(m, v, (simt_lane() & ~(width - 1)) + (src & (width - 1)), "__shfl_sync", l);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int width = 32, Loc l = Loc::current()) {
  const int lane = simt_lane(), s = lane ^ x;
  return simt_shfl(m, v, s < (lane & ~(width - 1)) + width ? s : lane, "__shfl_xor_sync", l);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32, Loc l = Loc::current()) {
  const int lane = simt_lane(), s = lane - static_cast<int>(d);
  return simt_shfl(m, v, s >= (lane & ~(width - 1)) ? s : lane, "__shfl_up_sync", l);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32, Loc l = Loc::current()) {
  const int lane = simt_lane(), s = lane + static_cast<int>(d);
  return simt_shfl(m, v, s < (lane & ~(width - 1)) + width ? s : lane, "__shfl_down_sync", l);
}
inline unsigned simt_vote(unsigned m, bool p, const char* what, Loc l) {
  emu::VoteReq r{p, 0};
  emu::warp_collective(emu::ballot_body, m, &r, false, what, l);
  return r.out;
}
inline unsigned __ballot_sync(unsigned m, int p, Loc l = Loc::current()) {
  return simt_vote(m, p, "__ballot_sync", l);
}
inline int __any_sync(unsigned m, int p, Loc l = Loc::current()) {
  return simt_vote(m, p, "__any_sync", l) != 0;
}
inline int __all_sync(unsigned m, int p, Loc l = Loc::current()) {
  return simt_vote(m, !p, "__all_sync", l) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned m, T v, Loc l = Loc::current()) {
  emu::MatchReq r{0, 0};
  std::memcpy(&r.value, &v, sizeof v);
  emu::warp_collective(emu::match_body, m, &r, false, "__match_any_sync", l);
  return r.out;
}
template <class T>
T simt_reduce(unsigned m, T v, int op, const char* what, Loc l) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  emu::ReduceReq r{static_cast<std::int64_t>(v), 0, op};
  emu::warp_collective(emu::reduce_body, m, &r, false, what, l);
  return static_cast<T>(r.out);
}
template <class T>
T __reduce_add_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 0, "__reduce_add_sync", l);
}
template <class T>
T __reduce_min_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 1, "__reduce_min_sync", l);
}
template <class T>
T __reduce_max_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 2, "__reduce_max_sync", l);
}
template <class T>
T __reduce_and_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 3, "__reduce_and_sync", l);
}
template <class T>
T __reduce_or_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 4, "__reduce_or_sync", l);
}
template <class T>
T __reduce_xor_sync(unsigned m, T v, Loc l = Loc::current()) {
  return simt_reduce(m, v, 5, "__reduce_xor_sync", l);
}

// Relaxed like the hardware's; after __threadfence() they also publish, and what they read counts
// from the next __threadfence() on (the "last block" idiom).
template <class T>
T simt_rmw(T* p, auto f) {
  const int order = emu::atomic_order(p);
  T old, want;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do want = f(old);
  while (!__atomic_compare_exchange(p, &old, &want, false, order, __ATOMIC_RELAXED));
  return old;
}
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return simt_rmw(p, [v](T o) { return T(o + v); });
}
template <class T>
T atomicSub(T* p, std::type_identity_t<T> v) {
  return simt_rmw(p, [v](T o) { return T(o - v); });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return simt_rmw(p, [v](T o) { return std::max(o, v); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return simt_rmw(p, [v](T o) { return std::min(o, v); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return simt_rmw(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> c, std::type_identity_t<T> v) {
  return simt_rmw(p, [c, v](T o) { return o == c ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned v) {
  return simt_rmw(p, [v](unsigned o) { return o >= v ? 0u : o + 1; });
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
// No __expf, __logf, ...: glibc declares functions of those names. See exp_approx below.
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
using std::max;
using std::min;
}  // namespace retort::simt::cpu
namespace retort::simt {
using namespace cpu;
}
#endif

namespace retort::simt {

// ------------------------------------------------------------------------------ bf16 helpers
struct alignas(4) bf16x2 {
  bf16 lo, hi;
};
struct alignas(16) bf16x8 {
  bf16x2 v[4];
};

SIMT_HD std::uint32_t pack_bf16(float lo, float hi) {
#if defined(__CUDA_ARCH__)
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
#else
  return std::uint32_t(to_bf16(lo).bits) | std::uint32_t(to_bf16(hi).bits) << 16;
#endif
}

/// The larger of each of two bf16, as fmaxf: a number rather than a NaN.
SIMT_D std::uint32_t max_bf16x2(std::uint32_t a, std::uint32_t b) {
#if SIMT_CUDA
  std::uint32_t r;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
#else
  std::uint32_t r = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const std::uint32_t p = a >> shift & 0xffffu, q = b >> shift & 0xffffu;
    const float x = float_from_bits(p << 16), y = float_from_bits(q << 16);
    const std::uint32_t larger = x > y || y != y ? p : x < y || x != x ? q : p & q;  // +0 over -0
    r |= (x != x && y != y ? 0x7fffu : larger) << shift;
  }
  return r;
#endif
}

SIMT_D float exp_approx(float x) {
#if SIMT_CUDA
  return __expf(x);
#else
  emu::count_exp2();
  return std::exp(x);
#endif
}
SIMT_D float log_approx(float x) {
#if SIMT_CUDA
  return __logf(x);
#else
  return std::log(x);
#endif
}
SIMT_D float exp2_approx(float x) {
#if SIMT_CUDA
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  emu::count_exp2();
  return std::exp2(x);
#endif
}

// ------------------------------------------------------------------------------ warp helpers
SIMT_D float warp_sum(float v) {
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  return v;
}
SIMT_D float warp_max(float v) {
  for (int d = 16; d > 0; d >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
  return v;
}

// ------------------------------------------------------------------------------ cp.async
SIMT_D std::uint32_t shared_address([[maybe_unused]] const void* p) {
#if SIMT_CUDA
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
#else
  return 0;
#endif
}
#if SIMT_CUDA
// copies 16 bytes, of which only the first `valid` are read; the rest become zero
__device__ __forceinline__ void cp_async16(void* dst, const void* src, int valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src),
               "r"(valid)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
inline void cp_async16(void* dst, const void* src, int valid = 16,
                       emu::Loc l = emu::Loc::current()) {
  emu::cp_async_enqueue(dst, src, 16, static_cast<std::size_t>(valid), l);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int N>
void cp_async_wait() {
  emu::cp_async_wait(N);
}
#endif

// ------------------------------------------------------------------------------ launch
#if !defined(__CUDACC_RTC__)
struct LaunchConfig {
  const char* name;
  dim3 grid, block;
  std::size_t smem = 0;
  cudaStream_t stream = nullptr;
  unsigned cluster = 1;  // blocks along x that run together (cluster.h): 1, 2, 4 or 8; sm_90
};
template <class T>
struct type_id {
  using type = T;
};

/// Compute capability of the current device, 90 for 9.0. What launchers choose kernels by.
#if SIMT_CUDA
inline int capability() {
  int device = 0, major = 0, minor = 0;
  cudaError_t e = cudaGetDevice(&device);
  if (e == cudaSuccess)
    e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (e == cudaSuccess)
    e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (e != cudaSuccess) {
    (void)cudaGetLastError();
    fail(ErrorCode::kDevice, "no current device: ", cudaGetErrorName(e), ": ",
         cudaGetErrorString(e));
  }
  return 10 * major + minor;
}
template <class... P>
cudaError_t launch_clusters(const LaunchConfig& c, void (*kernel)(P...),
                            typename type_id<P>::type... args) {
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = c.cluster;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = c.grid;
  config.blockDim = c.block;
  config.dynamicSmemBytes = c.smem;
  config.stream = c.stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, args...);
}
#else
inline int capability() { return emu::capability(); }
#endif

/// Launches and checks: throws Error(kDevice) naming the kernel.
#if SIMT_CUDA
template <class... P>
void launch(const LaunchConfig& c, void (*kernel)(P...), typename type_id<P>::type... args) {
  if (c.smem > 0) grant_dynamic_shared(c.name, reinterpret_cast<const void*>(kernel), c.smem);
  count_launch(c.name);
  cudaError_t e = cudaSuccess;
  if (c.cluster > 1) {
    e = launch_clusters(c, kernel, args...);
  } else {
    kernel<<<c.grid, c.block, c.smem, c.stream>>>(args...);
    e = cudaGetLastError();
  }
  if (e != cudaSuccess) launch_failed(c.name, e);
}
#else
template <class... P>
void launch(const LaunchConfig& c, void (*kernel)(P...), typename type_id<P>::type... args) {
  if (c.grid.x == 0 || c.grid.y == 0 || c.grid.z == 0)
    fail(ErrorCode::kDevice, "launch of ", c.name, " failed: empty grid");
  const auto run = [c, kernel, args...] {  // by value: a recorded launch outlives this call
    auto body = [&] { kernel(args...); };
    emu::run_grid({c.name, c.grid, c.block, c.smem,
                   [](void* f) { (*static_cast<decltype(body)*>(f))(); }, &body, c.cluster});
  };
  count_launch(c.name);
  if (t_recorder)
    t_recorder->record(c.name, c.stream, run);
  else
    run();
}
#endif
#endif  // __CUDACC_RTC__

}  // namespace retort::simt
