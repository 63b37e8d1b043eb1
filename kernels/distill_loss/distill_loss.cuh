// CUDA kernels of the distillation loss and their launch configuration. Rows in clusters are in
// distill_loss_cluster.cuh; which kernel takes a launch is decided in distill_loss_plan.h.
#pragma once
#include "kernels/distill_loss/distill_loss_cluster.cuh"
#include "kernels/distill_loss/distill_loss_group.cuh"
#include "kernels/distill_loss/distill_loss_plan.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;
using namespace distill;

// A block a row. The other divergences need more registers than 512 threads leave.
template <bool kForward>
inline constexpr int kBlockThreads = kForward ? 512 : 256;
inline constexpr int kReduceThreads = 1024;

// A few lanes or one warp (kThreads <= 32; blocks of 128 threads hold several rows), or one block
// of kThreads per row. Pass 1: every thread keeps running maxima and sums of its 16-byte chunks
// (chunk c belongs to thread c mod kThreads); the group merges them. Other divergences than the
// forward KL need p and q, so they take one more pass. The last pass reads the logits again (from
// L1 or L2) and writes the gradient; each element is read by the thread that writes it, so the
// gradient may take the place of the logits.
// Shared: 8 floats a warp where the group is a block. Launch: any N, V < 2^31 - 2^13.
template <class T, class Elements, int kThreads>
__global__ void __launch_bounds__(kThreads <= 32 ? 128 : kThreads, kThreads == 512 ? 2 : 3)
    distill_loss_row_kernel(const DistillLossArgs a, const float* z, float* row_loss) {
  constexpr bool kForward = Elements::kForward;
  constexpr int kVec = RowAccess<T>::kVec;
  constexpr bool kShared = kThreads > 32;
  SIMT_SHARED(float, shared, [kShared ? Group<kThreads>::kSlots * (kThreads / 32) : 1]);
  const Group<kThreads> group{shared};
  const std::int64_t i =
      kShared ? std::int64_t{blockIdx.x}
              : std::int64_t{blockIdx.x} * (blockDim.x / kThreads) + threadIdx.x / kThreads;
  if (i >= a.rows) return;  // a whole group; never a part of a block that meets at barriers
  const int rank = group.rank();
  const int classes = static_cast<int>(a.classes);
  const T* const s = static_cast<const T*>(a.student) + i * a.student_pitch;
  const T* const t = a.teacher ? static_cast<const T*>(a.teacher) + i * a.teacher_pitch : nullptr;
  T* const ds = a.dstudent ? static_cast<T*>(a.dstudent) + i * a.dstudent_pitch : nullptr;
  if (ds)
    for (int v = rank; v < a.gradient_padding; v += kThreads) ds[classes + v] = from_float<T>(0.0f);

  Row<float> row = row_of<float>(a, i);
  if (row.state != RowState::kCounts) {
    const float value = row.state == RowState::kIgnored ? 0.0f : not_a_number<float>();
    if (ds)
      for (int v = rank; v < classes; v += kThreads) ds[v] = from_float<T>(value);
    if (rank == 0) {
      row_loss[i] = value;
      if (a.statistics) store_empty_statistics(a, i, value);
    }
    return;
  }
  const bool has_teacher = t && (row.kd_weight != 0.0f || a.statistics);
  if (!has_teacher) row.tau = row.inv_tau = 1.0f;  // one exponential serves both sums
  const T* const other = has_teacher ? t : s;      // without a teacher s is read twice, from L1
  const bool ones = row.ce_weight != 0.0f || a.statistics;
  // 16-byte accesses need all rows in the same phase; the first and last chunk go element by
  // element.
  const int phase = phase_of(s);
  const bool whole = (!has_teacher || phase_of(t) == phase) && (!ds || phase_of(ds) == phase);
  const int first = whole ? -phase : 0;
  const int chunks = (classes - first + kVec - 1) / kVec;
  const float scale = row.inv_tau * kLog2E;
  const float at_s = row.target >= 0 ? static_cast<float>(to_float(s[row.target])) : 0.0f;
  const float at_t =
      row.target >= 0 && has_teacher ? static_cast<float>(to_float(t[row.target])) : 0.0f;

  ThreadSums sums;
  for (int c = rank; c < chunks; c += kThreads) {
    const int v = first + c * kVec;
    float x[kVec], y[kVec];
    load_chunk(s, v, classes, whole, x);
    float max_s = sums.s.max, max_t = sums.t.max;
    track_top(sums.s, max_s, x, v);
    load_chunk(other, v, classes, whole, y);
    if (has_teacher) track_top(sums.t, max_t, y, v);
    if (max_s != sums.s.max || max_t != sums.t.max) rebase(sums, max_s, max_t, scale);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float dx = x[j] - max_s, e = exp2_approx(dx * scale);
      sums.s.sum += e;
      if (ones) sums.s.sum1 += one_from_tau(e, dx, row.tau);
      if (!has_teacher) continue;
      const float dy = y[j] - max_t, f = exp2_approx(dy * scale);
      sums.t.sum += f;
      if (kForward && f > 0.0f) sums.kd += f * (dy - dx);
      if (a.statistics) {
        const float f1 = one_from_tau(f, dy, row.tau);
        sums.t.sum1 += f1;
        if (f1 > 0.0f) sums.t.dot1 += f1 * dy;
      }
    }
  }
  float max_s = sums.s.max, max_t = sums.t.max;
  group.top(max_s, sums.s.next, sums.s.argmax);
  if (has_teacher) group.top(max_t, sums.t.next, sums.t.argmax);
  rebase(sums, max_s, max_t, scale);
  {
    float x[6] = {sums.s.sum, sums.s.sum1, sums.t.sum, sums.t.sum1, sums.t.dot1, sums.kd};
    group.sum(x);
    sums.s.sum = x[0], sums.s.sum1 = x[1], sums.t.sum = x[2], sums.t.sum1 = x[3];
    sums.t.dot1 = x[4], sums.kd = x[5];
  }
  if (!ones) sums.s.sum1 = sums.s.sum;  // only looked at for "is there any mass"
  if (!a.statistics) sums.t.sum1 = sums.t.sum;

  const bool both = has_teacher && sums.s.sum != 0.0f && sums.t.sum != 0.0f;
  const float log_s = both ? hd_log(sums.s.sum) : 0.0f, log_t = both ? hd_log(sums.t.sum) : 0.0f;
  const float inv_s = 1.0f / sums.s.sum, inv_t = 1.0f / sums.t.sum;
  const auto element = [&](float x, float y) {
    const float lx = (x - max_s) * row.inv_tau, ly = (y - max_t) * row.inv_tau;
    const float p = exp2_approx((y - max_t) * scale) * inv_t;
    const float q = exp2_approx((x - max_s) * scale) * inv_s;
    const float k = static_cast<float>(a.parameter);
    return element_by(Elements{}, a, p, q, ly - log_t, lx - log_s, k);
  };
  float divergence = 0.0f, h_sum = -1.0f;
  if (kForward) {
    if (both) divergence = sums.kd * row.inv_tau * inv_t + (log_s - log_t);
  } else if (both) {
    float d[2] = {0.0f, 0.0f};
    for (int c = rank; c < chunks; c += kThreads) {
      const int v = first + c * kVec;
      float x[kVec], y[kVec];
      load_chunk(s, v, classes, whole, x);
      load_chunk(t, v, classes, whole, y);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const Element<float> e = element(x[j], y[j]);
        d[0] += e.d;
        d[1] += e.h;
      }
    }
    group.sum(d);
    divergence = d[0], h_sum = d[1];
  }

  const float count = *z;
  const float inv_z = count > 0.0f && is_finite(count) ? 1.0f / count : not_a_number<float>();
  const RowResult<float> r =
      finish_row(row, a.tau_power, inv_z, sums.s, has_teacher, sums.t, divergence, at_s);
  if (rank == 0) {
    row_loss[i] = r.loss;
    if (a.statistics) store_statistics(a, i, row, r, sums.s, has_teacher, sums.t, at_t);
  }
  if (!ds) return;
  // All have read s[target], which may be ds[target].
  if constexpr (!kShared) __syncwarp(group.mask());
  for (int c = rank; c < chunks; c += kThreads) {
    const int v = first + c * kVec;
    float x[kVec], y[kVec], g[kVec];
    load_chunk(s, v, classes, whole, x);
    load_chunk(other, v, classes, whole, y);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float dx = x[j] - max_s;
      g[j] = 0.0f;
      float e = 0.0f;
      if (r.kd_weight != 0.0f) {
        e = exp2_approx(dx * scale);
        if (kForward) {
          g[j] = r.kd_q * e - r.kd_p * exp2_approx((y[j] - max_t) * scale);
        } else {
          g[j] = r.kd_weight * (element(x[j], y[j]).h - e * inv_s * h_sum);
        }
      }
      if (r.ce_weight != 0.0f) {
        const float e1 =
            r.kd_weight != 0.0f ? one_from_tau(e, dx, row.tau) : exp2_approx(dx * kLog2E);
        g[j] += r.ce_scale * e1;
        if (v + j == row.target) g[j] -= r.ce_weight;
      }
    }
    store_chunk(ds, v, classes, whole, g);
  }
}

// Number of rows that count. One block; integers, so any order gives the same sum.
__global__ void __launch_bounds__(kReduceThreads)
    count_rows_one_block_kernel(const CountRowsArgs a) {
  SIMT_SHARED(int, shared, [kReduceThreads / 32]);
  int n = 0;
  for (std::int64_t i = threadIdx.x; i < a.rows; i += blockDim.x) n += !is_ignored(a, i);
  n = __reduce_add_sync(~0u, n);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = n;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int total = 0;
  for (int w = 0; w < kReduceThreads / 32; ++w) total += shared[w];
  *a.count = static_cast<float>(total);
}

// total := sum of row_loss, and the first invalid row. One block: thread k sums rows k, k + 1024,
// ..., then a tree; the order depends on N alone.
__global__ void __launch_bounds__(kReduceThreads)
    distill_loss_total_kernel(const DistillLossArgs a, const float* row_loss) {
  SIMT_SHARED(double, sums, [kReduceThreads]);
  SIMT_SHARED(int, firsts, [kReduceThreads / 32]);
  double sum = 0;
  int first = 0x7fffffff;
  for (std::int64_t i = threadIdx.x; i < a.rows; i += blockDim.x) {
    sum += static_cast<double>(row_loss[i]);
    if (first == 0x7fffffff && row_of<float>(a, i).state == RowState::kInvalid)
      first = static_cast<int>(i);
  }
  sums[threadIdx.x] = sum;
  first = __reduce_min_sync(~0u, first);
  if (threadIdx.x % 32 == 0) firsts[threadIdx.x / 32] = first;
  __syncthreads();
  for (int d = kReduceThreads / 2; d > 0; d /= 2) {
    if (static_cast<int>(threadIdx.x) < d) sums[threadIdx.x] += sums[threadIdx.x + d];
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  *static_cast<float*>(a.total) = static_cast<float>(sums[0]);
  if (!a.invalid_row) return;
  for (int w = 1; w < kReduceThreads / 32; ++w) first = min(first, firsts[w]);
  *a.invalid_row = first == 0x7fffffff ? 0 : first + 1;
}

// x *= *scale, one thread per element, grid-stride. A scale of 1 costs one launch and one read.
template <class T>
__global__ void __launch_bounds__(256)
    scale_rows_kernel(T* x, const accumulator_t<T>* scale, std::int64_t rows, std::int64_t columns,
                      std::int64_t pitch) {
  const accumulator_t<T> factor = *scale;
  if (factor == accumulator_t<T>(1)) return;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y)
    for (std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < columns;
         c += std::int64_t{gridDim.x} * blockDim.x)
      x[r * pitch + c] = from_float<T>(to_float(x[r * pitch + c]) * factor);
}

template <class T, class Elements, int kThreads>
void launch_two_pass(const char* name, const DistillLossArgs& a, const float* z, float* row_loss,
                     cudaStream_t stream) {
  constexpr int kRows = kThreads > 32 ? 1 : 128 / kThreads;  // a block's
  simt::launch({name, static_cast<unsigned>((a.rows + kRows - 1) / kRows),
                static_cast<unsigned>(kRows * kThreads), 0, stream},
               distill_loss_row_kernel<T, Elements, kThreads>, a, z, row_loss);
}

template <class T, class Elements>
void launch_rows(const RowPlan& plan, const DistillLossArgs& a, const float* z, float* row_loss,
                 cudaStream_t stream) {
  switch (plan.kernel) {
    case RowKernel::kFourLanes:
      return launch_two_pass<T, Elements, 4>("distill_loss (four lanes a row)", a, z, row_loss,
                                             stream);
    case RowKernel::kWarp:
      return launch_two_pass<T, Elements, 32>("distill_loss (a warp a row)", a, z, row_loss,
                                              stream);
    case RowKernel::kCluster:
      return simt::launch(
          {"distill_loss (a cluster a row)", static_cast<unsigned>(a.rows * plan.cluster),
           kClusterThreads, plan.shared_bytes, stream, static_cast<unsigned>(plan.cluster)},
          distill_loss_cluster_kernel<T, Elements>, a, z, row_loss, plan.slice_chunks);
    case RowKernel::kBlockTwoPass: break;
  }
  launch_two_pass<T, Elements, kBlockThreads<Elements::kForward>>("distill_loss (a block a row)", a,
                                                                  z, row_loss, stream);
}

inline void launch_count_rows(const Context& context, const CountRowsArgs& a) {
  RETORT_CHECK(a.rows < std::int64_t{1} << 31, "[count_rows] expected fewer than 2^31 rows, got ",
               a.rows);
  simt::launch({"count_rows", 1, kReduceThreads, 0, static_cast<cudaStream_t>(context.stream)},
               count_rows_one_block_kernel, a);
}

// Elements are those of the divergence in the arguments.
template <class Elements>
void launch_loss(const Context& context, const DistillLossArgs& given, const RowPlan& plan) {
  DistillLossArgs a = given;
  a.tau_power = tau_power_of(given);
  RETORT_CHECK(a.dtype == DType::kF32 || a.dtype == DType::kBF16,
               "[distill_loss] expected f32 or bf16 on cuda, got ", name_of(a.dtype));
  RETORT_CHECK(a.rows < std::int64_t{1} << 31 && a.classes < (std::int64_t{1} << 31) - 8192,
               "[distill_loss] expected fewer than 2^31 rows and 2^31 - 8192 classes, got ", a.rows,
               ", ", a.classes);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  float* const scratch = static_cast<float*>(
      context.scratch->get(static_cast<std::size_t>(64 + a.rows) * sizeof(float)));
  float* const row_loss = scratch + 64;
  const float* z = a.normalizer;
  if (a.rows > 0) {
    if (!z) {
      launch_count_rows(context, {a.targets, a.mask, a.ignore_index, a.rows, scratch});
      z = scratch;
    }
    if (a.dtype == DType::kF32)
      launch_rows<float, Elements>(plan, a, z, row_loss, stream);
    else
      launch_rows<bf16, Elements>(plan, a, z, row_loss, stream);
  }
  simt::launch({"distill_loss (total)", 1, kReduceThreads, 0, stream}, distill_loss_total_kernel, a,
               row_loss);
}

}  // namespace SIMT_NS

inline void count_rows_launch(const Context& context, const CountRowsArgs& a) {
  SIMT_NS::launch_count_rows(context, a);
}

/// `plan` is plan_rows() of these arguments, or another one that fits (tests).
inline void distill_loss_launch(const Context& context, const DistillLossArgs& a,
                                const RowPlan& plan) {
  using namespace SIMT_NS;
  if (a.divergence == Divergence::kForwardKl)
    launch_loss<ForwardElements>(context, a, plan);
  else
    launch_loss<LibraryElements>(context, a, plan);
}

inline RowPlan plan_rows(const DistillLossArgs& a) {
  const std::size_t element = a.dtype == DType::kBF16 ? 2 : 4;  // others are refused
  return plan_rows(a.rows, a.classes, element, a.teacher ? 2 : 1, simt::capability());
}
inline void distill_loss_launch(const Context& context, const DistillLossArgs& a) {
  distill_loss_launch(context, a, plan_rows(a));
}

inline void scale_rows_launch(const Context& context, const ScaleRowsArgs& a) {
  using namespace SIMT_NS;
  const std::int64_t columns = (a.columns + 255) / 256;
  dispatch_float(a.dtype, "scale_rows", [&]<class T>() {
    simt::launch({"scale_rows",
                  dim3{static_cast<unsigned>(columns < 1024 ? columns : 1024),
                       static_cast<unsigned>(a.rows < 4096 ? a.rows : 4096), 1},
                  256, 0, static_cast<cudaStream_t>(context.stream)},
                 scale_rows_kernel<T>, static_cast<T*>(a.x),
                 static_cast<const accumulator_t<T>*>(a.scale), a.rows, a.columns, a.pitch);
  });
}

}  // namespace retort::kernels
