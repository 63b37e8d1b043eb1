#include "kernels/common/column_moments.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/column_moments.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace retort {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Note [Row blocks]: sums over rows keep their columns in registers. Where a row is wider than the
// registers hold, rows are taken eight at a time, so that memory is read nearly in order; the sums
// wait in `out` between the blocks, and each column is still added up in row order.
constexpr std::int64_t kRowBlock = 8;

// out[j] = sum over rows of f(row, j), j < width, each column in row order.
// f(d, row, j) gives a vector; it is also called with a one-lane d for the last columns.
template <class T, class F>
HWY_INLINE void column_sums(std::int64_t rows, std::int64_t width, T* out, F&& f) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> one;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t block = width <= 4 * n ? rows : kRowBlock;
  for (std::int64_t j = 0; j < width; ++j) out[j] = 0;
  for (std::int64_t begin = 0; begin < rows; begin += block) {
    const std::int64_t end = begin + block < rows ? begin + block : rows;
    std::int64_t j = 0;
    for (; j + 4 * n <= width; j += 4 * n) {
      auto a0 = hn::LoadU(d, out + j), a1 = hn::LoadU(d, out + j + n);
      auto a2 = hn::LoadU(d, out + j + 2 * n), a3 = hn::LoadU(d, out + j + 3 * n);
      for (std::int64_t r = begin; r < end; ++r) {
        a0 = hn::Add(a0, f(d, r, j));
        a1 = hn::Add(a1, f(d, r, j + n));
        a2 = hn::Add(a2, f(d, r, j + 2 * n));
        a3 = hn::Add(a3, f(d, r, j + 3 * n));
      }
      hn::StoreU(a0, d, out + j);
      hn::StoreU(a1, d, out + j + n);
      hn::StoreU(a2, d, out + j + 2 * n);
      hn::StoreU(a3, d, out + j + 3 * n);
    }
    for (; j + n <= width; j += n) {
      auto a = hn::LoadU(d, out + j);
      for (std::int64_t r = begin; r < end; ++r) a = hn::Add(a, f(d, r, j));
      hn::StoreU(a, d, out + j);
    }
    for (; j < width; ++j) {
      auto a = hn::LoadU(one, out + j);
      for (std::int64_t r = begin; r < end; ++r) a = hn::Add(a, f(one, r, j));
      hn::StoreU(a, one, out + j);
    }
  }
}

// mean[j] and m2[j] = sum of (x - mean[j])^2 of each column of (rows, width). Sums of differences
// to the first row: they stay small where the mean is large.
template <class T>
HWY_INLINE void stats(const T* x, std::int64_t rows, std::int64_t width, T* mean, T* m2) {
  column_sums<T>(rows, width, mean, [=](auto d, std::int64_t r, std::int64_t j) HWY_ATTR {
    return hn::Sub(hn::LoadU(d, x + r * width + j), hn::LoadU(d, x + j));
  });
  const T inverse = T{1} / static_cast<T>(rows);
  for (std::int64_t j = 0; j < width; ++j) mean[j] = x[j] + mean[j] * inverse;
  column_sums<T>(rows, width, m2, [=](auto d, std::int64_t r, std::int64_t j) HWY_ATTR {
    const auto e = hn::Sub(hn::LoadU(d, x + r * width + j), hn::LoadU(d, mean + j));
    return hn::Mul(e, e);
  });
}

void moments_f32(const float* x, std::int64_t rows, std::int64_t width, float* mean, float* m2) {
  stats<float>(x, rows, width, mean, m2);
}
void moments_f64(const double* x, std::int64_t rows, std::int64_t width, double* mean, double* m2) {
  stats<double>(x, rows, width, mean, m2);
}

}  // namespace HWY_NAMESPACE
}  // namespace retort
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <vector>

namespace retort {
namespace {

HWY_EXPORT(moments_f32);
HWY_EXPORT(moments_f64);

void moments_of(const float* x, std::int64_t rows, std::int64_t width, float* mean, float* m2) {
  HWY_DYNAMIC_DISPATCH(moments_f32)(x, rows, width, mean, m2);
}
void moments_of(const double* x, std::int64_t rows, std::int64_t width, double* mean, double* m2) {
  HWY_DYNAMIC_DISPATCH(moments_f64)(x, rows, width, mean, m2);
}

// Moments gathered from parts, per column.
struct Merged {
  explicit Merged(std::int64_t columns)
      : mean(static_cast<std::size_t>(columns)), m2(static_cast<std::size_t>(columns)) {}
  // To column c, `n` rows; `before` rows are in it already.
  void add(std::size_t c, double before, double n, double mean_b, double m2_b) {
    const double delta = mean_b - mean[c], share = n / (before + n);
    mean[c] += delta * share;
    m2[c] += m2_b + delta * delta * before * share;
  }
  std::vector<double> mean, m2;
};

constexpr std::int64_t kBlockRows = 256;  // folded ones: of a sum in the type of x

template <class T>
void moments(const T* x, std::int64_t rows, std::int64_t columns, T* mean, T* m2) {
  const std::int64_t fold = column_fold(columns), width = fold * columns, whole = rows / fold;
  if (fold == 1 && rows <= kBlockRows) return moments_of(x, rows, columns, mean, m2);
  Merged merged(columns);
  std::vector<T> part(static_cast<std::size_t>(2 * width));
  T *const part_mean = part.data(), *const part_m2 = part_mean + width;
  double before = 0;
  for (std::int64_t begin = 0; begin < whole; begin += kBlockRows) {
    const std::int64_t count = std::min(kBlockRows, whole - begin);
    moments_of(x + begin * width, count, width, part_mean, part_m2);
    for (std::int64_t k = 0; k < fold; ++k, before += static_cast<double>(count))
      for (std::int64_t c = 0; c < columns; ++c)
        merged.add(static_cast<std::size_t>(c), before, static_cast<double>(count),
                   static_cast<double>(part_mean[k * columns + c]),
                   static_cast<double>(part_m2[k * columns + c]));
  }
  for (std::int64_t r = whole * fold; r < rows; ++r, before += 1)
    for (std::int64_t c = 0; c < columns; ++c)
      merged.add(static_cast<std::size_t>(c), before, 1, static_cast<double>(x[r * columns + c]),
                 0);
  for (std::int64_t c = 0; c < columns; ++c) {
    mean[c] = static_cast<T>(merged.mean[static_cast<std::size_t>(c)]);
    m2[c] = static_cast<T>(merged.m2[static_cast<std::size_t>(c)]);
  }
}

}  // namespace

void column_moments(const float* x, std::int64_t rows, std::int64_t columns, float* mean,
                    float* m2) {
  moments(x, rows, columns, mean, m2);
}
void column_moments(const double* x, std::int64_t rows, std::int64_t columns, double* mean,
                    double* m2) {
  moments(x, rows, columns, mean, m2);
}

}  // namespace retort
#endif  // HWY_ONCE
