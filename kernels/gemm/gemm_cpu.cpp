#include <Eigen/Core>
#include <algorithm>
#include <vector>

#include "kernels/common/bias_rows.h"
#include "kernels/common/parallel.h"
#include "kernels/common/room.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/gemm_panels.h"

// oneDNN runs on one thread per tile; without OpenMP in this build it could not be told to.
#if defined(RETORT_WITH_ONEDNN) && defined(_OPENMP)
#include <oneapi/dnnl/dnnl.h>
#define RETORT_GEMM_ONEDNN 1
#else
#define RETORT_GEMM_ONEDNN 0
#endif

namespace retort::kernels {

CudaOp<GemmArgs> gemm_cuda = nullptr;

namespace {

// Note [Tiles of the matrix product]
//   How a library splits K between threads would change the order of summation with the number of
//   threads. So C is cut here, by its shape alone, and every tile is a one-thread call. A tile
//   packs its own copy of its rows of A and columns of B, so tiles are large (512 x 768 costs 4 %
//   against one call) unless that gives too few of them, and never have less work than kLeastWork:
//   one thread is then done before a second one has woken up.
constexpr std::int64_t kTileRows = 512, kTileColumns = 768, kEnoughTiles = 8;
constexpr double kLeastWork = 1 << 20, kPerElement = 4;  // multiply-adds

struct Tiling {
  std::int64_t rows, columns, down, across;
};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The edge of `parts` tiles, a multiple of 16, so that no tile is left with a sliver.
std::int64_t edge_of(std::int64_t size, std::int64_t parts) {
  return ceil_div(ceil_div(size, parts), 16) * 16;
}

Tiling tiling_of(std::int64_t m, std::int64_t n, std::int64_t k) {
  const double dm = static_cast<double>(m), dn = static_cast<double>(n),
               dk = static_cast<double>(k);
  // A product with a size of 1 or 2 waits for memory: an element read costs as much as kPerElement
  // multiply-adds.
  const double work = std::max(dm * dn * dk, kPerElement * (dm * dn + dm * dk + dn * dk));
  std::int64_t down = ceil_div(m, kTileRows), across = ceil_div(n, kTileColumns);
  while (down * across < kEnoughTiles && work / static_cast<double>(2 * down * across) > kLeastWork)
    (m / down > n / across ? down : across) *= 2;
  while (down * across > 1 && work / static_cast<double>(down * across) < kLeastWork) {
    std::int64_t& more = down > across ? down : across;
    more = (more + 1) / 2;
  }
  const std::int64_t rows = edge_of(m, down), columns = edge_of(n, across);
  return {rows, columns, ceil_div(m, rows), ceil_div(n, columns)};
}

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using View = Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>;

// One tile on this thread: c (m, n) := alpha * op(a) op(b) + beta * c.
template <class T>
void tile_product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                  const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                  std::int64_t ldc) {
  Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>> out(c, m, n, Eigen::OuterStride<>(ldc));
  if (beta == T{0})
    out.setZero();
  else if (beta != T{1})
    out *= beta;
  const View<T> va(a, ta ? k : m, ta ? m : k, Eigen::OuterStride<>(lda));
  const View<T> vb(b, tb ? n : k, tb ? k : n, Eigen::OuterStride<>(ldb));
  if (!ta && !tb)
    out.noalias() += alpha * (va * vb);
  else if (!ta)
    out.noalias() += alpha * (va * vb.transpose());
  else if (!tb)
    out.noalias() += alpha * (va.transpose() * vb);
  else
    out.noalias() += alpha * (va.transpose() * vb.transpose());
}

#if RETORT_GEMM_ONEDNN
template <>
void tile_product<float>(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k,
                         float alpha, const float* a, std::int64_t lda, const float* b,
                         std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  // The library generates its code at the first call, and crashes where it gets no memory for it.
  static const bool has_room = (require_room(std::size_t{32} << 20, "gemm"), true);
  static_cast<void>(has_room);
  const OneOpenMpThread one;
  const dnnl_status_t status =
      dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (status != dnnl_success)
    fail(status == dnnl_out_of_memory ? ErrorCode::kMemory : ErrorCode::kDevice,
         "[gemm] oneDNN refused (", m, ", ", k, ") x (", k, ", ", n, ") with status ",
         static_cast<int>(status));
}
#endif

// A linear layer's forward product of so many rows that they pay for packing B, and not so large
// that a library's blocking is better.
bool suits_panels(const GemmArgs& g) {
  constexpr std::int64_t kLeastRows = 96, kLeast = 8;
  constexpr double kMostWork = 1 << 28;
  return !g.transpose_a && g.transpose_b && g.alpha == 1 && g.beta == 0 && g.m >= kLeastRows &&
         g.n >= kLeast && g.k >= kLeast &&
         static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) <=
             kMostWork;
}

// An element is the same bits in whatever tile it is, so here the tiles may depend on the threads.
// They are columns, because each packs its columns of B, until those get narrow.
Tiling panel_tiling(const GemmArgs& g) {
  constexpr std::int64_t kLeastColumns = 64, kRowUnit = 12, kColumnUnit = 32;
  const double work =
      static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  const std::int64_t threads = thread_count(),
                     most = std::max<std::int64_t>(1, static_cast<std::int64_t>(work / kLeastWork)),
                     wanted = most >= 2 * threads ? 2 * threads : std::min(most, threads);
  const std::int64_t across = std::clamp<std::int64_t>(g.n / kLeastColumns, 1, wanted),
                     down = std::clamp<std::int64_t>(g.m / kRowUnit, 1, ceil_div(wanted, across));
  const auto edge = [](std::int64_t size, std::int64_t parts, std::int64_t unit) {
    return ceil_div(ceil_div(size, parts), unit) * unit;
  };
  const std::int64_t rows = edge(g.m, down, kRowUnit), columns = edge(g.n, across, kColumnUnit);
  return {rows, columns, ceil_div(g.m, rows), ceil_div(g.n, columns)};
}

// The activation of a tile right behind its product, while it is in the cache: z (rows, columns)
// into c. The bias, if not null, is still to be added.
template <class T>
void finish_tile(const GemmArgs& g, T* z, T* c, const T* bias, std::int64_t rows,
                 std::int64_t columns) {
  if (z != c && bias != nullptr) {  // Z is wanted whole
    bias_rows<T>(z, z, bias, rows, columns, g.ldc, Activation::kNone);
    bias = nullptr;
  }
  if (z != c || bias != nullptr || g.activation != Activation::kNone)
    bias_rows<T>(c, z, bias, rows, columns, g.ldc, g.activation);
}

// z is where the product goes: C, or where Z is kept.
void product_over_panels(const GemmArgs& g, const float* a, const float* b, float* z, float* c,
                         const float* bias) {
  const Tiling t = panel_tiling(g);
  const bool relu = z == c && g.activation == Activation::kRelu,  // in registers
      finish = !relu && (z != c || g.activation != Activation::kNone);
  parallel_for(t.down * t.across, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t i = tile / t.across * t.rows, j = tile % t.across * t.columns;
      const std::int64_t rows = std::min(t.rows, g.m - i), columns = std::min(t.columns, g.n - j);
      const std::int64_t at = i * g.ldc + j;
      panel_product({z + at, a + i * g.lda, b + j * g.ldb, bias ? bias + j : nullptr, rows, columns,
                     g.k, g.lda, g.ldb, g.ldc, relu});
      if (finish) finish_tile<float>(g, z + at, c + at, nullptr, rows, columns);
    }
  });
}

template <class T>
void product(const GemmArgs& g, const T* a, const T* b, T* c, const T* bias) {
  T* const z = g.pre_activation != nullptr ? static_cast<T*>(g.pre_activation) : c;
  if constexpr (std::is_same_v<T, float>)
    if (g.row_alone || suits_panels(g)) return product_over_panels(g, a, b, z, c, bias);
  const T alpha = static_cast<T>(g.alpha), beta = static_cast<T>(g.beta);
  const Tiling t = tiling_of(g.m, g.n, g.k);
  parallel_for(t.down * t.across, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t i = tile / t.across * t.rows, j = tile % t.across * t.columns;
      const std::int64_t rows = std::min(t.rows, g.m - i), columns = std::min(t.columns, g.n - j);
      T* const out = z + i * g.ldc + j;
      if (g.k > 0) {
        tile_product<T>(g.transpose_a, g.transpose_b, rows, columns, g.k, alpha,
                        a + (g.transpose_a ? i : i * g.lda), g.lda,
                        b + (g.transpose_b ? j * g.ldb : j), g.ldb, beta, out, g.ldc);
      } else {
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t q = 0; q < columns; ++q)
            out[r * g.ldc + q] = beta == T{0} ? T{0} : beta * out[r * g.ldc + q];
      }
      finish_tile<T>(g, out, c + i * g.ldc + j, bias ? bias + j : nullptr, rows, columns);
    }
  });
}

void widen(float* to, const bf16* from, std::int64_t rows, std::int64_t width, std::int64_t pitch) {
  parallel_for(rows, std::max<std::int64_t>(1, 65536 / (width + 1)),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i)
                   for (std::int64_t j = 0; j < width; ++j)
                     to[i * width + j] = to_float(from[i * pitch + j]);
               });
}

// bf16: the f32 product of widened copies; Z and f(Z) are each rounded once.
void product_bf16(const Context& context, const GemmArgs& args) {
  const std::int64_t a_rows = args.transpose_a ? args.k : args.m,
                     a_width = args.transpose_a ? args.m : args.k,
                     b_rows = args.transpose_b ? args.n : args.k,
                     b_width = args.transpose_b ? args.k : args.n;
  const std::int64_t total = args.m * args.k + args.k * args.n + args.m * args.n + args.n;
  float* const a =
      static_cast<float*>(context.scratch->get(static_cast<std::size_t>(total) * sizeof(float)));
  float* const b = a + args.m * args.k;
  float* const c = b + args.k * args.n;
  float* const bias = c + args.m * args.n;
  bf16* const out = static_cast<bf16*>(args.c);
  bf16* const pre = static_cast<bf16*>(args.pre_activation);
  widen(a, static_cast<const bf16*>(args.a), a_rows, a_width, args.lda);
  widen(b, static_cast<const bf16*>(args.b), b_rows, b_width, args.ldb);
  if (args.beta != 0) widen(c, pre ? pre : out, args.m, args.n, args.ldc);
  if (args.bias) widen(bias, static_cast<const bf16*>(args.bias), 1, args.n, args.n);
  GemmArgs wide = args;
  wide.lda = a_width;
  wide.ldb = b_width;
  wide.ldc = args.n;
  wide.pre_activation = nullptr;
  if (pre != nullptr) wide.activation = Activation::kNone;
  product<float>(wide, a, b, c, args.bias ? bias : nullptr);
  const auto round = [n = args.n, ldc = args.ldc](bf16* to, const float* from, std::int64_t i) {
    for (std::int64_t j = 0; j < n; ++j) to[i * ldc + j] = to_bf16(from[i * n + j]);
  };
  parallel_for(args.m, std::max<std::int64_t>(1, 65536 / args.n),
               [=, &args](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   if (pre != nullptr) {
                     round(pre, c, i);
                     bias_rows<float>(c + i * args.n, c + i * args.n, nullptr, 1, args.n, args.n,
                                      args.activation);
                   }
                   round(out, c, i);
                 }
               });
}

}  // namespace

void gemm_cpu(const Context& context, const GemmArgs& args) {
  dispatch_float(args.dtype, "gemm", [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>)
      product_bf16(context, args);
    else
      product<T>(args, static_cast<const T*>(args.a), static_cast<const T*>(args.b),
                 static_cast<T*>(args.c), static_cast<const T*>(args.bias));
  });
}

}  // namespace retort::kernels
