// Note [Panels]
//   A library's product of a short K (a layer of 100 inputs) spends a tenth of its time on packing
//   its operands again for each tile, and bias and relu are another pass over C. Here
//
//     B   is packed as panels of two vectors: a panel of kDepth rows stays in the first level of
//         the cache while rows of A stream by. An odd vector at the end joins the last panel as
//         its third: alone it could not keep the multipliers busy.
//     A   is read where it lies: the values of a row are broadcast one after the other.
//     C   is held in registers, kRows rows of a panel; bias and relu are applied there.
#include "kernels/gemm/gemm_panels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/gemm_cpu_panels.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <algorithm>

#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/thread_space.h"
#include "kernels/common/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = StripTag;
using V = hn::Vec<D>;
constexpr int kLanes = kStripLanes;

// As many sums as the registers hold, beside a row of the panel and a value of A.
constexpr int kRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 4;
constexpr std::int64_t kDepth = 256, kBlockRows = 96;
static_assert(kBlockRows % kRows == 0);

std::int64_t vectors_of(std::int64_t columns) { return (columns + kLanes - 1) / kLanes; }

// Calls f(first column, vectors) for each panel.
template <class F>
HWY_INLINE void for_each_panel(std::int64_t columns, F&& f) {
  std::int64_t left = vectors_of(columns);
  for (std::int64_t at = 0; left > 0;) {
    const std::int64_t vectors = left == 3 ? 3 : left == 1 ? 1 : 2;
    f(at, vectors);
    at += vectors * kLanes;
    left -= vectors;
  }
}

// ---- packing ------------------------------------------------------------------------------------

// The `depth` columns of B from `first` on as rows: panel after panel, each row by row. Lanes past
// the last row of B are 0.
HWY_INLINE void pack_b(const PanelArgs& g, std::int64_t first, std::int64_t depth, float* to) {
  for_each_panel(g.columns, [&](std::int64_t at, std::int64_t vectors) HWY_ATTR {
    const std::int64_t stride = vectors * kLanes;
    for (std::int64_t column = at; column < at + stride; column += kLanes) {
      const float* const from = g.b + column * g.ldb + first;
      float* const out = to + at * depth + (column - at);
      const std::int64_t lanes = g.columns - column;  // that exist
      if (lanes >= kLanes) {
        transpose_strip(from, g.ldb, depth, out, stride);
        continue;
      }
      for (std::int64_t p = 0; p < depth; ++p)
        for (std::int64_t lane = 0; lane < kLanes; ++lane)
          out[p * stride + lane] = lane < lanes ? from[lane * g.ldb + p] : 0.0f;
    }
  });
}

// ---- the product --------------------------------------------------------------------------------

struct Block {  // of C: some rows of a panel
  const float* a;
  std::int64_t lda;
  const float* b;  // the panel
  std::int64_t depth;
  float* c;
  std::int64_t ldc, columns;  // columns that exist
  const float* bias;          // of the panel, or null
  bool first, last, relu;     // of the depth
};

// The first `lanes` lanes, where the memory behind them may not be ours.
HWY_INLINE V load_some(const float* from, std::int64_t lanes) {
  alignas(64) float edge[kLanes] = {};
  for (std::int64_t i = 0; i < lanes; ++i) edge[i] = from[i];
  return hn::Load(D(), edge);
}
HWY_INLINE void store_some(V v, float* to, std::int64_t lanes) {
  alignas(64) float edge[kLanes];
  hn::Store(v, D(), edge);
  for (std::int64_t i = 0; i < lanes; ++i) to[i] = edge[i];
}

template <int kR, int kC>
HWY_INLINE void multiply(const Block& x, std::int64_t first_row) {
  const D tag;
  const float* HWY_RESTRICT a = x.a + first_row * x.lda;
  float* HWY_RESTRICT c = x.c + first_row * x.ldc;
  V sum[kR][kC];
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j) sum[i][j] = hn::Zero(tag);
  const float* HWY_RESTRICT b = x.b;
  const std::int64_t lda = x.lda;
  for (std::int64_t p = 0; p < x.depth; ++p, b += kC * kLanes) {
    V row[kC];
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j) row[j] = hn::LoadU(tag, b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) {
      const V value = hn::Set(tag, a[i * lda + p]);
#pragma GCC unroll 4
      for (int j = 0; j < kC; ++j) sum[i][j] = hn::MulAdd(value, row[j], sum[i][j]);
    }
  }
  // Of the last vector not every lane may exist.
  constexpr int kEnd = (kC - 1) * kLanes;
  const std::int64_t ldc = x.ldc, lanes = x.columns - kEnd;
  const bool whole = lanes == kLanes;
  const auto last = [=](const float* from)
                        HWY_ATTR { return whole ? hn::LoadU(D(), from) : load_some(from, lanes); };
  if (!x.first) {
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j + 1 < kC; ++j)
        sum[i][j] = hn::Add(hn::LoadU(tag, c + i * ldc + j * kLanes), sum[i][j]);
      sum[i][kC - 1] = hn::Add(last(c + i * ldc + kEnd), sum[i][kC - 1]);
    }
  }
  if (x.last && x.bias != nullptr) {
#pragma GCC unroll 4
    for (int j = 0; j < kC; ++j) {
      const V bias = j + 1 < kC ? hn::LoadU(tag, x.bias + j * kLanes) : last(x.bias + kEnd);
#pragma GCC unroll 16
      for (int i = 0; i < kR; ++i) sum[i][j] = hn::Add(sum[i][j], bias);
    }
  }
  if (x.last && x.relu) {
    const V zero = hn::Zero(tag);
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kC; ++j)  // of NaN: NaN
        sum[i][j] = hn::IfThenElse(hn::Lt(sum[i][j], zero), zero, sum[i][j]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j + 1 < kC; ++j) hn::StoreU(sum[i][j], tag, c + i * ldc + j * kLanes);
    if (whole)
      hn::StoreU(sum[i][kC - 1], tag, c + i * ldc + kEnd);
    else
      store_some(sum[i][kC - 1], c + i * ldc + kEnd, lanes);
  }
}

template <int kC>
HWY_INLINE void multiply_panel(const Block& x, std::int64_t rows) {
  constexpr int kStep = kC == 3 ? kRows / 2 : kRows;
  std::int64_t r = 0;
  for (; r + kStep <= rows; r += kStep) multiply<kStep, kC>(x, r);
  if constexpr (kStep > 4)
    for (; r + 4 <= rows; r += 4) multiply<4, kC>(x, r);
  for (; r + 2 <= rows; r += 2) multiply<2, kC>(x, r);
  if (r < rows) multiply<1, kC>(x, r);
}

void panel_product_run(const PanelArgs& g) {
  const std::int64_t most = std::min(g.k, kDepth);
  float* const packed =
      thread_space(static_cast<std::size_t>(vectors_of(g.columns) * kLanes * most));
  for (std::int64_t first = 0; first < g.k; first += kDepth) {
    const std::int64_t depth = std::min(kDepth, g.k - first);
    pack_b(g, first, depth, packed);
    for (std::int64_t row = 0; row < g.rows; row += kBlockRows) {
      const std::int64_t rows = std::min(kBlockRows, g.rows - row);
      for_each_panel(g.columns, [&](std::int64_t at, std::int64_t vectors) HWY_ATTR {
        const Block block{g.a + row * g.lda + first,
                          g.lda,
                          packed + at * depth,
                          depth,
                          g.c + row * g.ldc + at,
                          g.ldc,
                          std::min<std::int64_t>(vectors * kLanes, g.columns - at),
                          g.bias != nullptr ? g.bias + at : nullptr,
                          first == 0,
                          first + depth == g.k,
                          g.relu};
        if (vectors == 3)
          multiply_panel<3>(block, rows);
        else if (vectors == 2)
          multiply_panel<2>(block, rows);
        else
          multiply_panel<1>(block, rows);
      });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

HWY_EXPORT(panel_product_run);
void panel_product(const PanelArgs& args) { HWY_DYNAMIC_DISPATCH(panel_product_run)(args); }

}  // namespace retort::kernels
#endif  // HWY_ONCE
