// CUDA kernels of the elementwise ops and their launch configuration.
#pragma once
#include "kernels/elementwise/elementwise.h"
#include "kernels/simt/pack.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// All: one thread per pack of kWidth elements (16 bytes), grid-stride, tail by single elements.
// Shared: none. Launch: any one-dimensional grid; kWidth > 1 wants pointers aligned for it.
template <Unary kOp, class T, int kWidth>
__global__ void __launch_bounds__(256)
    unary_thread_per_pack_kernel(T* y, const T* x, accumulator_t<T> a, accumulator_t<T> b,
                                 std::int64_t n) {
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto in = load_pack<kW>(x + i);
    Pack<T, kW> out;
#pragma unroll
    for (int k = 0; k < kW; ++k)
      out.v[k] = from_float<T>(unary_forward<kOp, accumulator_t<T>>(to_float(in.v[k]), a, b));
    store_pack(y + i, out);
  });
}

template <Unary kOp, class T, int kWidth>
__global__ void __launch_bounds__(256)
    unary_backward_thread_per_pack_kernel(T* dx, const T* dy, const T* saved, accumulator_t<T> a,
                                          std::int64_t n) {
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto r_dy = load_pack<kW>(dy + i);
    Pack<T, kW> r_saved = r_dy, out;
    if constexpr (kOp != Unary::kAffine) r_saved = load_pack<kW>(saved + i);
#pragma unroll
    for (int k = 0; k < kW; ++k)
      out.v[k] = from_float<T>(
          unary_backward<kOp, accumulator_t<T>>(to_float(r_dy.v[k]), to_float(r_saved.v[k]), a));
    store_pack(dx + i, out);
  });
}

template <Binary kOp, class T, int kWidth, bool kScalar>
__global__ void __launch_bounds__(256)
    binary_thread_per_pack_kernel(T* y, const T* x1, const T* x2, std::int64_t n) {
  using A = accumulator_t<T>;
  A scalar = 0;
  if constexpr (kScalar) scalar = to_float(x2[0]);
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto r1 = load_pack<kW>(x1 + i);
    Pack<T, kW> r2 = r1, out;
    if constexpr (!kScalar) r2 = load_pack<kW>(x2 + i);
#pragma unroll
    for (int k = 0; k < kW; ++k)
      out.v[k] = from_float<T>(
          binary_forward<kOp, A>(to_float(r1.v[k]), kScalar ? scalar : A(to_float(r2.v[k]))));
    store_pack(y + i, out);
  });
}

template <class To, class From, int kWidth>
__global__ void __launch_bounds__(256)
    cast_thread_per_pack_kernel(To* to, const From* from, std::int64_t n) {
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    const auto in = load_pack<kW>(from + i);
    Pack<To, kW> out;
#pragma unroll
    for (int k = 0; k < kW; ++k) out.v[k] = convert<To, From>(in.v[k]);
    store_pack(to + i, out);
  });
}

// One thread per element of a pitched matrix; blockIdx.y strides over rows, x over columns.
// Launch: any grid.
template <class To, class From>
__global__ void __launch_bounds__(256)
    cast_thread_per_element_kernel(To* to, const From* from, std::int64_t rows,
                                   std::int64_t columns, std::int64_t to_pitch,
                                   std::int64_t from_pitch) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y)
#pragma unroll 1
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < columns;
         c += step)
      to[r * to_pitch + c] = convert<To, From>(from[r * from_pitch + c]);
}

template <class T>
__global__ void __launch_bounds__(256)
    fill_thread_per_element_kernel(T* to, T value, std::int64_t rows, std::int64_t columns,
                                   std::int64_t pitch) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y)
#pragma unroll 1
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < columns;
         c += step)
      to[r * pitch + c] = value;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(256) fill_thread_per_pack_kernel(T* to, T value, std::int64_t n) {
  for_each_pack<kWidth>(n, [&](std::int64_t i, auto width) {
    constexpr int kW = decltype(width)::value;
    Pack<T, kW> out;
#pragma unroll
    for (int k = 0; k < kW; ++k) out.v[k] = value;
    store_pack(to + i, out);
  });
}

// One thread.
static __global__ void advance_one_thread_kernel(std::int64_t* counter, std::int64_t by,
                                                 const std::int32_t* skip) {
  if (skip == nullptr || *skip == 0) *counter += by;
}

}  // namespace SIMT_NS

namespace SIMT_NS {

// Elements of a pack: 16 bytes, but one f64 (two at a time spill in exp and its kin).
template <class T>
inline constexpr int kElementwisePack = sizeof(T) == 8 ? 1 : 16 / static_cast<int>(sizeof(T));

// Calls f with integral_constant<int, kElementwisePack> if the pointers allow it, else 1.
template <class T, class F>
void with_width(bool aligned, F&& f) {
  if (kElementwisePack < T >> 1 && aligned)
    f(std::integral_constant<int, kElementwisePack<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

inline LaunchConfig stream_config(const Context& context, const char* name, std::int64_t n,
                                  int width) {
  return {name, blocks_for(n, width), 256, 0, static_cast<cudaStream_t>(context.stream)};
}

inline LaunchConfig matrix_config(const Context& context, const char* name, std::int64_t rows,
                                  std::int64_t columns) {
  return {name, dim3(blocks_for(columns, 1), static_cast<unsigned>(rows < 65535 ? rows : 65535)),
          256, 0, static_cast<cudaStream_t>(context.stream)};
}

}  // namespace SIMT_NS

inline void unary_launch(const Context& context, const UnaryArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    T* const y = static_cast<T*>(args.y);
    const T* const x = static_cast<const T*>(args.x);
    with_width<T>(packs_aligned<16 / sizeof(T)>(y, x), [&](auto width) {
      constexpr int kW = decltype(width)::value;
      dispatch_unary(args.op, [&]<Unary kOp>() {
        simt::launch(stream_config(context, name_of(kOp), args.n, kW),
                     unary_thread_per_pack_kernel<kOp, T, kW>, y, x,
                     static_cast<accumulator_t<T>>(args.a), static_cast<accumulator_t<T>>(args.b),
                     args.n);
      });
    });
  });
}

inline void unary_backward_launch(const Context& context, const UnaryBackwardArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    T* const dx = static_cast<T*>(args.dx);
    const T* const dy = static_cast<const T*>(args.dy);
    const T* const saved = static_cast<const T*>(args.saved);
    with_width<T>(packs_aligned<16 / sizeof(T)>(dx, dy, saved), [&](auto width) {
      constexpr int kW = decltype(width)::value;
      dispatch_unary(args.op, [&]<Unary kOp>() {
        simt::launch(stream_config(context, name_of(kOp), args.n, kW),
                     unary_backward_thread_per_pack_kernel<kOp, T, kW>, dx, dy, saved,
                     static_cast<accumulator_t<T>>(args.a), args.n);
      });
    });
  });
}

inline void binary_launch(const Context& context, const BinaryArgs& args) {
  using namespace SIMT_NS;
  dispatch_float(args.dtype, name_of(args.op), [&]<class T>() {
    T* const y = static_cast<T*>(args.y);
    const T* const x1 = static_cast<const T*>(args.x1);
    const T* const x2 = static_cast<const T*>(args.x2);
    const bool aligned = packs_aligned<16 / sizeof(T)>(y, x1) &&
                         (args.x2_is_scalar || packs_aligned<16 / sizeof(T)>(x2));
    with_width<T>(aligned, [&](auto width) {
      constexpr int kW = decltype(width)::value;
      dispatch_bool(args.x2_is_scalar, [&](auto scalar) {
        dispatch_binary(args.op, [&]<Binary kOp>() {
          simt::launch(stream_config(context, name_of(kOp), args.n, kW),
                       binary_thread_per_pack_kernel<kOp, T, kW, decltype(scalar)::value>, y, x1,
                       x2, args.n);
        });
      });
    });
  });
}

inline void cast_launch(const Context& context, const CastArgs& args) {
  using namespace SIMT_NS;
  const bool flat =
      args.rows == 1 || (args.to_pitch == args.columns && args.from_pitch == args.columns);
  const std::int64_t n = args.rows * args.columns;
  const auto run = [&]<class To, class From>() {
    To* const to = static_cast<To*>(args.to);
    const From* const from = static_cast<const From*>(args.from);
    if (flat && packs_aligned<4>(to, from)) {
      simt::launch(stream_config(context, "cast", n, 4), cast_thread_per_pack_kernel<To, From, 4>,
                   to, from, n);
      return;
    }
    simt::launch(matrix_config(context, "cast", flat ? 1 : args.rows, flat ? n : args.columns),
                 cast_thread_per_element_kernel<To, From>, to, from, flat ? 1 : args.rows,
                 flat ? n : args.columns, args.to_pitch, args.from_pitch);
  };
  if (args.to_dtype == args.from_dtype) {  // a copy: only the size matters
    switch (size_of(args.to_dtype)) {
      case 8: return run.template operator()<std::int64_t, std::int64_t>();
      case 4: return run.template operator()<std::int32_t, std::int32_t>();
      case 2: return run.template operator()<bf16, bf16>();
      default: return run.template operator()<std::uint8_t, std::uint8_t>();
    }
  }
  dispatch_any(args.to_dtype, [&]<class To>() {
    dispatch_any(args.from_dtype, [&]<class From>() {
      if constexpr (!std::is_same_v<To, From>) run.template operator()<To, From>();
    });
  });
}

inline void fill_launch(const Context& context, const FillArgs& args) {
  using namespace SIMT_NS;
  const std::int64_t n = args.rows * args.columns;
  dispatch_any(args.dtype, [&]<class T>() {
    T* const to = static_cast<T*>(args.to);
    const T value = convert<T, double>(args.value);
    constexpr int kW = 16 / sizeof(T);
    if ((args.rows == 1 || args.pitch == args.columns) && packs_aligned<kW>(to))
      simt::launch(stream_config(context, "fill", n, kW), fill_thread_per_pack_kernel<T, kW>, to,
                   value, n);
    else
      simt::launch(matrix_config(context, "fill", args.rows, args.columns),
                   fill_thread_per_element_kernel<T>, to, value, args.rows, args.columns,
                   args.pitch);
  });
}

inline void advance_launch(const Context& context, const AdvanceArgs& args) {
  using namespace SIMT_NS;
  simt::launch({"advance", 1, 1, 0, static_cast<cudaStream_t>(context.stream)},
               advance_one_thread_kernel, args.counter, args.by, args.skip);
}

}  // namespace retort::kernels
