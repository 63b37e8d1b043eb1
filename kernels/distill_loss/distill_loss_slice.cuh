// A block's slice of a student row and its teacher row in shared memory: how it gets there, and the
// sums of one thread over it.
#pragma once
#include <type_traits>

#include "kernels/distill_loss/distill_loss_group.cuh"
#include "kernels/simt/tile.h"

namespace retort::kernels {
namespace SIMT_NS {

inline constexpr int kClusterThreads = 256, kClusterWarps = kClusterThreads / 32;
inline constexpr int kParts = 4;  // a slice arrives in so many parts; work begins with the first

// ---- exponentials at temperature 1 from those at tau -------------------------------------------

/// Calls f(integral_constant<int, k>) with k = tau for 1, 2 and 4, else 0: loops without a choice
/// in them.
template <class F>
SIMT_D void with_power(float tau, F&& f) {
  if (tau == 1.0f)
    f(std::integral_constant<int, 1>{});
  else if (tau == 2.0f)
    f(std::integral_constant<int, 2>{});
  else if (tau == 4.0f)
    f(std::integral_constant<int, 4>{});
  else
    f(std::integral_constant<int, 0>{});
}
/// exp(x) from e = exp(x / tau).
template <int kPower>
SIMT_D float at_one(float e, float x) {
  if constexpr (kPower == 1) return e;
  if constexpr (kPower == 2) return e * e;
  if constexpr (kPower == 4) return (e * e) * (e * e);
  return exp2_approx(x * kLog2E);
}

// ---- a block's slice of the two rows -----------------------------------------------------------

/// Chunk c covers classes [v(c), v(c + 1)); what lies outside the row is -inf.
template <class T>
struct Slice {
  static constexpr int kVec = RowAccess<T>::kVec;
  int v0;      // class of element 0; below 0 if the row begins inside its first chunk
  int chunks;  // 0 if the row has fewer chunks than the cluster has blocks before this one
  int step;    // chunks a part
  int classes;

  SIMT_D int v(int c) const { return v0 + c * kVec; }
  SIMT_D int begin_of(int part) const { return min(part * step, chunks); }

  /// One thread asks for the chunks of a part that lie wholly in the row, from rows[0 .. count).
  SIMT_D void ask(T* const (&to)[2], const T* const (&rows)[2], const bool (&wanted)[2], int part,
                  TileBarrier* barrier) const {
    const int begin = begin_of(part) + (part == 0 && v0 < 0 ? 1 : 0);
    int end = begin_of(part + 1);
    if (end == chunks && v(chunks) > classes) --end;
    const unsigned bytes = end > begin ? static_cast<unsigned>(end - begin) * 16u : 0u;
    tile_expect(barrier, bytes * ((wanted[0] ? 1u : 0u) + (wanted[1] ? 1u : 0u)));
    for (int k = 0; k < 2; ++k)
      if (wanted[k] && bytes != 0)
        tile_load(to[k] + begin * kVec, rows[k] + v(begin), bytes, barrier);
  }
  /// All threads: the chunks that ask() leaves out, element by element.
  SIMT_D void fill_edges(T* to, const T* row) const {
    const int c = threadIdx.x < kVec ? 0 : chunks - 1;
    if (threadIdx.x >= 2 * kVec || c < (threadIdx.x < kVec ? 0 : 1) || chunks == 0) return;
    if (v(c) < 0 || v(c + 1) > classes)
      fill_element(to, row, c * kVec + static_cast<int>(threadIdx.x) % kVec);
  }
  /// All threads: a row that lies differently against 16 bytes.
  SIMT_D void fill_all(T* to, const T* row) const {
    for (int k = threadIdx.x; k < chunks * kVec; k += kClusterThreads) fill_element(to, row, k);
  }
  SIMT_D void fill_element(T* to, const T* row, int k) const {
    const int at = v0 + k;
    to[k] = at >= 0 && at < classes ? row[at] : from_float<T>(float_from_bits(0xff800000u));
  }
};

/// The largest element of a chunk in shared memory. NaN does not count.
SIMT_D float largest_of(const float* p) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
}
SIMT_D float largest_of(const bf16* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t m = max_bf16x2(max_bf16x2(v.x, v.y), max_bf16x2(v.z, v.w));
  return fmaxf(float_from_bits(m << 16), float_from_bits(m & 0xffff0000u));
}

// ---- one chunk ---------------------------------------------------------------------------------

/// One chunk of both rows into the thread's sums; the maxima in `a` are the block's and final.
template <int kPower, bool kForward, int kVec>
SIMT_D void add_chunk(ThreadSums& a, const float (&x)[kVec], const float (&y)[kVec], float scale,
                      bool ones, bool has_teacher, bool statistics) {
  float dx[kVec];
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    dx[j] = x[j] - a.s.max;
    const float e = exp2_approx(dx[j] * scale);
    a.s.sum += e;
    if (kPower != 0) a.s.sum1 += at_one<kPower>(e, 0.0f);
  }
  if (kPower == 0 && ones)
#pragma unroll
    for (int j = 0; j < kVec; ++j) a.s.sum1 += exp2_approx(dx[j] * kLog2E);
  if (!has_teacher) return;
  float dy[kVec], f[kVec];
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    dy[j] = y[j] - a.t.max;
    f[j] = exp2_approx(dy[j] * scale);
    a.t.sum += f[j];
    if (kForward && f[j] > 0.0f) a.kd += f[j] * (dy[j] - dx[j]);
  }
  if (!statistics) return;
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    const float f1 = at_one<kPower>(f[j], dy[j]);
    a.t.sum1 += f1;
    if (f[j] > 0.0f) a.t.dot1 += f1 * dy[j];
  }
}

/// Where the largest element of a row is, how often it occurs, and the largest of the others; chunk
/// by chunk, so that only chunks that hold the maximum are looked at closely.
template <int kVec>
SIMT_D void find_top(LogitSums<float>& a, float& ties, float largest, const float (&x)[kVec],
                     int v) {
  if (largest != a.max) {
    a.next = fmaxf(a.next, largest);
    return;
  }
  for (int j = 0; j < kVec; ++j) {
    if (x[j] == a.max) {
      if (a.argmax < 0) a.argmax = v + j;
      ties += 1.0f;
    } else {
      a.next = fmaxf(a.next, x[j]);
    }
  }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
