// Hopper's warp-group matrix multiply, isolated: kernels see a few functions and one tile layout.
//   Tile: rows of 64 bf16 (128 bytes), 1024-byte aligned, 16-byte chunk c of row r stored at chunk
//   c ^ (r % 8)  (the hardware's 128-byte swizzle).
//   warpgroup_mma(acc, a, b, k, first), both tiles by rows:
//     acc (64 x kColumns) += A (64 x 16 at column 16k) B (kColumns x 16 at 16k)^T
//   warpgroup_mma_by_depth(...), both by depth: A is one tile (depth x 64), B kColumns / 64 of
//   them, one behind the other, 64 rows each:
//     acc (64 x kColumns) += A (16 x 64 at row 16k)^T B (16 x kColumns at row 16k)
//
// Note [Asynchrony]
//   warpgroup_mma only starts: between it and the warpgroup_wait that covers its group, acc may not
//   be touched and the tiles may not be written. The emulator keeps to the latest moment: it
//   multiplies in the wait, and stops if a tile differs then from what it was at the start. The
//   sums are NaNs meanwhile.
//
// Note [Fences]
//   async_proxy_fence: by every thread of the block, after its writes of the tiles and before the
//   barrier that precedes warpgroup_mma (async_proxy.h says what the emulator sees of it).
//   warpgroup_fence: before the first product of a group that finds none under way; from there to
//   that product nothing touches the sums.
//
// What only a Hopper chip can test is the descriptor encoding and the asm text below.
#pragma once
#include "kernels/simt/simt.h"

namespace retort::simt {

// Matrix descriptor, 128-byte swizzle: address; stride between tiles of 64 columns (64 rows of 128
// bytes; unused, and 1, where tiles lie by rows); stride between 8-row groups (1024 bytes).
SIMT_D std::uint64_t swizzle128_descriptor(std::uint32_t shared_byte_address, bool by_depth) {
  return std::uint64_t((shared_byte_address & 0x3ffffu) >> 4) |
         std::uint64_t{by_depth ? 64u * 128u >> 4 : 1u} << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

// Bytes from one step of 16 in depth to the next.
SIMT_HD constexpr std::uint32_t swizzle128_step(bool by_depth) { return by_depth ? 2048 : 32; }

/// Element of a tile at which chunk `chunk` (8 bf16) of row `row` begins.
SIMT_HD int swizzle128_place(int row, int chunk) { return row * 64 + ((chunk ^ (row & 7)) << 3); }

#if SIMT_CUDA
/// The sums of a warp group: 64 rows x kColumns (64, 128 or 256). Thread t of the group holds, in
/// d[4 j + 2 h + e], row 16 (t / 32) + t % 32 / 4 + 8 h and column 8 j + 2 (t % 4) + e.
template <int kColumns = 64>
struct WarpgroupAcc {
  float d[kColumns / 2];
};

// Kernels that use these are compiled for every architecture, and chosen at launch for sm_90a only.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SIMT_SM90A(...) asm volatile(__VA_ARGS__)
template <int kByDepth>
SIMT_D void warpgroup_mma_async(float (&d)[32], std::uint64_t a, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, "
      "0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "%32, %33, p, 1, 1, %35, %35;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(add), "n"(kByDepth));
}
template <int kByDepth>
SIMT_D void warpgroup_mma_async(float (&d)[64], std::uint64_t a, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, "
      "0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
      "%64, %65, p, 1, 1, %67, %67;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63])
      : "l"(a), "l"(b), "r"(add), "n"(kByDepth));
}
template <int kByDepth>
SIMT_D void warpgroup_mma_async(float (&d)[128], std::uint64_t a, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, "
      "0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,"
      "%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,"
      "%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,"
      "%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,"
      "%122,%123,%124,%125,%126,%127}, "
      "%128, %129, p, 1, 1, %131, %131;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b), "r"(add), "n"(kByDepth));
}
#else
#define SIMT_SM90A(...) __trap()
template <int kByDepth, int N>
SIMT_D void warpgroup_mma_async(float (&)[N], std::uint64_t, std::uint64_t, int) {
  __trap();
}
#endif
/// Before the first warpgroup_mma of a group.
template <int kColumns>
SIMT_D void warpgroup_fence(WarpgroupAcc<kColumns>&) {
  SIMT_SM90A("wgmma.fence.sync.aligned;" ::: "memory");
}
/// Ends a group of multiplications.
template <int kColumns>
SIMT_D void warpgroup_commit(WarpgroupAcc<kColumns>&) {
  SIMT_SM90A("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most kNewest of the groups are under way. acc may be read after kNewest = 0.
template <int kNewest, int kColumns>
SIMT_D void warpgroup_wait([[maybe_unused]] WarpgroupAcc<kColumns>& c) {
  SIMT_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(kNewest) : "memory");
  // The compiler knows nothing of the asynchrony: this keeps its reads of the sums behind the wait.
  // Not with a group under way: ptxas then serialises the products (its remark C7515).
  if constexpr (kNewest == 0) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) asm volatile("" : "+f"(c.d[i])::"memory");
  }
}
/// Generic-proxy writes (st.shared, cp.async) must be fenced before wgmma reads them.
SIMT_D void async_proxy_fence() { SIMT_SM90A("fence.proxy.async.shared::cta;" ::: "memory"); }
#undef SIMT_SM90A
template <int kColumns>
SIMT_D void warpgroup_mma(WarpgroupAcc<kColumns>& c, const bf16* a, const bf16* b, int k,
                          bool first) {
  const std::uint32_t at = swizzle128_step(false) * static_cast<unsigned>(k);
  warpgroup_mma_async<0>(c.d, swizzle128_descriptor(shared_address(a) + at, false),
                         swizzle128_descriptor(shared_address(b) + at, false), first ? 0 : 1);
}
template <int kColumns>
SIMT_D void warpgroup_mma_by_depth(WarpgroupAcc<kColumns>& c, const bf16* a, const bf16* b, int k,
                                   bool first) {
  const std::uint32_t at = swizzle128_step(true) * static_cast<unsigned>(k);
  warpgroup_mma_async<1>(c.d, swizzle128_descriptor(shared_address(a) + at, true),
                         swizzle128_descriptor(shared_address(b) + at, true), first ? 0 : 1);
}
#if !defined(__CUDACC_RTC__)
/// Whether the current device can run kernels that use these.
inline bool warpgroup_available() {
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
}
#endif
#else
template <int kColumns = 64>
struct WarpgroupAcc {
  static_assert(kColumns % 64 == 0 && kColumns <= 256);
  struct Tile {  // one thread's part of a product: 16 bytes of A, and of each 64 rows of B
    std::uint16_t a[8], b[kColumns / 64][8];
  };
  struct Issued {
    const bf16 *a, *b;
    int k, group;
    bool first, by_depth;
    Tile seen;
  };
  static constexpr int kMost = 16;
  float d[kColumns / 2];
  float held[kColumns / 2];  // d at the fence; while products are under way, the sums so far
  bool fenced = false;
  Issued issued[kMost];
  int count = 0, group = 0;
};
template <int kColumns>
void warpgroup_fence(WarpgroupAcc<kColumns>& c) {
  c.fenced = true;
  if (c.count == 0) std::memcpy(c.held, c.d, sizeof c.d);
}
inline void async_proxy_fence() { emu::async_proxy_fence(); }
inline bool warpgroup_available() { return true; }

// Decodes the descriptors, so that a wrong one gives wrong numbers here too.
template <int kColumns>
typename WarpgroupAcc<kColumns>::Tile warpgroup_read(const bf16* a, const bf16* b, int k,
                                                     bool by_depth, bool starts, emu::Loc l) {
  const unsigned t = emu::t_cur->linear % 128;
  const auto part = [&](const bf16* tile, unsigned row0, std::uint16_t(&out)[8]) {
    const std::uint64_t desc = swizzle128_descriptor(
        emu::shared_offset(tile, l) + swizzle128_step(by_depth) * static_cast<unsigned>(k),
        by_depth);
    const auto start = static_cast<std::uint32_t>(desc & 0x3fff) << 4,
               across = static_cast<std::uint32_t>(desc >> 16 & 0x3fff) << 4,
               group = static_cast<std::uint32_t>(desc >> 32 & 0x3fff) << 4;
    const unsigned row = row0 + t / 2;  // of the product; depth 8 (t % 2) + i
    for (unsigned i = 0; i < 8; ++i) {
      const unsigned depth = t % 2 * 8 + i;
      std::uint32_t at =
          by_depth ? start + row / 64 * across + depth / 8 * group + depth % 8 * 128 + row % 64 * 2
                   : start + row / 8 * group + row % 8 * 128 + depth * 2;
      at ^= (at >> 7 & 7) << 4;
      if (starts && by_depth) emu::check_async_proxy(at, 2, l);
      if (starts && !by_depth && i == 0) emu::check_async_proxy(at, 16, l);  // one chunk
      out[i] = *static_cast<const std::uint16_t*>(emu::shared_at(at));
    }
  };
  typename WarpgroupAcc<kColumns>::Tile tile;
  part(a, 0, tile.a);
  for (unsigned j = 0; j < kColumns / 64; ++j) part(b, 64 * j, tile.b[j]);
  return tile;
}
template <int kColumns>
void warpgroup_issue(WarpgroupAcc<kColumns>& c, const bf16* a, const bf16* b, int k, bool first,
                     bool by_depth, emu::Loc l) {
  emu::check_aligned(a, 1024, "wgmma tile", l);
  emu::check_aligned(b, 1024, "wgmma tile", l);
  if (c.count == c.kMost)
    emu::fail(emu::Fault::async_outstanding,
              "wgmma: more products under way than the emulator holds", l);
  if (c.count == 0) {
    if (!c.fenced)
      emu::fail(emu::Fault::register_fence, "wgmma without a warpgroup_fence before it", l);
    if (std::memcmp(c.held, c.d, sizeof c.d) != 0)
      emu::fail(emu::Fault::register_fence, "wgmma over sums written after the warpgroup_fence", l);
    std::memset(c.d, 0xff, sizeof c.d);
  }
  c.issued[c.count++] = {
      a, b, k, c.group, first, by_depth, warpgroup_read<kColumns>(a, b, k, by_depth, true, l)};
  emu::count_products(1);
}
template <int kColumns>
void warpgroup_mma(WarpgroupAcc<kColumns>& c, const bf16* a, const bf16* b, int k, bool first,
                   emu::Loc l = emu::Loc::current()) {
  warpgroup_issue(c, a, b, k, first, false, l);
}
template <int kColumns>
void warpgroup_mma_by_depth(WarpgroupAcc<kColumns>& c, const bf16* a, const bf16* b, int k,
                            bool first, emu::Loc l = emu::Loc::current()) {
  warpgroup_issue(c, a, b, k, first, true, l);
}
template <int kColumns>
void warpgroup_commit(WarpgroupAcc<kColumns>& c) {
  ++c.group;
}
template <int kNewest, int kColumns>
void warpgroup_wait(WarpgroupAcc<kColumns>& c, emu::Loc l = emu::Loc::current()) {
  int done = 0;
  for (; done < c.count && c.issued[done].group < c.group - kNewest; ++done) {
    const auto& i = c.issued[done];
    auto now = warpgroup_read<kColumns>(i.a, i.b, i.k, i.by_depth, false, l);
    if (std::memcmp(&now, &i.seen, sizeof now) != 0)
      emu::fail(emu::Fault::async_outstanding, "a tile was written while wgmma could still read it",
                l);
    for (int j = 0; j < kColumns / 64; ++j) {
      emu::WgmmaReq q{{}, {}, c.held + 32 * j, !i.first};
      std::memcpy(q.a, now.a, sizeof q.a);
      std::memcpy(q.b, now.b[j], sizeof q.b);
      emu::warpgroup_collective(emu::wgmma_m64n64k16_body, &q, "wgmma", l);
    }
  }
  for (int i = done; i < c.count; ++i) c.issued[i - done] = c.issued[i];
  c.count -= done;
  emu::count_products(-done);
  if constexpr (kNewest == 0) c.fenced = false;
  if (done == 0 || c.count > 0) return;
  for (const float& sum : c.d)
    if (std::bit_cast<std::uint32_t>(sum) != ~0u)
      emu::fail(emu::Fault::async_outstanding, "sums were written while wgmma was under way", l);
  std::memcpy(c.d, c.held, sizeof c.d);
}
#endif

}  // namespace retort::simt
