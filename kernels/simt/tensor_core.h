// Matrix products of a warp, and the loads of shared memory that feed them.
//
//   load_shared16(p)                 16 bytes of a lane, for products in f32
//   ldmatrix_x4[_trans](r, row)      four 8x8 matrices of bf16; lanes 8i .. 8i + 7 name the rows of
//                                    matrix i
//   mma_bf16_16x8x16(d, a, b0, b1)   D += A B: fragments as in the PTX ISA, mma.m16n8k16
#pragma once
#include "kernels/simt/simt.h"

namespace retort::simt {

/// 16 bytes of shared memory, as the main loops of products read them: a plain load. The emulator
/// counts its bank conflicts where Config::count_loads asks for it; all 32 lanes must be there
/// then.
#if SIMT_CUDA
__device__ __forceinline__ float4 load_shared16(const void* p) {
  return *static_cast<const float4*>(p);
}
#else
inline float4 load_shared16(const void* p, emu::Loc l = emu::Loc::current()) {
  emu::check_aligned(p, 16, "load_shared16", l);
  if (emu::config().count_loads) {
    emu::LoadReq q{reinterpret_cast<std::uintptr_t>(p)};
    emu::warp_collective(emu::load_shared16_body, ~0u, &q, false, "load_shared16", l);
  }
  return *static_cast<const float4*>(p);
}
#endif

#if SIMT_CUDA
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const std::uint32_t (&a)[4],
                                                 std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
// The row is loaded here, by the lane that names it, so that sanitizers see the access.
inline void simt_ldmatrix(std::uint32_t* r, int n, bool trans, const void* row, emu::Loc l) {
  emu::LdmatrixReq q{};
  if (simt_lane() < 8 * n) {
    emu::check_aligned(row, 16, "ldmatrix row", l);
    const std::uint16_t* p = static_cast<const std::uint16_t*>(row);
    for (int i = 0; i < 8; ++i) q.row[i] = p[i];
  }
  q.addr = reinterpret_cast<std::uintptr_t>(row);
  q.count = n;
  q.trans = trans;
  emu::warp_collective(emu::ldmatrix_body, ~0u, &q, false, "ldmatrix", l);
  for (int i = 0; i < n; ++i) r[i] = q.r[i];
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, emu::Loc l = emu::Loc::current()) {
  simt_ldmatrix(r, 4, false, row, l);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row,
                              emu::Loc l = emu::Loc::current()) {
  simt_ldmatrix(r, 4, true, row, l);
}
inline void mma_bf16_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                             std::uint32_t b1, emu::Loc l = emu::Loc::current()) {
  emu::MmaReq q{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}, {}};
  emu::warp_collective(emu::mma_bf16_body, ~0u, &q, false, "mma.sync", l);
  for (int i = 0; i < 4; ++i) d[i] = q.d[i];
}
#endif

}  // namespace retort::simt
