// The distillation loss with the row on chip: read once, written once.
#pragma once
#include "kernels/distill_loss/distill_loss_slice.cuh"
#include "kernels/simt/cluster.h"

namespace retort::kernels {
namespace SIMT_NS {

// ---- merges: threads of a block, blocks of a cluster -------------------------------------------

/// A block's sums, relative to its own maxima, for the other blocks to read.
struct alignas(16) BlockPart {
  float max_s, sum_s, sum1_s, at_s;
  float max_t, sum_t, sum1_t, at_t;
  float dot1_t, next_t, kd;
  std::int32_t argmax_s, argmax_t;
};

/// The largest of both over the block. slots: 2 floats a warp.
SIMT_D void block_max(float& a, float& b, float* slots) {
  a = warp_max(a), b = warp_max(b);
  if (threadIdx.x % 32 == 0)
    slots[threadIdx.x / 32] = a, slots[kClusterWarps + threadIdx.x / 32] = b;
  __syncthreads();
  for (int w = 0; w < kClusterWarps; ++w)
    a = fmaxf(a, slots[w]), b = fmaxf(b, slots[kClusterWarps + w]);
}

/// Merges the threads' sums of a block; warp 0 holds the result. slots: kCount floats a warp.
template <int kCount>
SIMT_D void block_sums(float (&x)[kCount], float* slots) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) x[k] = warp_sum(x[k]);
  if (threadIdx.x % 32 == 0)
    for (int k = 0; k < kCount; ++k) slots[k * kClusterWarps + threadIdx.x / 32] = x[k];
  __syncthreads();
  if (threadIdx.x >= 32) return;
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    x[k] = warp_sum(threadIdx.x < kClusterWarps ? slots[k * kClusterWarps + threadIdx.x] : 0.0f);
}

/// The sums of all threads, all relative to the block's maxima; thread 0 holds the result.
/// slots: 10 floats a warp.
SIMT_D void merge_threads(ThreadSums& a, float ties, float* slots) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  float* const nexts = slots + 7 * kClusterWarps;
  float* const first_s = slots + 8 * kClusterWarps;
  float* const first_t = slots + 9 * kClusterWarps;
  const auto first = [](int argmax) {  // -1, none, is the largest
    return static_cast<int>(__reduce_min_sync(~0u, static_cast<unsigned>(argmax)));
  };
  a.t.next = warp_max(a.t.next);
  a.s.argmax = first(a.s.argmax), a.t.argmax = first(a.t.argmax);
  if (thread % 32 == 0) {
    nexts[warp] = a.t.next;
    first_s[warp] = __int_as_float(a.s.argmax), first_t[warp] = __int_as_float(a.t.argmax);
  }
  float x[7] = {a.s.sum, a.s.sum1, a.t.sum, a.t.sum1, a.t.dot1, a.kd, ties};
  block_sums(x, slots);
  if (warp != 0) return;
  const bool is_warp = thread < kClusterWarps;
  a.t.next = warp_max(is_warp ? nexts[thread] : lowest<float>());
  a.s.argmax = first(is_warp ? __float_as_int(first_s[thread]) : -1);
  a.t.argmax = first(is_warp ? __float_as_int(first_t[thread]) : -1);
  a.s.sum = x[0], a.s.sum1 = x[1], a.t.sum = x[2], a.t.sum1 = x[3], a.t.dot1 = x[4], a.kd = x[5];
  if (x[6] > 1.0f) a.t.next = a.t.max;  // the largest occurs twice
}

/// The sums of the row, in every thread, relative to its maxima: lane r takes block r's, and the
/// lanes merge by the same tree in every warp of the cluster. at: the logits at the target.
SIMT_D ThreadSums merge_blocks(BlockPart* part, int size, bool has_teacher, float scale,
                               float& at_s, float& at_t) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ThreadSums merged;
  if (lane < size) {
    const BlockPart b = *map_shared_rank(part, static_cast<unsigned>(lane));
    merged.s = {b.max_s, b.sum_s, b.sum1_s, 0.0f, lowest<float>(), b.argmax_s};
    merged.t = {b.max_t, b.sum_t, b.sum1_t, b.dot1_t, b.next_t, b.argmax_t};
    merged.kd = b.kd;
    at_s = b.at_s, at_t = b.at_t;
  }
  float max_s = merged.s.max, max_t = merged.t.max;
  Group<32>::warp_top(max_s, merged.s.next, merged.s.argmax);
  if (has_teacher) Group<32>::warp_top(max_t, merged.t.next, merged.t.argmax);
  if (lane < size) rebase(merged, max_s, max_t, scale);
  merged.s.max = max_s, merged.t.max = max_t;
  merged.s.sum = warp_sum(merged.s.sum), merged.s.sum1 = warp_sum(merged.s.sum1);
  merged.t.sum = warp_sum(merged.t.sum), merged.t.sum1 = warp_sum(merged.t.sum1);
  merged.t.dot1 = warp_sum(merged.t.dot1), merged.kd = warp_sum(merged.kd);
  at_s = warp_sum(at_s), at_t = warp_sum(at_t);
  return merged;
}

// One cluster of 1, 2, 4 or 8 blocks per row; the plan chooses so that three blocks share a
// multiprocessor. Each block brings its slice of both rows into shared memory by bulk copies
// (kParts parts, one barrier each) and finds its maxima as they arrive; a second sweep over shared
// memory forms the sums: two exponentials a class for tau 1, 2 and 4. Every warp merges the blocks'
// sums over distributed shared memory, lane r taking block r, by the same tree everywhere. A last
// sweep computes the gradient from the slice: two more exponentials. Other divergences than the
// forward KL take one more sweep, and one more exchange, before it. The gradient may take the place
// of the logits: all reads of a slice are done when they arrive. Shared: two slices of slice_chunks
// * 16 bytes (one without a teacher), dynamic. Launch: N clusters of kClusterThreads, on sm_90.
template <class T, class Elements>
__global__ void __launch_bounds__(kClusterThreads, 3)
    distill_loss_cluster_kernel(const DistillLossArgs a, const float* z, float* row_loss,
                                int slice_chunks) {
  constexpr bool kForward = Elements::kForward;
  constexpr int kVec = RowAccess<T>::kVec;
  SIMT_DYNAMIC_SHARED(T, slices);
  SIMT_SHARED(TileBarrier, full, [kParts]);
  SIMT_SHARED(float, slots, [10 * kClusterWarps]);
  SIMT_SHARED(float, slots2, [2 * kClusterWarps]);
  SIMT_SHARED(BlockPart, part, [1]);
  SIMT_SHARED(float2, part2, [1]);
  const int rank = static_cast<int>(cluster_rank()), size = static_cast<int>(cluster_size());
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const std::int64_t i = std::int64_t{blockIdx.x} / size;
  const int classes = static_cast<int>(a.classes);
  const T* const s = static_cast<const T*>(a.student) + i * a.student_pitch;
  const T* const t = a.teacher ? static_cast<const T*>(a.teacher) + i * a.teacher_pitch : nullptr;
  T* const ds = a.dstudent ? static_cast<T*>(a.dstudent) + i * a.dstudent_pitch : nullptr;

  const int phase = phase_of(s);
  const int row_chunks = (classes + phase + kVec - 1) / kVec, each = (row_chunks + size - 1) / size;
  Slice<T> slice;
  slice.classes = classes;
  slice.chunks = max(0, min(each, row_chunks - rank * each));
  slice.v0 = rank * each * kVec - phase;
  slice.step = (each + kParts * kClusterThreads - 1) / (kParts * kClusterThreads) * kClusterThreads;
  const bool whole_store = ds && phase_of(ds) == phase;
  if (ds && rank == size - 1)
    for (int v = thread; v < a.gradient_padding; v += kClusterThreads)
      ds[classes + v] = from_float<T>(0.0f);

  Row<float> row = row_of<float>(a, i);
  if (row.state != RowState::kCounts) {  // for all blocks of the cluster
    const float value = row.state == RowState::kIgnored ? 0.0f : not_a_number<float>();
    float g[kVec];
    for (int j = 0; j < kVec; ++j) g[j] = value;
    if (ds)
      for (int c = thread; c < slice.chunks; c += kClusterThreads)
        store_chunk(ds, slice.v(c), classes, whole_store, g);
    if (rank == 0 && thread == 0) {
      row_loss[i] = value;
      if (a.statistics) store_empty_statistics(a, i, value);
    }
    return;
  }
  const bool statistics = a.statistics != nullptr;
  const bool has_teacher = t && (row.kd_weight != 0.0f || statistics);
  const bool ones = row.ce_weight != 0.0f || statistics;
  if (!has_teacher) row.tau = row.inv_tau = 1.0f;  // one exponential serves both sums
  const float scale = row.inv_tau * kLog2E;

  // ---- the slice arrives; maxima
  T* const mine[2] = {slices, slices + (t ? slice_chunks * kVec : 0)};
  const T* const rows[2] = {s, t};
  const bool bulk[2] = {true, has_teacher && phase_of(t) == phase};
  const int parts = slice.step > 0 ? (slice.chunks + slice.step - 1) / slice.step : 0;
  if (thread == 0) {
    for (int p = 0; p < parts; ++p) tile_barrier_init(full + p, 1);
    tile_barriers_ready();
    for (int p = 0; p < parts; ++p) slice.ask(mine, rows, bulk, p, full + p);
  }
  slice.fill_edges(mine[0], s);
  if (bulk[1])
    slice.fill_edges(mine[1], t);
  else if (has_teacher)
    slice.fill_all(mine[1], t);
  __syncthreads();

  ThreadSums sums;
  for (int p = 0; p < parts; ++p) {
    tile_wait(full + p, 0);
    const int end = slice.begin_of(p + 1);
    for (int c = p * slice.step + thread; c < end; c += kClusterThreads) {
      sums.s.max = fmaxf(sums.s.max, largest_of(mine[0] + c * kVec));
      if (has_teacher) sums.t.max = fmaxf(sums.t.max, largest_of(mine[1] + c * kVec));
    }
  }
  block_max(sums.s.max, sums.t.max, slots2);

  // ---- sums of the block
  float ties = 0.0f, ties_s = 0.0f;  // how often a maximum occurs
  with_power(row.tau, [&](auto power) {
    for (int c = thread; c < slice.chunks; c += kClusterThreads) {
      float x[kVec], y[kVec];
      unpack(mine[0] + c * kVec, x);
      if (has_teacher) unpack(mine[1] + c * kVec, y);
      add_chunk<decltype(power)::value, kForward>(sums, x, y, scale, ones, has_teacher, statistics);
      if (!statistics) continue;
      find_top(sums.s, ties_s, largest_of(mine[0] + c * kVec), x, slice.v(c));
      if (has_teacher) find_top(sums.t, ties, largest_of(mine[1] + c * kVec), y, slice.v(c));
    }
  });
  merge_threads(sums, ties, slots);
  if (thread == 0) {
    const int at = row.target - slice.v0;
    const bool here = row.target >= 0 && at >= 0 && at < slice.chunks * kVec;
    part[0] = {sums.s.max,   sums.s.sum,
               sums.s.sum1,  here ? static_cast<float>(to_float(mine[0][at])) : 0.0f,
               sums.t.max,   sums.t.sum,
               sums.t.sum1,  here && has_teacher ? static_cast<float>(to_float(mine[1][at])) : 0.0f,
               sums.t.dot1,  sums.t.next,
               sums.kd,      sums.s.argmax,
               sums.t.argmax};
  }

  // ---- sums of the row
  cluster_sync();
  float at_s = 0.0f, at_t = 0.0f;
  ThreadSums merged = merge_blocks(part, size, has_teacher, scale, at_s, at_t);
  const float max_s = merged.s.max, max_t = merged.t.max;
  if (!ones) merged.s.sum1 = merged.s.sum;  // only looked at for "is there any mass"
  if (!statistics) merged.t.sum1 = merged.t.sum;

  const bool both = has_teacher && merged.s.sum != 0.0f && merged.t.sum != 0.0f;
  const float log_s = both ? hd_log(merged.s.sum) : 0.0f,
              log_t = both ? hd_log(merged.t.sum) : 0.0f;
  const float inv_s = 1.0f / merged.s.sum, inv_t = 1.0f / merged.t.sum;
  const auto element = [&](float x, float y) {
    const float lx = (x - max_s) * row.inv_tau, ly = (y - max_t) * row.inv_tau;
    const float p = exp2_approx((y - max_t) * scale) * inv_t;
    const float q = exp2_approx((x - max_s) * scale) * inv_s;
    const float k = static_cast<float>(a.parameter);
    return element_by(Elements{}, a, p, q, ly - log_t, lx - log_s, k);
  };
  float divergence = 0.0f, h_sum = -1.0f;
  if (kForward) {
    if (both) divergence = merged.kd * row.inv_tau * inv_t + (log_s - log_t);
  } else if (both) {
    float d[2] = {0.0f, 0.0f};
    for (int c = thread; c < slice.chunks; c += kClusterThreads) {
      float x[kVec], y[kVec];
      unpack(mine[0] + c * kVec, x);
      unpack(mine[1] + c * kVec, y);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const Element<float> e = element(x[j], y[j]);
        d[0] += e.d;
        d[1] += e.h;
      }
    }
    block_sums(d, slots2);
    if (thread == 0) part2[0] = make_float2(d[0], d[1]);
    cluster_sync();
    float2 other = make_float2(0.0f, 0.0f);
    if (lane < size) other = *map_shared_rank(part2, static_cast<unsigned>(lane));
    divergence = warp_sum(other.x), h_sum = warp_sum(other.y);
  }
  cluster_arrive();  // no more reads of other blocks' memory

  const float count = *z;
  const float inv_z = count > 0.0f && is_finite(count) ? 1.0f / count : not_a_number<float>();
  const RowResult<float> r =
      finish_row(row, a.tau_power, inv_z, merged.s, has_teacher, merged.t, divergence, at_s);
  if (rank == 0 && thread == 0) {
    row_loss[i] = r.loss;
    if (statistics) store_statistics(a, i, row, r, merged.s, has_teacher, merged.t, at_t);
  }

  // ---- the gradient
  const bool soft = r.kd_weight != 0.0f, hard = r.ce_weight != 0.0f;
  if (ds)
    with_power(soft ? row.tau : 1.0f, [&](auto power) {
      constexpr int kPower = decltype(power)::value;
      const float own_scale = soft ? scale : kLog2E;
      for (int c = thread; c < slice.chunks; c += kClusterThreads) {
        const int v = slice.v(c);
        float x[kVec], y[kVec], g[kVec];
        unpack(mine[0] + c * kVec, x);
        if (soft) unpack(mine[1] + c * kVec, y);
        if (soft || hard) {
#pragma unroll
          for (int j = 0; j < kVec; ++j) {
            const float dx = x[j] - max_s, e = exp2_approx(dx * own_scale);
            if (kForward || !soft)
              g[j] = r.kd_q * e;
            else
              g[j] = r.kd_weight * (element(x[j], y[j]).h - e * inv_s * h_sum);
            if (kPower != 0 || hard) g[j] += r.ce_scale * at_one<kPower>(e, dx);
          }
          if (kForward && soft)
#pragma unroll
            for (int j = 0; j < kVec; ++j) g[j] -= r.kd_p * exp2_approx((y[j] - max_t) * scale);
          const int hit = row.target - v;
          if (hard && hit >= 0 && hit < kVec)
#pragma unroll
            for (int j = 0; j < kVec; ++j)
              if (j == hit) g[j] -= r.ce_weight;
        } else {
          for (int j = 0; j < kVec; ++j) g[j] = 0.0f;
        }
        store_chunk(ds, v, classes, whole_store, g);
      }
    });
  cluster_wait();
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
