// Hopper's warp-group matrix multiply, isolated: kernels see three functions and one tile layout.
//   Tile: 64 rows x 64 bf16 (128 bytes a row), 1024-byte aligned, 16-byte chunk c of row r stored
//   at chunk c ^ (r % 8)  (the hardware's 128-byte swizzle). warpgroup_mma(acc, a, b, k, first):
//   acc(64x64) += A(64 x 16 at column 16k) B(64 x 16 at 16k)^T
// What only a Hopper chip can test is the descriptor encoding and the asm text below.
#pragma once
#include "kernels/simt/simt.h"

namespace retort::simt {

struct WarpgroupAcc {
  float d[32];
};

// Matrix descriptor: address, stride between 8-row groups (1024 bytes), 128-byte swizzle.
SIMT_D std::uint64_t swizzle128_descriptor(std::uint32_t shared_byte_address) {
  return std::uint64_t((shared_byte_address & 0x3ffffu) >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

#if SIMT_CUDA
// Kernels that use these are compiled for every architecture, and chosen at launch for sm_90a only.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SIMT_SM90A(text) asm volatile(text ::: "memory")
#else
#define SIMT_SM90A(text) __trap()
#endif
SIMT_D void warpgroup_fence() { SIMT_SM90A("wgmma.fence.sync.aligned;"); }
SIMT_D void warpgroup_commit_wait() {
  SIMT_SM90A("wgmma.commit_group.sync.aligned;");
  SIMT_SM90A("wgmma.wait_group.sync.aligned 0;");
}
// generic-proxy writes (st.shared, cp.async) must be fenced before wgmma reads them
SIMT_D void async_proxy_fence() { SIMT_SM90A("fence.proxy.async.shared::cta;"); }
#undef SIMT_SM90A
SIMT_D void warpgroup_mma([[maybe_unused]] WarpgroupAcc& c, [[maybe_unused]] const bf16* a,
                          [[maybe_unused]] const bf16* b, [[maybe_unused]] int k,
                          [[maybe_unused]] bool first) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const std::uint64_t da = swizzle128_descriptor(shared_address(a) + 32 * k),
                      db = swizzle128_descriptor(shared_address(b) + 32 * k);
  float* d = c.d;
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%"
      "25,%26,%27,%28,%29,%30,%31}, "
      "%32, %33, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(da), "l"(db), "r"(first ? 0 : 1));
#else
  __trap();
#endif
}
#else
inline void warpgroup_fence() {}
inline void warpgroup_commit_wait() {}
inline void async_proxy_fence() {}
// Decodes the descriptors, so that a wrong one gives wrong numbers here too.
inline void warpgroup_mma(WarpgroupAcc& c, const bf16* a, const bf16* b, int k, bool first,
                          emu::Loc l = emu::Loc::current()) {
  const auto chunk = [&](const bf16* tile, std::uint16_t(&out)[8]) {
    const std::uint64_t desc =
        swizzle128_descriptor(emu::shared_offset(tile, l) + 32u * static_cast<unsigned>(k));
    const unsigned t = emu::t_cur->linear % 128, row = t / 2, half = t % 2;
    const auto start = static_cast<std::uint32_t>(desc & 0x3fff) << 4,
               group = static_cast<std::uint32_t>(desc >> 32 & 0x3fff) << 4;
    std::uint32_t at = start + row / 8 * group + row % 8 * 128 + half * 16;
    at ^= (at >> 7 & 7) << 4;
    const auto* p = static_cast<const std::uint16_t*>(emu::shared_at(at));
    for (int i = 0; i < 8; ++i) out[i] = p[i];
  };
  emu::check_aligned(a, 1024, "wgmma tile", l);
  emu::check_aligned(b, 1024, "wgmma tile", l);
  emu::WgmmaReq q{{}, {}, c.d, !first};
  chunk(a, q.a);
  chunk(b, q.b);
  emu::warpgroup_collective(emu::wgmma_m64n64k16_body, &q, "wgmma", l);
}
#endif

}  // namespace retort::simt
