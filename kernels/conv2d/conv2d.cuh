// Launch configurations of the convolution kernels.
#pragma once
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_finish.cuh"
#include "kernels/conv2d/conv2d_images.cuh"
#include "kernels/conv2d/conv2d_weight.cuh"

namespace retort::kernels {
namespace SIMT_NS {

inline std::int64_t blocks_for(std::int64_t n, std::int64_t per_block) {
  return (n + per_block - 1) / per_block;
}
inline unsigned grid_for(std::int64_t n) {
  const std::int64_t blocks = blocks_for(n, 256);
  return static_cast<unsigned>(blocks < 8192 ? blocks : 8192);
}
inline int as_int(std::int64_t n) { return static_cast<int>(n); }
inline Divisor divisor(std::int64_t d) { return Divisor(static_cast<std::uint32_t>(d)); }

/// Pixel and weight indices are 32-bit in the kernels; element offsets are 64-bit.
inline void check_conv2d_limits(const Conv2dShape& s) {
  const std::int64_t limit = (std::int64_t{1} << 31) - 1024;
  RETORT_CHECK(s.batch * s.height * s.width < limit &&
                   s.batch * s.out_height() * s.out_width() < limit &&
                   s.weight_elements() < limit / 8,
               "expected fewer than 2^31 pixels and 2^28 weights, got ", s.batch, " x ", s.height,
               " x ", s.width, " images and ", s.weight_elements(), " weights");
  RETORT_CHECK(s.stride <= 64 && s.padding < (1 << 20), "expected stride <= 64 and padding < 2^20");
}

template <class T, class F>
void dispatch_weight_type(DType weight_dtype, F&& f) {
  if (weight_dtype == DType::kF32)
    f.template operator()<float>();
  else
    f.template operator()<T>();
}

// The weights as (columns, pitch), one such block per phase: rounded, padded with zeros, and for
// the backward pass transposed.
template <class T, class W>
void pack_launch(const Context& context, const Conv2dShape& s, bool backward, std::int64_t pitch,
                 const W* weight, T* to) {
  const PackParams<T> params{to,
                             weight,
                             as_int(s.filters),
                             as_int(s.filter_height),
                             as_int(s.filter_width),
                             as_int(s.channels),
                             as_int(s.stride),
                             as_int(s.padding),
                             as_int(pitch),
                             backward};
  const std::int64_t packed = (backward ? s.channels : s.filters) * pitch;
  const auto phases = static_cast<unsigned>(backward ? s.stride * s.stride : 1);
  simt::launch({"conv2d_pack",
                {grid_for(packed), phases},
                256,
                0,
                static_cast<cudaStream_t>(context.stream)},
               conv2d_pack_thread_per_element_kernel<T, W>, params);
}

// Forward: source x, out y. Backward: source dy, out dx. Tiles of 128 columns read less than those
// of 64, but are taken only when they make at least `wide_from` blocks: enough to fill a GPU.
template <class T>
void images_launch(const Context& context, bool backward, const Conv2dShape& s, const void* source,
                   const void* weight, DType weight_dtype, void* out,
                   const Conv2dEpilogue& epilogue = {}, void* statistics = nullptr,
                   std::int64_t wide_from = 132) {
  check_conv2d_limits(s);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  constexpr int kE = kChunkElements<T>;
  const std::int64_t source_c = backward ? s.filters : s.channels;
  const std::int64_t columns = backward ? s.channels : s.filters;
  const std::int64_t phases = backward ? s.stride * s.stride : 1;
  // The most taps of a phase.
  const std::int64_t taps =
      backward ? blocks_for(s.filter_height, s.stride) * blocks_for(s.filter_width, s.stride)
               : s.filter_height * s.filter_width;
  const std::int64_t pitch = blocks_for(taps * source_c, kE) * kE;

  const bool as_they_are =
      !backward && weight_dtype == dtype_of<T> && aligned16(weight) && pitch == taps * source_c;
  if (!as_they_are) {
    const std::int64_t packed = columns * pitch;
    T* const to = static_cast<T*>(
        context.scratch->get(static_cast<std::size_t>(phases * packed) * sizeof(T)));
    dispatch_weight_type<T>(weight_dtype, [&]<class W>() {
      pack_launch<T, W>(context, s, backward, pitch, static_cast<const W*>(weight), to);
    });
    weight = to;
  }

  const std::int64_t out_h = backward ? s.height : s.out_height(),
                     out_w = backward ? s.width : s.out_width();
  const ImagesParams<T> params{
      static_cast<const T*>(source),
      static_cast<const T*>(weight),
      as_int(s.batch),
      as_int(backward ? s.out_height() : s.height),
      as_int(backward ? s.out_width() : s.width),
      as_int(source_c),
      as_int(out_h),
      as_int(out_w),
      as_int(s.filter_height),
      as_int(s.filter_width),
      as_int(s.stride),
      as_int(s.padding),
      as_int(pitch),
      backward,
      divisor(source_c),
      {static_cast<T*>(out), static_cast<const T*>(epilogue.residual),
       static_cast<const float*>(epilogue.bias), static_cast<float*>(statistics), as_int(columns),
       epilogue.relu, columns % kE == 0 && aligned16(out) && aligned16(epilogue.residual)}};
  const std::int64_t by = backward ? s.stride : 1;
  const std::int64_t row_blocks =
      blocks_for(s.batch * blocks_for(out_h, by) * blocks_for(out_w, by), 128);
  auto run = [&]<int kColumns, bool kVector>() {
    simt::launch(
        {"conv2d_images",
         {static_cast<unsigned>(row_blocks), static_cast<unsigned>(blocks_for(columns, kColumns)),
          static_cast<unsigned>(phases)},
         kConvThreads,
         static_cast<std::size_t>(kConvStages * (128 + kColumns) * 64),
         stream},
        conv2d_images_block_per_tile_kernel<T, kColumns, kVector>, params);
  };
  const bool vector = source_c % kE == 0 && aligned16(source);
  if (!vector) {
    if (columns <= 32) return run.template operator()<32, false>();
    return run.template operator()<64, false>();
  }
  if (columns <= 32) return run.template operator()<32, true>();
  if constexpr (sizeof(T) == 2) {
    if (columns > 64 && row_blocks * phases * blocks_for(columns, 128) >= wide_from)
      return run.template operator()<128, true>();
  }
  run.template operator()<64, true>();
}

template <class T>
void weight_launch(const Context& context, const Conv2dBackwardWeightArgs& args) {
  const Conv2dShape& s = args.shape;
  check_conv2d_limits(s);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  constexpr int kE = kChunkElements<T>, kDepth = kTileDepth<T>;
  const std::int64_t columns = s.filter_height * s.filter_width * s.channels;
  const std::int64_t weights = s.weight_elements();
  const std::int64_t pixels = s.batch * s.out_height() * s.out_width();

  // Tiles, and slices: enough blocks to fill a GPU twice, at least 8 tiles each, partial sums below
  // 64 MiB. From the shape alone, so that every GPU and every alignment adds in the same order.
  const bool whole_chunks = s.channels % kE == 0 && s.filters % kE == 0;
  const bool large = whole_chunks && s.filters > 64 && columns > 64;
  const int rows = large ? 128 : s.filters > 32 || sizeof(T) == 4 ? 64 : 32;
  const int tile_columns = large && sizeof(T) == 2 ? 128 : 64;
  const std::int64_t tiles = blocks_for(columns, tile_columns) * blocks_for(s.filters, rows);
  std::int64_t slices = blocks_for(528, tiles);
  slices = std::min(slices, blocks_for(pixels, 8 * kDepth));
  slices = std::max<std::int64_t>(std::min(slices, (std::int64_t{16} << 20) / weights), 1);
  const std::int64_t slice =
      std::max<std::int64_t>(blocks_for(blocks_for(pixels, slices), kDepth), 1) * kDepth;
  slices = blocks_for(pixels, slice);

  float* const parts = static_cast<float*>(context.scratch->get(
      static_cast<std::size_t>(std::max<std::int64_t>(slices, 1) * weights) * sizeof(float)));
  const bool vector_dy = s.filters % kE == 0 && aligned16(args.dy);
  const WeightParams<T> params{static_cast<const T*>(args.x),
                               static_cast<const T*>(args.dy),
                               parts,
                               as_int(s.height),
                               as_int(s.width),
                               as_int(s.channels),
                               as_int(s.filters),
                               as_int(s.out_height()),
                               as_int(s.out_width()),
                               as_int(s.stride),
                               as_int(s.padding),
                               as_int(columns),
                               as_int(pixels),
                               as_int(slice),
                               vector_dy,
                               divisor(s.out_width()),
                               divisor(s.out_height()),
                               divisor(s.channels),
                               divisor(s.filter_width)};
  auto run = [&]<int kRows, int kColumns, bool kVector>() {
    simt::launch(
        {"conv2d_weight",
         {static_cast<unsigned>(blocks_for(columns, kColumns)),
          static_cast<unsigned>(blocks_for(s.filters, kRows)), static_cast<unsigned>(slices)},
         kConvThreads,
         static_cast<std::size_t>(kConvStages * (kRows + kColumns) * kDepth) * sizeof(T),
         stream},
        conv2d_weight_block_per_tile_kernel<T, kRows, kColumns, kVector>, params);
  };
  const bool vector = whole_chunks && aligned16(args.x) && vector_dy;
  if (slices > 0) {  // else the batch is empty, and the sum of no slices is zero
    if (vector && large)
      run.template operator()<128, sizeof(T) == 2 ? 128 : 64, true>();
    else if (sizeof(T) == 2 && rows == 32 && vector)
      run.template operator()<sizeof(T) == 2 ? 32 : 64, 64, true>();
    else if (sizeof(T) == 2 && rows == 32)
      run.template operator()<sizeof(T) == 2 ? 32 : 64, 64, false>();
    else if (vector)
      run.template operator()<64, 64, true>();
    else
      run.template operator()<64, 64, false>();
  }
  dispatch_weight_type<T>(args.weight_dtype, [&]<class W>() {
    simt::launch({"conv2d_sum_slices", grid_for(weights), 256, 0, stream},
                 conv2d_sum_slices_thread_per_element_kernel<W>, static_cast<W*>(args.dweight),
                 static_cast<const float*>(parts), weights, as_int(slices));
  });
}

template <class F>
void dispatch_conv2d(DType dtype, F&& f) {
  if (dtype == DType::kBF16) return f.template operator()<bf16>();
  RETORT_CHECK(dtype == DType::kF32, "expected f32 or bf16 on CUDA, got ", name_of(dtype));
  f.template operator()<float>();
}

}  // namespace SIMT_NS

inline void conv2d_launch(const Context& context, const Conv2dArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() {
    images_launch<T>(context, false, args.shape, args.x, args.weight, args.weight_dtype, args.y,
                     args.epilogue, args.statistics);
  });
}

inline void conv2d_backward_data_launch(const Context& context,
                                        const Conv2dBackwardDataArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() {
    images_launch<T>(context, true, args.shape, args.dy, args.weight, args.weight_dtype, args.dx);
  });
}

inline void conv2d_backward_weight_launch(const Context& context,
                                          const Conv2dBackwardWeightArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() { weight_launch<T>(context, args); });
}

}  // namespace retort::kernels
