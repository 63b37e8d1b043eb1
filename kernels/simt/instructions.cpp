// What a warp's or a warp group's collective instructions compute, given what every lane brought:
// the scheduler (emu.cpp) calls these once all lanes are there. They follow no address that a
// kernel computed: what is loaded, a lane has loaded, and results go to the requests or, of wgmma,
// to the accumulators that warpgroup.h owns. So this file is compiled without sanitizers, which
// makes matrix products in the emulator several times faster.
#include <algorithm>
#include <bit>

#include "kernels/simt/emu.h"

namespace retort::simt::emu {
namespace {
template <class R>
R* req(void* const* v, unsigned l) {
  return static_cast<R*>(v[l]);
}
template <class F>
void each(std::uint32_t m, F f) {
  for (; m; m &= m - 1) f(unsigned(std::countr_zero(m)));
}
float bf16_to_float(std::uint16_t h) { return std::bit_cast<float>(std::uint32_t(h) << 16); }
}  // namespace

void shfl_body(void* const* v, std::uint32_t m) {
  each(m, [&](unsigned l) {
    auto* r = req<ShflReq>(v, l);
    // a value taken from a lane that does not take part is undefined: hand back NaN poison
    r->out = (r->src >= 0 && r->src < 32 && (m >> r->src & 1))
                 ? req<ShflReq>(v, unsigned(r->src))->value
                 : ~0ull;
  });
}
void ballot_body(void* const* v, std::uint32_t m) {
  std::uint32_t b = 0;
  each(m, [&](unsigned l) { b |= (req<VoteReq>(v, l)->pred ? 1u : 0u) << l; });
  each(m, [&](unsigned l) { req<VoteReq>(v, l)->out = b; });
}
void reduce_body(void* const* v, std::uint32_t m) {
  bool first = true;
  std::int64_t acc = 0;
  each(m, [&](unsigned l) {
    auto* r = req<ReduceReq>(v, l);
    if (first) {
      acc = r->value;
      first = false;
      return;
    }
    switch (r->op) {
      case 0: acc += r->value; break;
      case 1: acc = std::min(acc, r->value); break;
      case 2: acc = std::max(acc, r->value); break;
      case 3: acc &= r->value; break;
      case 4: acc |= r->value; break;
      default: acc ^= r->value;
    }
  });
  each(m, [&](unsigned l) { req<ReduceReq>(v, l)->out = acc; });
}
void match_body(void* const* v, std::uint32_t m) {
  each(m, [&](unsigned l) {
    std::uint32_t b = 0;
    each(m, [&](unsigned k) {
      b |= (req<MatchReq>(v, k)->value == req<MatchReq>(v, l)->value ? 1u : 0u) << k;
    });
    req<MatchReq>(v, l)->out = b;
  });
}
void syncwarp_body(void* const*, std::uint32_t) {}

// ldmatrix .m8n8.x{1,2,4}.b16: lanes 8i..8i+7 give the 16-byte rows of matrix i; lane l receives in
// register i the elements (row l/4, columns 2(l%4), 2(l%4)+1), or with .trans the transposed ones.
void ldmatrix_body(void* const* v, std::uint32_t m) {
  if (m != ~0u) throw Error(Fault::bad_collective, "ldmatrix needs all 32 lanes");
  const int n = req<LdmatrixReq>(v, 0)->count;
  const bool trans = req<LdmatrixReq>(v, 0)->trans;
  unsigned conflicts = 0;
  for (int i = 0; i < n; ++i) {
    const std::uint16_t* row[8];
    unsigned bank[8] = {};
    for (int k = 0; k < 8; ++k) {
      auto* r = req<LdmatrixReq>(v, unsigned(8 * i + k));
      row[k] = r->row;
      conflicts += bank[r->addr / 16 % 8]++ ? 1u : 0u;  // extra 128-byte wavefronts
    }
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned a = l / 4, b = 2 * (l % 4);
      const std::uint32_t lo = trans ? row[b][a] : row[a][b],
                          hi = trans ? row[b + 1][a] : row[a][b + 1];
      req<LdmatrixReq>(v, l)->r[i] = lo | hi << 16;
    }
  }
  count_ldmatrix(conflicts);
}

// A warp's 16-byte loads go by quarters: eight lanes, 128 bytes. Lanes with one address share it;
// different addresses in the same four banks take turns.
void load_shared16_body(void* const* v, std::uint32_t m) {
  if (m != ~0u) throw Error(Fault::bad_collective, "load_shared16 needs all 32 lanes");
  unsigned conflicts = 0;
  for (unsigned quarter = 0; quarter < 32; quarter += 8)
    for (unsigned l = quarter; l < quarter + 8; ++l) {
      const std::uintptr_t at = req<LoadReq>(v, l)->addr;
      bool known = false, taken = false;
      for (unsigned k = quarter; k < l; ++k) {
        const std::uintptr_t other = req<LoadReq>(v, k)->addr;
        known = known || other == at;
        taken = taken || other / 16 % 8 == at / 16 % 8;
      }
      if (!known && taken) ++conflicts;
    }
  count_loads(conflicts);
}

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32, g = lane / 4, t = lane % 4:
//   A  a0 (g, 2t..) a1 (g+8, 2t..) a2 (g, 2t+8..) a3 (g+8, 2t+8..)
//   B  b0 (k 2t.., n g) b1 (k 2t+8.., n g)        C,D  c0,c1 (g, 2t..) c2,c3 (g+8, 2t..)
void mma_bf16_body(void* const* v, std::uint32_t m) {
  if (m != ~0u) throw Error(Fault::bad_collective, "mma.sync needs all 32 lanes");
  alignas(32) float A[16][16], B[16][8], D[16][8];
  for (unsigned l = 0; l < 32; ++l) {
    const auto* r = req<MmaReq>(v, l);
    const unsigned g = l / 4, t = 2 * (l % 4);
    for (unsigned i = 0; i < 4; ++i) {
      float* a = &A[g + 8 * (i & 1)][t + 8 * (i >> 1)];
      a[0] = bf16_to_float(std::uint16_t(r->a[i]));
      a[1] = bf16_to_float(std::uint16_t(r->a[i] >> 16));
    }
    for (unsigned i = 0; i < 2; ++i) {
      B[t + 8 * i][g] = bf16_to_float(std::uint16_t(r->b[i]));
      B[t + 8 * i + 1][g] = bf16_to_float(std::uint16_t(r->b[i] >> 16));
    }
    for (unsigned i = 0; i < 4; ++i) D[g + 8 * (i >> 1)][t + (i & 1)] = r->c[i];
  }
  for (int i = 0; i < 16; ++i) {
    float acc[8] = {};
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 8; ++j) acc[j] += A[i][k] * B[k][j];
    for (int j = 0; j < 8; ++j) D[i][j] += acc[j];
  }
  for (unsigned l = 0; l < 32; ++l) {
    auto* r = req<MmaReq>(v, l);
    const unsigned g = l / 4, t = 2 * (l % 4);
    for (unsigned i = 0; i < 4; ++i) r->d[i] = D[g + 8 * (i >> 1)][t + (i & 1)];
  }
  count_mma();
}

// wgmma.mma_async m64n64k16: D fragment of warp w = 4 stacked m16n8 accumulators (rows
// 16w..16w+15).
void wgmma_m64n64k16_body(void* const* v) {
  static thread_local float A[64][16], B[16][64], D[64][64];
  for (unsigned t = 0; t < 128; ++t) {
    const auto* r = req<WgmmaReq>(v, t);
    for (unsigned i = 0; i < 8; ++i) {
      A[t / 2][t % 2 * 8 + i] = bf16_to_float(r->a[i]);
      B[t % 2 * 8 + i][t / 2] = bf16_to_float(r->b[i]);
    }
  }
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 64; ++j) D[i][j] = 0;
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 64; ++j) D[i][j] += A[i][k] * B[k][j];
  }
  for (unsigned t = 0; t < 128; ++t) {
    auto* r = req<WgmmaReq>(v, t);
    const unsigned row = t / 32 * 16 + t % 32 / 4, col = 2 * (t % 4);
    for (unsigned i = 0; i < 8; ++i)
      for (unsigned e = 0; e < 4; ++e) {
        float& d = r->d[4 * i + e];
        d = D[row + 8 * (e / 2)][8 * i + col + e % 2] + (r->accumulate ? d : 0.f);
      }
  }
}

}  // namespace retort::simt::emu
