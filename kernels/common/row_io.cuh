// Rows of f32 or bf16 in chunks of 16 bytes, for kernels that walk over pitched rows of any length
// and alignment.
#pragma once
#include <cstdint>

#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

template <class T>
struct RowAccess {
  static constexpr int kVec = 16 / sizeof(T);
};

/// The row of this thread, and its place among the threads of that row: a warp takes one (kThreads
/// 32, in blocks of several warps), or a block.
template <int kThreads>
SIMT_D std::int64_t row_of_thread() {
  return kThreads == 32 ? std::int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32
                        : std::int64_t{blockIdx.x};
}
template <int kThreads>
SIMT_D int rank_in_row() {
  return static_cast<int>(kThreads == 32 ? threadIdx.x % 32 : threadIdx.x);
}

/// Elements of the row before its first 16-byte boundary, seen from the boundary before it.
template <class T>
SIMT_D int phase_of(const T* row) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % 16 / sizeof(T));
}

SIMT_D void unpack(const float* p, float (&x)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
SIMT_D void unpack(const bf16* p, float (&x)[8]) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = float_from_bits(w[i] << 16);
    x[2 * i + 1] = float_from_bits(w[i] & 0xffff0000u);
  }
}
SIMT_D void pack(float* p, const float (&x)[4]) {
  *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
}
SIMT_D void pack(bf16* p, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
                                            pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

/// Elements [v, v + kVec) of a row; those outside [0, n) read as -inf. `whole` if a 16-byte load
/// is allowed where all are inside.
template <class T>
SIMT_D void load_chunk(const T* row, int v, int n, bool whole, float (&x)[RowAccess<T>::kVec]) {
  constexpr int kVec = RowAccess<T>::kVec;
  if (whole && v >= 0 && v + kVec <= n) {
    unpack(row + v, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    x[j] = v + j >= 0 && v + j < n ? static_cast<float>(to_float(row[v + j]))
                                   : float_from_bits(0xff800000u);
}
template <class T>
SIMT_D void store_chunk(T* row, int v, int n, bool whole, const float (&x)[RowAccess<T>::kVec]) {
  constexpr int kVec = RowAccess<T>::kVec;
  if (whole && v >= 0 && v + kVec <= n) {
    pack(row + v, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    if (v + j >= 0 && v + j < n) row[v + j] = from_float<T>(x[j]);
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
