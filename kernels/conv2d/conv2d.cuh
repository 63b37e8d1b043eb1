// Launch configurations of the convolution kernels.
#pragma once
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_finish.cuh"
#include "kernels/conv2d/conv2d_images.cuh"
#include "kernels/conv2d/conv2d_warpgroup.cuh"
#include "kernels/conv2d/conv2d_weight.cuh"
#include "kernels/conv2d/conv2d_weight_warpgroup.cuh"

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
  const std::int64_t columns = backward ? s.channels : s.filters;
  simt::launch({"conv2d_pack",
                {static_cast<unsigned>(blocks_for(pitch, 32)),
                 static_cast<unsigned>(blocks_for(columns, 32)),
                 static_cast<unsigned>(backward ? s.stride * s.stride : 1)},
                256,
                0,
                static_cast<cudaStream_t>(context.stream)},
               conv2d_pack_block_per_tile_kernel<T, W>, params);
}

// One pass of images, forward (source x, out y) or backward (source dy, out dx).
struct ImagesCall {
  bool backward;
  Conv2dShape shape;
  const void* source;
  const void* weight;
  DType weight_dtype;
  void* out;
  Conv2dEpilogue epilogue = {};
  void* statistics = nullptr;
  Conv2dAlgorithm algorithm = Conv2dAlgorithm::kAuto;
  // Wide tiles read less than narrow ones, but are taken only when they make at least this many
  // blocks: enough to fill the GPU.
  std::int64_t wide_from = kConv2dMultiprocessors;

  std::int64_t depth() const { return backward ? shape.filters : shape.channels; }
  std::int64_t columns() const { return backward ? shape.channels : shape.filters; }
  std::int64_t phases() const { return backward ? shape.stride * shape.stride : 1; }
  std::int64_t row_blocks() const {
    const std::int64_t by = backward ? shape.stride : 1;
    const std::int64_t out_h = backward ? shape.height : shape.out_height(),
                       out_w = backward ? shape.width : shape.out_width();
    return blocks_for(shape.batch * blocks_for(out_h, by) * blocks_for(out_w, by), 128);
  }
};

// The weights as the kernels read them: as they are where they fit, else packed into scratch.
template <class T>
const T* packed_weights(const Context& context, const ImagesCall& call, std::int64_t pitch,
                        std::int64_t taps) {
  const bool as_they_are = !call.backward && call.weight_dtype == dtype_of<T> &&
                           aligned16(call.weight) && pitch == taps * call.depth();
  if (as_they_are) return static_cast<const T*>(call.weight);
  T* const to = static_cast<T*>(context.scratch->get(
      static_cast<std::size_t>(call.phases() * call.columns() * pitch) * sizeof(T)));
  dispatch_weight_type<T>(call.weight_dtype, [&]<class W>() {
    pack_launch<T, W>(context, call.shape, call.backward, pitch, static_cast<const W*>(call.weight),
                      to);
  });
  return to;
}

template <class T>
ImagesParams<T> images_params(const Context& context, const ImagesCall& call) {
  const Conv2dShape& s = call.shape;
  const bool backward = call.backward;
  constexpr int kE = kChunkElements<T>;
  // The most taps of a phase.
  const std::int64_t taps =
      backward ? blocks_for(s.filter_height, s.stride) * blocks_for(s.filter_width, s.stride)
               : s.filter_height * s.filter_width;
  const std::int64_t pitch = blocks_for(taps * call.depth(), kE) * kE;
  return {static_cast<const T*>(call.source),
          packed_weights<T>(context, call, pitch, taps),
          as_int(s.batch),
          as_int(backward ? s.out_height() : s.height),
          as_int(backward ? s.out_width() : s.width),
          as_int(call.depth()),
          as_int(backward ? s.height : s.out_height()),
          as_int(backward ? s.width : s.out_width()),
          as_int(s.filter_height),
          as_int(s.filter_width),
          as_int(s.stride),
          as_int(s.padding),
          as_int(pitch),
          backward,
          divisor(call.depth()),
          {static_cast<T*>(call.out), static_cast<const T*>(call.epilogue.residual),
           static_cast<const float*>(call.epilogue.bias), static_cast<float*>(call.statistics),
           as_int(call.columns()), call.epilogue.relu,
           call.columns() % kE == 0 && aligned16(call.out) && aligned16(call.epilogue.residual)}};
}

inline bool images_fit_wgmma(const ImagesCall& call, DType dtype) {
  return dtype == DType::kBF16 && call.depth() % kWarpgroupDepth == 0 && aligned16(call.source) &&
         warpgroup_available();
}

inline void images_wgmma_launch(const Context& context, const ImagesCall& call) {
  RETORT_CHECK(images_fit_wgmma(call, DType::kBF16),
               "expected a Hopper GPU, a depth that is a multiple of 64 and 16-byte alignment for "
               "the wgmma convolution, got a depth of ",
               call.depth());
  const ImagesParams<bf16> params = images_params<bf16>(context, call);
  const auto blocks = [&](int columns) {
    return call.row_blocks() * call.phases() * blocks_for(call.columns(), columns);
  };
  auto run = [&]<int kColumns>() {
    simt::launch({"conv2d_images_warpgroup",
                  {static_cast<unsigned>(call.row_blocks()),
                   static_cast<unsigned>(blocks_for(call.columns(), kColumns)),
                   static_cast<unsigned>(call.phases())},
                  kWarpgroupThreads,
                  static_cast<std::size_t>(WarpgroupTile<kColumns>::kBytes),
                  static_cast<cudaStream_t>(context.stream)},
                 conv2d_images_warpgroup_kernel<kColumns>, params);
  };
  if (call.columns() % 256 == 0 && blocks(256) >= call.wide_from)
    return run.template operator()<256>();
  if (call.columns() % 128 == 0 && blocks(128) >= call.wide_from)
    return run.template operator()<128>();
  run.template operator()<64>();
}

template <class T>
void images_mma_launch(const Context& context, const ImagesCall& call) {
  const ImagesParams<T> params = images_params<T>(context, call);
  auto run = [&]<int kColumns, bool kVector>() {
    simt::launch({"conv2d_images",
                  {static_cast<unsigned>(call.row_blocks()),
                   static_cast<unsigned>(blocks_for(call.columns(), kColumns)),
                   static_cast<unsigned>(call.phases())},
                  kConvThreads,
                  static_cast<std::size_t>(kConvStages * (128 + kColumns) * 64),
                  static_cast<cudaStream_t>(context.stream)},
                 conv2d_images_block_per_tile_kernel<T, kColumns, kVector>, params);
  };
  const std::int64_t columns = call.columns();
  const bool vector = call.depth() % kChunkElements<T> == 0 && aligned16(call.source);
  if (!vector) {
    if (columns <= 32) return run.template operator()<32, false>();
    return run.template operator()<64, false>();
  }
  if (columns <= 32) return run.template operator()<32, true>();
  if constexpr (sizeof(T) == 2) {
    if (columns > 64 &&
        call.row_blocks() * call.phases() * blocks_for(columns, 128) >= call.wide_from)
      return run.template operator()<128, true>();
  }
  run.template operator()<64, true>();
}

template <class T>
void images_launch(const Context& context, const ImagesCall& call) {
  check_conv2d_limits(call.shape);
  if constexpr (sizeof(T) == 2) {
    if (call.algorithm == Conv2dAlgorithm::kWgmma ||
        (call.algorithm == Conv2dAlgorithm::kAuto && images_fit_wgmma(call, dtype_of<T>)))
      return images_wgmma_launch(context, call);
  }
  RETORT_CHECK(call.algorithm != Conv2dAlgorithm::kWgmma, "expected bf16 for wgmma, got ",
               name_of(dtype_of<T>));
  images_mma_launch<T>(context, call);
}

// The tile of a weight gradient's blocks, and the slices of its pixels: enough blocks to fill a GPU
// twice, at least 256 pixels each (8 tiles of bf16 or 16 of f32), partial sums below 64 MiB. From
// the shape and kernel alone, so that every GPU and every alignment adds in the same order.
struct WeightCut {
  int rows, columns;  // of a tile
  std::int64_t slice, slices;
  WeightCut(const Conv2dShape& s, int tile_rows, int tile_columns, int depth)
      : rows(tile_rows), columns(tile_columns) {
    const std::int64_t pixels = s.batch * s.out_height() * s.out_width();
    const std::int64_t weights = s.weight_elements();
    const std::int64_t tiles =
        blocks_for(weights / s.filters, columns) * blocks_for(s.filters, rows);
    slices = blocks_for(528, tiles);
    slices = std::min(slices, blocks_for(pixels, 8 * depth));
    slices = std::max<std::int64_t>(std::min(slices, (std::int64_t{16} << 20) / weights), 1);
    slice = std::max<std::int64_t>(blocks_for(blocks_for(pixels, slices), depth), 1) * depth;
    slices = blocks_for(pixels, slice);
  }
};

template <class T>
WeightParams<T> weight_params(const Conv2dBackwardWeightArgs& args, const WeightCut& cut,
                              float* parts) {
  const Conv2dShape& s = args.shape;
  return {static_cast<const T*>(args.x),
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
          as_int(s.weight_elements() / s.filters),
          as_int(s.batch * s.out_height() * s.out_width()),
          as_int(cut.slice),
          s.filters % kChunkElements<T> == 0 && aligned16(args.dy),
          divisor(s.out_width()),
          divisor(s.out_height()),
          divisor(s.channels),
          divisor(s.filter_width)};
}

inline bool weight_fits_wgmma(const Conv2dBackwardWeightArgs& args) {
  return args.dtype == DType::kBF16 && args.shape.channels % 64 == 0 &&
         args.shape.filters % 64 == 0 && aligned16(args.x) && aligned16(args.dy) &&
         warpgroup_available();
}

// The grid of a weight gradient.
template <int kRows, int kColumns>
dim3 weight_grid(const Conv2dShape& s, const WeightCut& cut) {
  return {static_cast<unsigned>(blocks_for(s.weight_elements() / s.filters, kColumns)),
          static_cast<unsigned>(blocks_for(s.filters, kRows)), static_cast<unsigned>(cut.slices)};
}

inline void weight_wgmma_launch(const Context& context, const Conv2dShape& s, const WeightCut& cut,
                                const WeightParams<bf16>& params) {
  auto run = [&]<int kRows>() {
    simt::launch({"conv2d_weight_warpgroup", weight_grid<kRows, 128>(s, cut), 256,
                  static_cast<std::size_t>(WeightWarpgroupTile<kRows, 128>::kBytes),
                  static_cast<cudaStream_t>(context.stream)},
                 conv2d_weight_warpgroup_kernel<kRows, 128>, params);
  };
  cut.rows == 128 ? run.template operator()<128>() : run.template operator()<64>();
}

template <class T>
void weight_mma_launch(const Context& context, const Conv2dBackwardWeightArgs& args,
                       const WeightCut& cut, const WeightParams<T>& params, bool large) {
  const Conv2dShape& s = args.shape;
  auto run = [&]<int kRows, int kColumns, bool kVector>() {
    simt::launch(
        {"conv2d_weight", weight_grid<kRows, kColumns>(s, cut), kConvThreads,
         static_cast<std::size_t>(kConvStages * (kRows + kColumns) * kTileDepth<T>) * sizeof(T),
         static_cast<cudaStream_t>(context.stream)},
        conv2d_weight_block_per_tile_kernel<T, kRows, kColumns, kVector>, params);
  };
  constexpr bool kNarrow = sizeof(T) == 2;
  const bool vector = s.channels % kChunkElements<T> == 0 && aligned16(args.x) && params.vector_dy;
  if (vector && large)
    run.template operator()<128, kNarrow ? 128 : 64, true>();
  else if (kNarrow && cut.rows == 32 && vector)
    run.template operator()<kNarrow ? 32 : 64, 64, true>();
  else if (kNarrow && cut.rows == 32)
    run.template operator()<kNarrow ? 32 : 64, 64, false>();
  else if (vector)
    run.template operator()<64, 64, true>();
  else
    run.template operator()<64, 64, false>();
}

template <class T>
void weight_launch(const Context& context, const Conv2dBackwardWeightArgs& args) {
  const Conv2dShape& s = args.shape;
  check_conv2d_limits(s);
  constexpr int kE = kChunkElements<T>;
  const bool wgmma = args.algorithm != Conv2dAlgorithm::kMma && weight_fits_wgmma(args);
  RETORT_CHECK(wgmma || args.algorithm != Conv2dAlgorithm::kWgmma,
               "expected a Hopper GPU, bf16, channels and filters that are multiples of 64 and "
               "16-byte alignment for wgmma, got ",
               name_of(args.dtype), ", ", s.channels, " and ", s.filters);
  const std::int64_t columns = s.weight_elements() / s.filters, weights = s.weight_elements();
  const bool large = s.channels % kE == 0 && s.filters % kE == 0 && s.filters > 64 && columns > 64;
  const WeightCut cut = wgmma ? WeightCut(s, s.filters % 128 == 0 ? 128 : 64, 128, kWeightDepth)
                              : WeightCut(s,
                                          large                              ? 128
                                          : s.filters > 32 || sizeof(T) == 4 ? 64
                                                                             : 32,
                                          large && sizeof(T) == 2 ? 128 : 64, kTileDepth<T>);
  float* const parts = static_cast<float*>(context.scratch->get(
      static_cast<std::size_t>(std::max<std::int64_t>(cut.slices, 1) * weights) * sizeof(float)));
  const WeightParams<T> params = weight_params<T>(args, cut, parts);
  if (cut.slices > 0) {  // else the batch is empty, and the sum of no slices is zero
    if constexpr (sizeof(T) == 2) {
      if (wgmma) weight_wgmma_launch(context, s, cut, params);
    }
    if (!wgmma) weight_mma_launch<T>(context, args, cut, params, large);
  }
  dispatch_weight_type<T>(args.weight_dtype, [&]<class W>() {
    simt::launch(
        {"conv2d_sum_slices", grid_for(weights), 256, 0, static_cast<cudaStream_t>(context.stream)},
        conv2d_sum_slices_thread_per_element_kernel<W>, static_cast<W*>(args.dweight),
        static_cast<const float*>(parts), weights, as_int(cut.slices));
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
    images_launch<T>(
        context, {false, args.shape, args.x, args.weight, args.weight_dtype, args.y, args.epilogue,
                  args.statistics, args.algorithm, args.multiprocessors});
  });
}

inline void conv2d_backward_data_launch(const Context& context,
                                        const Conv2dBackwardDataArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() {
    images_launch<T>(context, {true,
                               args.shape,
                               args.dy,
                               args.weight,
                               args.weight_dtype,
                               args.dx,
                               {},
                               nullptr,
                               args.algorithm,
                               args.multiprocessors});
  });
}

inline void conv2d_backward_weight_launch(const Context& context,
                                          const Conv2dBackwardWeightArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() { weight_launch<T>(context, args); });
}

}  // namespace retort::kernels
