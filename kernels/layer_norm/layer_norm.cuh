// CUDA kernels of layer normalisation and their launch configuration.
#pragma once
#include "kernels/common/row_io.cuh"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

inline constexpr int kLayerNormThreads = 256, kLayerNormWarps = kLayerNormThreads / 32;
inline constexpr int kLayerNormHeld = 32;  // elements of a row that a thread holds at most
// Up to here a warp takes a row, else a block.
inline constexpr std::int64_t kLayerNormWarpChannels = 32 * kLayerNormHeld;

/// Elements v .. v + kVec of a row, 0 behind its end. `whole`: 16-byte loads are allowed and the
/// row ends with a vector.
template <class T, int kVec>
SIMT_D void load_elements(const T* row, int v, int n, bool whole, float (&x)[kVec]) {
  constexpr int kStep = RowAccess<T>::kVec;
  if (whole && v < n) {
#pragma unroll
    for (int i = 0; i < kVec; i += kStep) {
      float part[kStep];
      unpack(row + v + i, part);
#pragma unroll
      for (int j = 0; j < kStep; ++j) x[i + j] = part[j];
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j) x[j] = v + j < n ? to_float(row[v + j]) : 0.0f;
}
template <class T, int kVec>
SIMT_D void store_elements(T* row, int v, int n, bool whole, const float (&x)[kVec]) {
  if (whole && v < n) {
    pack(row + v, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    if (v + j < n) row[v + j] = from_float<T>(x[j]);
}

/// The sum over the threads of a row.
template <int kThreads>
SIMT_D float layer_norm_sum(float x, [[maybe_unused]] float* shared) {
  x = warp_sum(x);
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[0];
    for (int w = 1; w < kThreads / 32; ++w) x += shared[w];
  }
  return x;
}

/// x := x / (1 - p) or 0, elements v .. of row n.
template <int kVec>
SIMT_D void drop_elements(const DropoutArgs& drop, const DropoutKey& key, float scale,
                          std::int64_t n, int v, float (&x)[kVec]) {
  const std::uint32_t sample = dropout_sample(drop, n),
                      block = dropout_first_block(drop, n) +
                              static_cast<std::uint32_t>(v / kDropoutBlock);
#pragma unroll
  for (int i = 0; i < kVec; i += kDropoutBlock) {
    const Philox4 words =
        dropout_words(key, sample, block + static_cast<std::uint32_t>(i / kDropoutBlock));
#pragma unroll
    for (int k = 0; k < kDropoutBlock; ++k)
      x[i + k] = dropout_value(x[i + k], words.v[k], key.threshold, scale);
  }
}

// One warp (eight rows a block) or one block per row, which its threads hold in registers: vector c
// of 16 bytes belongs to thread c mod kThreads.
// Shared: a float a warp where a block takes the row. Launch: any rows, channels up to
// kThreads * kChunks vectors.
template <class T, int kThreads, int kChunks, bool kDrops>
__global__ void __launch_bounds__(kLayerNormThreads)
    layer_norm_row_kernel(const LayerNormArgs a, bool whole) {
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_SHARED(float, shared, [kLayerNormWarps]);
  const std::int64_t r = kThreads == 32
                             ? std::int64_t{blockIdx.x} * kLayerNormWarps + threadIdx.x / 32
                             : std::int64_t{blockIdx.x};
  if (r >= a.rows) return;
  const int rank = static_cast<int>(threadIdx.x) % kThreads, n = static_cast<int>(a.channels);
  const T* const x = static_cast<const T*>(a.x) + r * a.x_pitch;
  const T* const residual =
      a.residual ? static_cast<const T*>(a.residual) + r * a.residual_pitch : nullptr;
  [[maybe_unused]] const DropoutKey key = dropout_key(a.drop);
  [[maybe_unused]] const float kept = static_cast<float>(1 / (1 - a.drop.p));
  float s[kChunks][kVec];
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int v = (rank + i * kThreads) * kVec;
    load_elements<T, kVec>(x, v, n, whole, s[i]);
    if constexpr (kDrops)
      if (v < n) drop_elements<kVec>(a.drop, key, kept, r, v, s[i]);
    if (residual != nullptr) {
      float more[kVec];
      load_elements<T, kVec>(residual, v, n, whole, more);
#pragma unroll
      for (int j = 0; j < kVec; ++j) s[i][j] += more[j];
    }
    if (kDrops || residual != nullptr) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) s[i][j] = to_float(from_float<T>(s[i][j]));
    }
    if (a.sum != nullptr)
      store_elements<T, kVec>(static_cast<T*>(a.sum) + r * n, v, n, whole, s[i]);
#pragma unroll
    for (int j = 0; j < kVec; ++j) total += s[i][j];
  }
  const float count = static_cast<float>(n);
  const float mean = layer_norm_sum<kThreads>(total, shared) / count;
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kChunks; ++i)
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float e = s[i][j] - mean;
      if ((rank + i * kThreads) * kVec + j < n) squares += e * e;
    }
  const float var = layer_norm_sum<kThreads>(squares, shared) / count;
  const float rstd = 1.0f / sqrtf(var + static_cast<float>(a.epsilon));
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int v = (rank + i * kThreads) * kVec;
    float w[kVec], b[kVec];
    load_elements<float, kVec>(static_cast<const float*>(a.weight), v, n, whole, w);
    load_elements<float, kVec>(static_cast<const float*>(a.bias), v, n, whole, b);
#pragma unroll
    for (int j = 0; j < kVec; ++j) w[j] = (s[i][j] - mean) * rstd * w[j] + b[j];
    store_elements<T, kVec>(static_cast<T*>(a.y) + r * n, v, n, whole, w);
  }
  if (a.mean != nullptr && rank == 0)
    static_cast<float*>(a.mean)[r] = mean, static_cast<float*>(a.rstd)[r] = rstd;
}

// One block per band of kLayerNormBand rows; its warps take rows w, w + 8, ... of it, or all of it
// row by row. Each thread adds up its columns of dweight and dbias over its rows; the warps' sums
// are added in order and become partial[band] (2, channels).
// Shared: 2 * 32 * kChunks vectors of floats where warps take rows, dynamic; a float a warp.
// Launch: grid of bands, block 256.
template <class T, int kThreads, int kChunks, bool kDrops>
__global__ void __launch_bounds__(kLayerNormThreads, 1)
    layer_norm_backward_band_kernel(const LayerNormBackwardArgs a, float* partial, bool whole) {
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_DYNAMIC_SHARED(float, s_sums);
  SIMT_SHARED(float, shared, [kLayerNormWarps]);
  const int thread = static_cast<int>(threadIdx.x), rank = thread % kThreads,
            n = static_cast<int>(a.channels);
  const std::int64_t first = std::int64_t{blockIdx.x} * kLayerNormBand,
                     last = first + kLayerNormBand < a.rows ? first + kLayerNormBand : a.rows;
  const float count = static_cast<float>(n);
  [[maybe_unused]] const DropoutKey key = dropout_key(a.drop);
  [[maybe_unused]] const float kept = static_cast<float>(1 / (1 - a.drop.p));
  const float* const weight = static_cast<const float*>(a.weight);
  float dweight[kChunks][kVec], dbias[kChunks][kVec];
#pragma unroll
  for (int i = 0; i < kChunks; ++i)
#pragma unroll
    for (int j = 0; j < kVec; ++j) dweight[i][j] = dbias[i][j] = 0.0f;
  for (std::int64_t r = first + (kThreads == 32 ? thread / 32 : 0); r < last;
       r += kThreads == 32 ? kLayerNormWarps : 1) {
    const T *const dy = static_cast<const T*>(a.dy) + r * a.dy_pitch, *const s =
                                                                          static_cast<const T*>(
                                                                              a.s) +
                                                                          r * a.s_pitch;
    const float mean = static_cast<const float*>(a.mean)[r],
                rstd = static_cast<const float*>(a.rstd)[r];
    float d[kChunks][kVec], xhat[kChunks][kVec];
    float sum_g = 0.0f, sum_gx = 0.0f;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int v = (rank + i * kThreads) * kVec;
      float w[kVec];
      load_elements<T, kVec>(dy, v, n, whole, d[i]);
      load_elements<T, kVec>(s, v, n, whole, xhat[i]);
      load_elements<float, kVec>(weight, v, n, whole, w);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        xhat[i][j] = v + j < n ? (xhat[i][j] - mean) * rstd : 0.0f;
        dweight[i][j] += d[i][j] * xhat[i][j];
        dbias[i][j] += d[i][j];
        const float g = d[i][j] * w[j];
        sum_g += g;
        sum_gx += g * xhat[i][j];
      }
    }
    if (a.ds == nullptr && a.dx == nullptr) continue;
    const float mean_g = layer_norm_sum<kThreads>(sum_g, shared) / count,
                mean_gx = layer_norm_sum<kThreads>(sum_gx, shared) / count;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int v = (rank + i * kThreads) * kVec;
      float w[kVec];
      load_elements<float, kVec>(weight, v, n, whole, w);
#pragma unroll
      for (int j = 0; j < kVec; ++j)
        d[i][j] = rstd * (d[i][j] * w[j] - mean_g - xhat[i][j] * mean_gx);
      if (a.ds != nullptr) {
        T* const ds = static_cast<T*>(a.ds) + r * n;
        float all[kVec];
#pragma unroll
        for (int j = 0; j < kVec; ++j) all[j] = 0.0f;
        if (a.add_to_ds) load_elements<T, kVec>(ds, v, n, whole, all);
#pragma unroll
        for (int j = 0; j < kVec; ++j) all[j] += d[i][j];
        store_elements<T, kVec>(ds, v, n, whole, all);
      }
      if constexpr (kDrops) {
        if (v >= n) continue;
        drop_elements<kVec>(a.drop, key, kept, r, v, d[i]);
        store_elements<T, kVec>(static_cast<T*>(a.dx) + r * n, v, n, whole, d[i]);
      }
    }
  }
  if (partial == nullptr) return;
  float* const to = partial + std::int64_t{blockIdx.x} * 2 * n;
  if constexpr (kThreads > 32) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const int c = (rank + i * kThreads) * kVec + j;
        if (c < n) to[c] = dweight[i][j], to[n + c] = dbias[i][j];
      }
  } else {
    constexpr int kWidth = 32 * kChunks * kVec;
    for (int w = 0; w < kLayerNormWarps; ++w) {
      if (thread / 32 == w)
#pragma unroll
        for (int i = 0; i < kChunks; ++i)
#pragma unroll
          for (int j = 0; j < kVec; ++j) {
            const int c = (rank + i * kThreads) * kVec + j;
            s_sums[c] = w == 0 ? dweight[i][j] : s_sums[c] + dweight[i][j];
            s_sums[kWidth + c] = w == 0 ? dbias[i][j] : s_sums[kWidth + c] + dbias[i][j];
          }
      __syncthreads();
    }
    for (int c = thread; c < n; c += kLayerNormThreads)
      to[c] = s_sums[c], to[n + c] = s_sums[kWidth + c];
  }
}

// The sum over bands of a column of dweight or dbias, in double. One thread per column of both.
// Shared: none. Launch: grid ceil(2 channels / 256), block 256.
static __global__ void __launch_bounds__(kLayerNormThreads)
    layer_norm_finish_thread_per_column_kernel(float* dweight, float* dbias, const float* partial,
                                               std::int64_t bands, std::int64_t channels) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kLayerNormThreads + threadIdx.x;
  if (c >= 2 * channels) return;
  double sum = 0;
  for (std::int64_t b = 0; b < bands; ++b)
    sum += static_cast<double>(partial[b * 2 * channels + c]);
  (c < channels ? dweight[c] : dbias[c - channels]) = static_cast<float>(sum);
}

// Calls f<T, threads a row, vectors a thread>().
template <class F>
void layer_norm_dispatch(const char* name, DType dtype, std::int64_t channels, F&& f) {
  RETORT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "[", name,
               "] expected f32 or bf16 on cuda, got ", name_of(dtype));
  RETORT_CHECK(channels <= kLayerNormMostChannels, "[", name, "] expected at most ",
               kLayerNormMostChannels, " channels on cuda, got ", channels);
  const auto of = [&]<class T>() {
    constexpr int kVec = RowAccess<T>::kVec;
    const auto with = [&]<int kThreads>() {
      const std::int64_t vectors = (channels + kVec - 1) / kVec,
                         each = (vectors + kThreads - 1) / kThreads;
      if constexpr (kThreads == 32 || kVec == 8)  // a block's row has more than 1,024 elements
        if (each <= 1) return f.template operator()<T, kThreads, 1>();
      if (each <= 2) return f.template operator()<T, kThreads, 2>();
      if (each <= 4) return f.template operator()<T, kThreads, 4>();
      if constexpr (kVec == 4) return f.template operator()<T, kThreads, 8>();
    };
    static_assert(kLayerNormHeld == (kVec == 4 ? 8 : 4) * kVec);
    channels <= kLayerNormWarpChannels ? with.template operator()<32>()
                                       : with.template operator()<kLayerNormThreads>();
  };
  dtype == DType::kF32 ? of.template operator()<float>() : of.template operator()<bf16>();
}

}  // namespace SIMT_NS

/// True where rows of such pitches are read and written 16 bytes at a time.
template <class... P>
bool layer_norm_is_whole(DType dtype, std::int64_t channels, std::int64_t pitch_a,
                         std::int64_t pitch_b, P... pointers) {
  const std::int64_t vector = 16 / static_cast<std::int64_t>(size_of(dtype));
  return channels % vector == 0 && pitch_a % vector == 0 && pitch_b % vector == 0 &&
         ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

inline void layer_norm_launch(const Context& context, const LayerNormArgs& given) {
  using namespace SIMT_NS;
  LayerNormArgs a = given;
  a.drop.columns = a.channels;
  const bool whole =
      layer_norm_is_whole(a.dtype, a.channels, a.x_pitch, a.residual ? a.residual_pitch : 0, a.x,
                          a.residual, a.y, a.sum, a.weight, a.bias);
  layer_norm_dispatch("layer_norm", a.dtype, a.channels, [&]<class T, int kThreads, int kChunks>() {
    const std::int64_t rows = kThreads == 32 ? kLayerNormWarps : 1,
                       blocks = (a.rows + rows - 1) / rows;
    RETORT_CHECK(blocks < std::int64_t{1} << 31, "[layer_norm] expected fewer rows, got ", a.rows);
    simt::launch({"layer_norm", static_cast<unsigned>(blocks), kLayerNormThreads, 0,
                  static_cast<cudaStream_t>(context.stream)},
                 a.drop.p > 0 ? layer_norm_row_kernel<T, kThreads, kChunks, true>
                              : layer_norm_row_kernel<T, kThreads, kChunks, false>,
                 a, whole);
  });
}

inline void layer_norm_backward_launch(const Context& context, const LayerNormBackwardArgs& given) {
  using namespace SIMT_NS;
  LayerNormBackwardArgs a = given;
  a.drop.columns = a.channels;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const bool whole = layer_norm_is_whole(a.dtype, a.channels, a.dy_pitch, a.s_pitch, a.dy, a.s,
                                         a.ds, a.dx, a.weight);
  const std::int64_t bands = (a.rows + kLayerNormBand - 1) / kLayerNormBand;
  RETORT_CHECK(bands < std::int64_t{1} << 31, "[layer_norm] expected fewer rows, got ", a.rows);
  float* partial = nullptr;
  if (a.dweight != nullptr)
    partial = static_cast<float*>(context.scratch->get(
        static_cast<std::size_t>((bands + 1) * 2 * a.channels) * sizeof(float)));
  if (bands > 0)
    layer_norm_dispatch(
        "layer_norm_backward", a.dtype, a.channels, [&]<class T, int kThreads, int kChunks>() {
          const std::size_t shared =
              kThreads == 32 ? sizeof(float) * 2 * 32 * kChunks * RowAccess<T>::kVec : 0;
          simt::launch({"layer_norm_backward", static_cast<unsigned>(bands), kLayerNormThreads,
                        shared, stream},
                       a.dx != nullptr
                           ? layer_norm_backward_band_kernel<T, kThreads, kChunks, true>
                           : layer_norm_backward_band_kernel<T, kThreads, kChunks, false>,
                       a, partial, whole);
        });
  if (a.dweight != nullptr)
    simt::launch(
        {"layer_norm_backward",
         static_cast<unsigned>((2 * a.channels + kLayerNormThreads - 1) / kLayerNormThreads),
         kLayerNormThreads, 0, stream},
        layer_norm_finish_thread_per_column_kernel, static_cast<float*>(a.dweight),
        static_cast<float*>(a.dbias), partial, bands, a.channels);
}

}  // namespace retort::kernels
