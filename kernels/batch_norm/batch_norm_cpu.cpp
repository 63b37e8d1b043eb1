// CPU side of batch_norm. Rows are folded until a row has about 64 elements, so that few channels
// fill vectors too: (R, 16) is read as (R / 4, 64). Chunks of rows stay in the first caches.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm/batch_norm_cpu.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/batch_norm/batch_norm.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kRowBlock = 8;  // Note [Row blocks] in kernels/common/column_moments.cpp

// Two sums at once, from f(d, row, j, s, t), which adds to s and t.
template <class T, class F>
HWY_INLINE void column_sums2(std::int64_t rows, std::int64_t width, T* out_s, T* out_t, F&& f) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> one;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t block = width <= 4 * n ? rows : kRowBlock;
  for (std::int64_t j = 0; j < width; ++j) out_s[j] = out_t[j] = 0;
  for (std::int64_t begin = 0; begin < rows; begin += block) {
    const std::int64_t end = begin + block < rows ? begin + block : rows;
    std::int64_t j = 0;
    for (; j + 4 * n <= width; j += 4 * n) {
      auto s0 = hn::LoadU(d, out_s + j), s1 = hn::LoadU(d, out_s + j + n);
      auto s2 = hn::LoadU(d, out_s + j + 2 * n), s3 = hn::LoadU(d, out_s + j + 3 * n);
      auto t0 = hn::LoadU(d, out_t + j), t1 = hn::LoadU(d, out_t + j + n);
      auto t2 = hn::LoadU(d, out_t + j + 2 * n), t3 = hn::LoadU(d, out_t + j + 3 * n);
      for (std::int64_t r = begin; r < end; ++r) {
        f(d, r, j, s0, t0);
        f(d, r, j + n, s1, t1);
        f(d, r, j + 2 * n, s2, t2);
        f(d, r, j + 3 * n, s3, t3);
      }
      hn::StoreU(s0, d, out_s + j);
      hn::StoreU(s1, d, out_s + j + n);
      hn::StoreU(s2, d, out_s + j + 2 * n);
      hn::StoreU(s3, d, out_s + j + 3 * n);
      hn::StoreU(t0, d, out_t + j);
      hn::StoreU(t1, d, out_t + j + n);
      hn::StoreU(t2, d, out_t + j + 2 * n);
      hn::StoreU(t3, d, out_t + j + 3 * n);
    }
    for (; j + n <= width; j += n) {
      auto s = hn::LoadU(d, out_s + j), t = hn::LoadU(d, out_t + j);
      for (std::int64_t r = begin; r < end; ++r) f(d, r, j, s, t);
      hn::StoreU(s, d, out_s + j);
      hn::StoreU(t, d, out_t + j);
    }
    for (; j < width; ++j) {
      auto s = hn::LoadU(one, out_s + j), t = hn::LoadU(one, out_t + j);
      for (std::int64_t r = begin; r < end; ++r) f(one, r, j, s, t);
      hn::StoreU(s, one, out_s + j);
      hn::StoreU(t, one, out_t + j);
    }
  }
}

// f(d, row, j) for every vector of every row.
template <class T, class F>
HWY_INLINE void each_vector(std::int64_t rows, std::int64_t width, F&& f) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> one;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t j = 0;
    for (; j + n <= width; j += n) f(d, r, j);
    for (; j < width; ++j) f(one, r, j);
  }
}

template <class T, bool kResidual, bool kRelu>
HWY_INLINE void apply(const T* x, const T* residual, T* y, const T* mean, const T* scale,
                      const T* bias, std::int64_t rows, std::int64_t width) {
  each_vector<T>(rows, width, [=](auto d, std::int64_t r, std::int64_t j) HWY_ATTR {
    const std::int64_t i = r * width + j;
    auto v = hn::MulAdd(hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, mean + j)),
                        hn::LoadU(d, scale + j), hn::LoadU(d, bias + j));
    if constexpr (kResidual) v = hn::Add(v, hn::LoadU(d, residual + i));
    // Not Max: a NaN must stay a NaN, so that a broken run is seen.
    if constexpr (kRelu) v = hn::IfThenElseZero(hn::Not(hn::Lt(v, hn::Zero(d))), v);
    hn::StoreU(v, d, y + i);
  });
}

// Where relu lets the gradient through.
enum class Mask { kAll, kFromY, kFromX };

// g: dy where y > 0. From x, y is computed by the very operations of apply, so no sign differs.
template <Mask kMask, class D, class T>
HWY_INLINE hn::Vec<D> masked(D d, const T* dy, const T* y, hn::Vec<D> centred, const T* scale,
                             const T* bias, std::int64_t i, std::int64_t j) {
  const auto g = hn::LoadU(d, dy + i);
  if constexpr (kMask == Mask::kAll) return g;
  if constexpr (kMask == Mask::kFromY)
    return hn::IfThenElseZero(hn::Gt(hn::LoadU(d, y + i), hn::Zero(d)), g);
  const auto v = hn::MulAdd(centred, hn::LoadU(d, scale + j), hn::LoadU(d, bias + j));
  return hn::IfThenElseZero(hn::Gt(v, hn::Zero(d)), g);
}

// sum_g[j] = sum of g, sum_gx[j] = sum of g * (x - mean); g to dresidual if wanted.
template <class T, Mask kMask, bool kStore>
HWY_INLINE void backward_sums(const T* dy, const T* x, const T* y, const T* mean, const T* scale,
                              const T* bias, T* dresidual, std::int64_t rows, std::int64_t width,
                              T* sum_g, T* sum_gx) {
  column_sums2<T>(rows, width, sum_g, sum_gx,
                  [=](auto d, std::int64_t r, std::int64_t j, auto& s, auto& t) HWY_ATTR {
                    const std::int64_t i = r * width + j;
                    const auto e = hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, mean + j));
                    const auto g = masked<kMask>(d, dy, y, e, scale, bias, i, j);
                    if constexpr (kStore) hn::StoreU(g, d, dresidual + i);
                    s = hn::Add(s, g);
                    t = hn::MulAdd(g, e, t);
                  });
}

// dx = a * g + b * (x - mean) + c, where a is also the forward scale.
template <class T, Mask kMask>
HWY_INLINE void backward_apply(const T* dy, const T* x, const T* y, const T* mean, const T* a,
                               const T* bias, const T* b, const T* c, T* dx, std::int64_t rows,
                               std::int64_t width) {
  each_vector<T>(rows, width, [=](auto d, std::int64_t r, std::int64_t j) HWY_ATTR {
    const std::int64_t i = r * width + j;
    const auto e = hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, mean + j));
    const auto g = masked<kMask>(d, dy, y, e, a, bias, i, j);
    const auto v =
        hn::MulAdd(hn::LoadU(d, a + j), g, hn::MulAdd(hn::LoadU(d, b + j), e, hn::LoadU(d, c + j)));
    hn::StoreU(v, d, dx + i);
  });
}

#define RETORT_BN_EXPORT(T, suffix)                                                               \
  void apply_##suffix(const T* x, const T* residual, T* y, const T* mean, const T* scale,         \
                      const T* bias, std::int64_t rows, std::int64_t width, bool relu) {          \
    if (residual != nullptr)                                                                      \
      (relu ? apply<T, true, true> : apply<T, true, false>)(x, residual, y, mean, scale, bias,    \
                                                            rows, width);                         \
    else                                                                                          \
      (relu ? apply<T, false, true> : apply<T, false, false>)(x, residual, y, mean, scale, bias,  \
                                                              rows, width);                       \
  }                                                                                               \
  void backward_sums_##suffix(const T* dy, const T* x, const T* y, const T* mean, const T* scale, \
                              const T* bias, T* dresidual, std::int64_t rows, std::int64_t width, \
                              T* sum_g, T* sum_gx, bool relu) {                                   \
    if (y != nullptr && dresidual != nullptr)                                                     \
      backward_sums<T, Mask::kFromY, true>(dy, x, y, mean, scale, bias, dresidual, rows, width,   \
                                           sum_g, sum_gx);                                        \
    else if (y != nullptr)                                                                        \
      backward_sums<T, Mask::kFromY, false>(dy, x, y, mean, scale, bias, dresidual, rows, width,  \
                                            sum_g, sum_gx);                                       \
    else if (relu)                                                                                \
      backward_sums<T, Mask::kFromX, false>(dy, x, y, mean, scale, bias, dresidual, rows, width,  \
                                            sum_g, sum_gx);                                       \
    else                                                                                          \
      backward_sums<T, Mask::kAll, false>(dy, x, y, mean, scale, bias, dresidual, rows, width,    \
                                          sum_g, sum_gx);                                         \
  }                                                                                               \
  void backward_apply_##suffix(const T* dy, const T* x, const T* y, const T* mean, const T* a,    \
                               const T* bias, const T* b, const T* c, T* dx, std::int64_t rows,   \
                               std::int64_t width, bool relu) {                                   \
    if (y != nullptr)                                                                             \
      backward_apply<T, Mask::kFromY>(dy, x, y, mean, a, bias, b, c, dx, rows, width);            \
    else if (relu)                                                                                \
      backward_apply<T, Mask::kFromX>(dy, x, y, mean, a, bias, b, c, dx, rows, width);            \
    else                                                                                          \
      backward_apply<T, Mask::kAll>(dy, x, y, mean, a, bias, b, c, dx, rows, width);              \
  }
RETORT_BN_EXPORT(float, f32)
RETORT_BN_EXPORT(double, f64)
#undef RETORT_BN_EXPORT

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/common/bf16_convert.h"
#include "kernels/common/column_moments.h"
#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<BatchNormArgs> batch_norm_cuda = nullptr;
CudaOp<BatchNormBackwardArgs> batch_norm_backward_cuda = nullptr;

namespace {

HWY_EXPORT(apply_f32);
HWY_EXPORT(apply_f64);
HWY_EXPORT(backward_sums_f32);
HWY_EXPORT(backward_sums_f64);
HWY_EXPORT(backward_apply_f32);
HWY_EXPORT(backward_apply_f64);

// One set of functions per arithmetic type, so that the code below is written once.
template <class A>
struct Simd;
template <>
struct Simd<float> {
  template <class... P>
  static void apply(P... p) {
    HWY_DYNAMIC_DISPATCH(apply_f32)(p...);
  }
  template <class... P>
  static void backward_sums(P... p) {
    HWY_DYNAMIC_DISPATCH(backward_sums_f32)(p...);
  }
  template <class... P>
  static void backward_apply(P... p) {
    HWY_DYNAMIC_DISPATCH(backward_apply_f32)(p...);
  }
};
template <>
struct Simd<double> {
  template <class... P>
  static void apply(P... p) {
    HWY_DYNAMIC_DISPATCH(apply_f64)(p...);
  }
  template <class... P>
  static void backward_sums(P... p) {
    HWY_DYNAMIC_DISPATCH(backward_sums_f64)(p...);
  }
  template <class... P>
  static void backward_apply(P... p) {
    HWY_DYNAMIC_DISPATCH(backward_apply_f64)(p...);
  }
};

// How (R, C) is cut: rows per folded row, and rows per chunk. From the sizes alone.
struct Cut {
  std::int64_t fold, rows, chunks;
  Cut(std::int64_t all_rows, std::int64_t channels, std::size_t element_bytes) {
    fold = column_fold(channels);
    const std::int64_t row_bytes = channels * static_cast<std::int64_t>(element_bytes);
    rows = (32768 + row_bytes - 1) / row_bytes;
    if (rows < (all_rows + 255) / 256) rows = (all_rows + 255) / 256;
    if (all_rows * row_bytes <= 131072) rows = all_rows < 1 ? 1 : all_rows;  // not worth a thread
    rows = (rows + fold - 1) / fold * fold;
    chunks = (all_rows + rows - 1) / rows;
  }
};

// The per-channel constants, repeated `fold` times.
template <class A>
std::vector<A> folded(const A* values, std::int64_t channels, std::int64_t fold) {
  std::vector<A> out(static_cast<std::size_t>(channels * fold));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = values[i % static_cast<std::size_t>(channels)];
  return out;
}

// Gives chunks of a T array as A: the array itself, or converted through a buffer (bf16).
template <class T, class A>
struct Reader {
  std::vector<A> buffer;
  const A* operator()(const void* base, std::int64_t offset, std::int64_t n) {
    if (base == nullptr) return nullptr;
    const T* const p = static_cast<const T*>(base) + offset;
    if constexpr (std::is_same_v<T, A>) {
      return p;
    } else {
      buffer.resize(static_cast<std::size_t>(n));
      widen(buffer.data(), p, n);
      return buffer.data();
    }
  }
};
template <class T, class A>
struct Writer {
  std::vector<A> buffer;
  A* begin(void* base, std::int64_t offset, std::int64_t n) {
    if (base == nullptr) return nullptr;
    if constexpr (std::is_same_v<T, A>) return static_cast<T*>(base) + offset;
    buffer.resize(static_cast<std::size_t>(n));
    return buffer.data();
  }
  void end(void* base, std::int64_t offset, std::int64_t n) {
    if constexpr (!std::is_same_v<T, A>) {
      if (base == nullptr) return;
      narrow(static_cast<T*>(base) + offset, buffer.data(), n);
    }
  }
};

// Calls f(offset, folded_rows, width) for the part of [begin, end) that folds, then for the rest,
// which is fewer than `fold` rows seen as one row.
template <class F>
void folded_parts(std::int64_t begin, std::int64_t end, std::int64_t fold, std::int64_t channels,
                  F&& f) {
  const std::int64_t whole = (end - begin) / fold, rest = (end - begin) % fold;
  if (whole > 0) f(begin * channels, whole, fold * channels);
  if (rest > 0) f((begin + whole * fold) * channels, std::int64_t{1}, rest * channels);
}

template <class T>
void forward(const BatchNormArgs& args) {
  using A = accumulator_t<T>;
  const std::int64_t channels = args.channels;
  const auto width = static_cast<std::size_t>(channels);
  const Cut cut(args.rows, channels, sizeof(A));
  A *const mean = static_cast<A*>(args.mean), *const rstd = static_cast<A*>(args.rstd);
  A* const running_mean = static_cast<A*>(args.running_mean);
  A* const running_var = static_cast<A*>(args.running_var);
  if (args.training) {
    // (chunks, 2, C): given, or from x.
    const std::int64_t chunk_rows = args.statistics ? args.statistics_rows : cut.rows;
    const std::int64_t chunks = (args.rows + chunk_rows - 1) / chunk_rows;
    const A* partial = static_cast<const A*>(args.statistics);
    std::vector<A> own;
    if (partial == nullptr) {
      own.resize(2 * width * static_cast<std::size_t>(chunks));
      partial = own.data();
      parallel_for(args.rows, chunk_rows, [&](std::int64_t begin, std::int64_t end) {
        A* const mean_of_chunk = own.data() + begin / chunk_rows * 2 * channels;
        Reader<T, A> read;
        column_moments(read(args.x, begin * channels, (end - begin) * channels), end - begin,
                       channels, mean_of_chunk, mean_of_chunk + channels);
      });
    }
    const double n = static_cast<double>(args.rows);
    const auto rows_of = [&](std::int64_t chunk) {
      return static_cast<double>(chunk + 1 == chunks ? args.rows - chunk * chunk_rows : chunk_rows);
    };
    std::vector<double> sum(width), square(width);
    for (std::int64_t k = 0; k < chunks; ++k)
      for (std::size_t c = 0; c < width; ++c)
        sum[c] +=
            rows_of(k) * static_cast<double>(partial[static_cast<std::size_t>(k) * 2 * width + c]);
    for (std::size_t c = 0; c < width; ++c) sum[c] /= n;
    for (std::int64_t k = 0; k < chunks; ++k)
      for (std::size_t c = 0; c < width; ++c) {
        const std::size_t at = static_cast<std::size_t>(k) * 2 * width + c;
        const double e = static_cast<double>(partial[at]) - sum[c];
        square[c] += static_cast<double>(partial[at + width]) + rows_of(k) * e * e;
      }
    for (std::size_t c = 0; c < width; ++c) {
      mean[c] = static_cast<A>(sum[c]);
      rstd[c] = static_cast<A>(1 / std::sqrt(square[c] / n + args.epsilon));
      if (running_mean == nullptr) continue;
      const double unbiased = square[c] / (n > 1 ? n - 1 : 1), m = args.momentum;
      running_mean[c] = static_cast<A>((1 - m) * static_cast<double>(running_mean[c]) + m * sum[c]);
      running_var[c] = static_cast<A>((1 - m) * static_cast<double>(running_var[c]) + m * unbiased);
    }
  } else {
    for (std::size_t c = 0; c < width; ++c) {
      mean[c] = running_mean[c];
      rstd[c] = static_cast<A>(1 / std::sqrt(static_cast<double>(running_var[c]) + args.epsilon));
    }
  }
  std::vector<A> scales(width);
  for (std::size_t c = 0; c < width; ++c)
    scales[c] = rstd[c] * static_cast<const A*>(args.weight)[c];
  const std::vector<A> wide_mean = folded(mean, channels, cut.fold),
                       wide_scale = folded(scales.data(), channels, cut.fold),
                       wide_bias = folded(static_cast<const A*>(args.bias), channels, cut.fold);
  parallel_for(args.rows, cut.rows, [&](std::int64_t begin, std::int64_t end) {
    Reader<T, A> read_x, read_residual;
    Writer<T, A> write;
    folded_parts(begin, end, cut.fold, channels,
                 [&](std::int64_t offset, std::int64_t rows, std::int64_t w) {
                   const std::int64_t n = rows * w;
                   const A* const x = read_x(args.x, offset, n);
                   const A* const residual = read_residual(args.residual, offset, n);
                   A* const y = write.begin(args.y, offset, n);
                   Simd<A>::apply(x, residual, y, wide_mean.data(), wide_scale.data(),
                                  wide_bias.data(), rows, w, args.relu);
                   write.end(args.y, offset, n);
                 });
  });
}

template <class T>
void backward(const BatchNormBackwardArgs& args) {
  using A = accumulator_t<T>;
  const std::int64_t channels = args.channels;
  const auto width = static_cast<std::size_t>(channels);
  const Cut cut(args.rows, channels, sizeof(A));
  const A* const weight = static_cast<const A*>(args.weight);
  const A* const rstd = static_cast<const A*>(args.rstd);
  std::vector<A> scales(width), biases(width);
  for (std::size_t c = 0; c < width; ++c) {
    scales[c] = rstd[c] * weight[c];
    if (args.bias != nullptr) biases[c] = static_cast<const A*>(args.bias)[c];
  }
  const std::vector<A> wide_mean = folded(static_cast<const A*>(args.mean), channels, cut.fold),
                       wide_scale = folded(scales.data(), channels, cut.fold),
                       wide_bias = folded(biases.data(), channels, cut.fold);
  const void* const y = args.relu ? args.y : nullptr;
  void* const dresidual = args.dresidual;

  std::vector<A> partial(2 * width * static_cast<std::size_t>(cut.chunks));
  A *const sums_g = partial.data(), *const sums_gx = sums_g + cut.chunks * channels;
  parallel_for(args.rows, cut.rows, [&](std::int64_t begin, std::int64_t end) {
    A* const sum_g = sums_g + begin / cut.rows * channels;
    A* const sum_gx = sums_gx + begin / cut.rows * channels;
    std::vector<A> buffer(static_cast<std::size_t>(2 * cut.fold * channels));
    Reader<T, A> read_dy, read_x, read_y;
    Writer<T, A> write;
    folded_parts(begin, end, cut.fold, channels,
                 [&](std::int64_t offset, std::int64_t rows, std::int64_t w) {
                   const std::int64_t n = rows * w;
                   A *const s = buffer.data(), *const t = s + w;
                   A* const g = write.begin(dresidual, offset, n);
                   Simd<A>::backward_sums(read_dy(args.dy, offset, n), read_x(args.x, offset, n),
                                          read_y(y, offset, n), wide_mean.data(), wide_scale.data(),
                                          wide_bias.data(), g, rows, w, s, t, args.relu);
                   write.end(dresidual, offset, n);
                   for (std::int64_t k = 0; k < w; k += channels)
                     for (std::int64_t c = 0; c < channels; ++c) {
                       sum_g[c] += s[k + c];
                       sum_gx[c] += t[k + c];
                     }
                 });
  });
  std::vector<double> sum_g(width), sum_gx(width);
  for (std::int64_t k = 0; k < cut.chunks; ++k)
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t at = static_cast<std::size_t>(k) * width + c;
      sum_g[c] += static_cast<double>(sums_g[at]);
      sum_gx[c] += static_cast<double>(sums_gx[at]);
    }
  std::vector<A> b(width), c(width);
  const double n = static_cast<double>(args.rows);
  for (std::size_t k = 0; k < width; ++k) {
    const double r = static_cast<double>(rstd[k]), dweight = r * sum_gx[k];
    static_cast<A*>(args.dweight)[k] = static_cast<A>(dweight);
    static_cast<A*>(args.dbias)[k] = static_cast<A>(sum_g[k]);
    if (!args.training || args.rows == 0) continue;
    const double scale = r * static_cast<double>(weight[k]);
    b[k] = static_cast<A>(-scale * r * dweight / n);
    c[k] = static_cast<A>(-scale * sum_g[k] / n);
  }
  if (args.dx == nullptr) return;
  const std::vector<A> wide_b = folded(b.data(), channels, cut.fold),
                       wide_c = folded(c.data(), channels, cut.fold);
  // The masked gradient was just written where a residual wants it: one read instead of two.
  const bool masked = dresidual != nullptr;
  parallel_for(args.rows, cut.rows, [&](std::int64_t begin, std::int64_t end) {
    Reader<T, A> read_dy, read_x, read_y;
    Writer<T, A> write;
    folded_parts(begin, end, cut.fold, channels,
                 [&](std::int64_t offset, std::int64_t rows, std::int64_t w) {
                   const std::int64_t count = rows * w;
                   A* const dx = write.begin(args.dx, offset, count);
                   Simd<A>::backward_apply(
                       read_dy(masked ? dresidual : args.dy, offset, count),
                       read_x(args.x, offset, count), read_y(masked ? nullptr : y, offset, count),
                       wide_mean.data(), wide_scale.data(), wide_bias.data(), wide_b.data(),
                       wide_c.data(), dx, rows, w, args.relu && !masked);
                   write.end(args.dx, offset, count);
                 });
  });
}

}  // namespace

void batch_norm_cpu(const Context&, const BatchNormArgs& args) {
  dispatch_float(args.dtype, "batch_norm", [&]<class T>() { forward<T>(args); });
}

void batch_norm_backward_cpu(const Context&, const BatchNormBackwardArgs& args) {
  dispatch_float(args.dtype, "batch_norm_backward", [&]<class T>() { backward<T>(args); });
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
