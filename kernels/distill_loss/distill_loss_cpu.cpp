#include <algorithm>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/thread_space.h"
#include "kernels/distill_loss/distill_loss_lanes.h"
#include "kernels/distill_loss/distill_loss_math.h"
#include "kernels/distill_loss/distill_loss_rows.h"

namespace retort::kernels {

CudaOp<DistillLossArgs> distill_loss_cuda = nullptr;
CudaOp<CountRowsArgs> count_rows_cuda = nullptr;
CudaOp<ScaleRowsArgs> scale_rows_cuda = nullptr;

namespace {

using namespace distill;

/// Whether rows that count differ in their targets alone.
bool rows_are_alike(const DistillLossArgs& a) {
  return !a.sample_of_row && (!a.lambda || a.lambda_stride == 0) &&
         (!a.temperature || a.temperature_stride == 0) && (!a.weights || a.weights_stride == 0);
}

/// Throws for the first row that cannot be computed, before anything is written. Returns Z.
double check_rows(const DistillLossArgs& a) {
  std::int64_t counted = 0;
  const bool alike = rows_are_alike(a);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    if (alike && counted > 0) {
      if (is_ignored(a, i)) continue;
      if (!a.targets || (a.targets[i] >= 0 && a.targets[i] < a.classes)) {
        ++counted;
        continue;
      }
    }
    const Row<float> row = row_of<float>(a, i);
    if (row.state == RowState::kIgnored) continue;
    ++counted;
    if (row.state == RowState::kCounts) continue;
    const std::int64_t sample = a.sample_of_row ? a.sample_of_row[i] : i;
    RETORT_CHECK(!a.sample_of_row || (sample >= 0 && sample < a.samples), "[distill_loss] row ", i,
                 ": expected a sample in [0, ", a.samples, "), got ", sample);
    RETORT_CHECK(!a.targets || (a.targets[i] >= 0 && a.targets[i] < a.classes),
                 "[distill_loss] row ", i, ": expected a target in [0, ", a.classes, ") or ",
                 a.ignore_index, " to ignore the row, got ", a.targets[i]);
    const auto of_sample = [&](const float* values, std::int32_t stride, float otherwise) {
      return values ? values[sample * stride] : otherwise;
    };
    const float tau = of_sample(a.temperature, a.temperature_stride, 1),
                weight = of_sample(a.weights, a.weights_stride, 1),
                lambda = of_sample(a.lambda, a.lambda_stride, 0);
    RETORT_CHECK(tau > 0 && is_finite(tau), "[distill_loss] row ", i,
                 ": expected a finite temperature > 0, got ", tau);
    RETORT_CHECK(is_finite(lambda), "[distill_loss] row ", i, ": expected a finite lambda, got ",
                 lambda);
    RETORT_CHECK(is_finite(weight), "[distill_loss] row ", i, ": expected a finite weight, got ",
                 weight);
    fail(ErrorCode::kUsage, "[distill_loss] row ", i,
         ": expected lambda = 0 where there is no teacher, got ", lambda);
  }
  if (!a.normalizer) return static_cast<double>(counted);
  const double z = static_cast<double>(*a.normalizer);
  RETORT_CHECK((z > 0 && is_finite(z)) || counted == 0,
               "[distill_loss] expected a finite normalizer > 0, got ", z);
  return z;
}

TauKind tau_kind_of(double tau) {
  return tau == 1   ? TauKind::kOne
         : tau == 2 ? TauKind::kTwo
         : tau == 4 ? TauKind::kFour
                    : TauKind::kOther;
}

/// Row i by block_row. ds: where its gradient goes, null for none; space: block_scratch_floats(V).
double single_row(const DistillLossArgs& a, std::int64_t i, const Row<double>& parameters,
                  double inv_z, const float* s, const float* t, float* ds, float* space) {
  BlockRow row{};
  row.args = &a;
  row.index = i;
  row.row = parameters;
  row.inv_z = inv_z;
  row.has_teacher = t != nullptr;
  row.ones = parameters.ce_weight != 0 || a.statistics;
  row.s = s, row.t = t, row.ds = ds;
  set_scratch(row, space, a.classes);
  PendingGradient pending;
  const double loss = block_row(row, pending);
  finish_gradient(pending);
  return loss;
}

/// compute_rows for few classes: Note [Lanes across rows].
template <class T>
void compute_lanes(const DistillLossArgs& a, std::int64_t begin, std::int64_t end, double inv_z,
                   double* row_loss) {
  constexpr bool kConvert = sizeof(T) == 2;  // bf16 rows are widened, and rounded once at the end
  const std::int64_t lanes = lane_count(), classes = a.classes;
  const std::int64_t block = block_scratch_floats(classes),
                     transposed = lane_scratch_floats(classes);
  float* const space = thread_space(
      static_cast<std::size_t>(block + transposed + (kConvert ? 3 * lanes * classes : 0)));
  float* const for_block = space + transposed;  // a multiple of a cache line
  float* const wide = for_block + block;
  const auto student = [&](std::int64_t i) {
    return static_cast<const T*>(a.student) + i * a.student_pitch;
  };
  const auto teacher = [&](std::int64_t i) {
    return static_cast<const T*>(a.teacher) + i * a.teacher_pitch;
  };
  const auto gradient = [&](std::int64_t i) {
    return a.dstudent ? static_cast<T*>(a.dstudent) + i * a.dstudent_pitch : nullptr;
  };
  const bool alike = rows_are_alike(a);
  Row<double> row{RowState::kIgnored, -1, 1, 1, 0, 0};
  LaneGroup group;
  group.args = &a;
  group.gradient = a.dstudent != nullptr;
  group.space = space;
  for (std::int64_t first = begin; first < end; first += lanes) {
    // What each lane holds. kinds: a bit for each lane, by temperature and, last, without a teacher.
    constexpr std::size_t kKinds = 5;
    std::uint32_t kinds[kKinds] = {};
    Row<double> rows[kMostLanes];
    const std::int64_t count = std::min(lanes, end - first);
    std::int64_t some = -1;  // a lane whose row counts
    for (std::int64_t lane = 0; lane < count; ++lane) {
      const std::int64_t i = first + lane;
      const auto k = static_cast<std::size_t>(lane);
      if (alike && row.state == RowState::kCounts && !is_ignored(a, i)) {
        if (a.targets) row.target = a.targets[i];
      } else {
        row = row_of<double>(a, i);
      }
      rows[k] = row;
      if (row.state != RowState::kCounts) {
        row_loss[i] = reference_row<T>(a, i, inv_z);
        continue;
      }
      some = lane;
      const bool has_teacher = a.teacher && (row.kd_weight != 0 || a.statistics);
      kinds[has_teacher ? static_cast<std::size_t>(tau_kind_of(row.tau)) : kKinds - 1] |= 1u
                                                                                          << lane;
      if constexpr (kConvert) {
        float* const own = wide + lane * classes;
        for (std::int64_t v = 0; v < classes; ++v) own[v] = to_float(student(i)[v]);
        group.s[k] = own;
        float* const its = own + lanes * classes;
        for (std::int64_t v = 0; a.teacher && v < classes; ++v) its[v] = to_float(teacher(i)[v]);
        group.t[k] = its;
        group.ds[k] = its + lanes * classes;
      } else {
        group.s[k] = student(i);
        group.t[k] = a.teacher ? teacher(i) : nullptr;
        group.ds[k] = gradient(i);
      }
      const std::int64_t target = std::max<std::int64_t>(row.target, 0);
      group.tau[k] = row.tau, group.inv_tau[k] = row.inv_tau;
      group.ce_weight[k] = row.ce_weight * inv_z, group.kd_weight[k] = row.kd_weight * inv_z;
      group.target[k] = row.target;
      group.at_s[k] = static_cast<double>(group.s[k][target]);
      group.at_t[k] = a.teacher ? static_cast<double>(group.t[k][target]) : 0;
    }
    if (some < 0) continue;
    for (std::int64_t lane = 0; lane < lanes; ++lane) {  // lanes without a row take another's
      if (lane < count && rows[lane].state == RowState::kCounts) continue;
      group.s[lane] = group.s[some], group.t[lane] = group.t[some], group.ds[lane] = nullptr;
      group.tau[lane] = group.tau[some], group.inv_tau[lane] = group.inv_tau[some];
      group.ce_weight[lane] = group.kd_weight[lane] = group.at_s[lane] = group.at_t[lane] = 0;
      group.target[lane] = -1;
    }
    group.first = first;
    group.row_loss = row_loss + first;
    std::uint32_t counted = 0;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      if (kinds[kind] == 0) continue;
      counted |= kinds[kind];
      group.active = kinds[kind];
      group.teacher = kind != kKinds - 1;
      group.tau_kind = group.teacher ? static_cast<TauKind>(kind) : TauKind::kOne;
      std::uint32_t left = lane_rows(group);
      for (std::int64_t lane = 0; left != 0; ++lane, left >>= 1) {
        if ((left & 1u) == 0) continue;
        const auto k = static_cast<std::size_t>(lane);
        row_loss[first + lane] = single_row(a, first + lane, rows[k], inv_z, group.s[k],
                                            group.teacher ? group.t[k] : nullptr,
                                            a.dstudent ? group.ds[k] : nullptr, for_block);
      }
    }
    if (!a.dstudent) continue;
    for (std::int64_t lane = 0; lane < count; ++lane) {
      if ((counted >> lane & 1u) == 0) continue;
      T* const ds = gradient(first + lane);
      if constexpr (kConvert)
        for (std::int64_t v = 0; v < classes; ++v) ds[v] = to_bf16(group.ds[lane][v]);
      fill_row(ds + classes, a.gradient_padding, 0.0f);
    }
  }
}

/// Rows [begin, end): of f32 and bf16 by lanes (divergences of ours alone) or by block_row, others
/// by the definition.
template <class T>
void compute_rows(const DistillLossArgs& a, std::int64_t begin, std::int64_t end, double inv_z,
                  double* row_loss) {
  const auto by_definition = [&](std::int64_t i) { row_loss[i] = reference_row<T>(a, i, inv_z); };
  if constexpr (sizeof(T) == 8) {
    for (std::int64_t i = begin; i < end; ++i) by_definition(i);
  } else if (a.classes <= kMostLaneClasses && lane_count() > 1 && !a.divergence.outside) {
    compute_lanes<T>(a, begin, end, inv_z, row_loss);
  } else {
    constexpr bool kConvert = sizeof(T) == 2;  // bf16 rows are widened, and rounded once at the end
    const std::int64_t needed = block_scratch_floats(a.classes) + (kConvert ? 3 * a.classes : 0);
    float* const space = thread_space(static_cast<std::size_t>(needed));
    float* const wide = space + block_scratch_floats(a.classes);
    // A gradient larger than the caches is written past them.
    const bool stream =
        !kConvert && a.dstudent != a.student && a.rows * a.classes >= std::int64_t{1} << 23;
    PendingGradient pending;
    for (std::int64_t i = begin; i < end; ++i) {
      BlockRow row{};
      row.row = row_of<double>(a, i);
      row.has_teacher = a.teacher && (row.row.kd_weight != 0 || a.statistics);
      if (row.row.state != RowState::kCounts) {
        by_definition(i);
        continue;
      }
      row.args = &a;
      row.index = i;
      row.inv_z = inv_z;
      row.ones = row.row.ce_weight != 0 || a.statistics;
      row.stream = stream;
      set_scratch(row, space, a.classes);
      const T* const s = static_cast<const T*>(a.student) + i * a.student_pitch;
      const T* const t =
          row.has_teacher ? static_cast<const T*>(a.teacher) + i * a.teacher_pitch : nullptr;
      T* const ds = a.dstudent ? static_cast<T*>(a.dstudent) + i * a.dstudent_pitch : nullptr;
      if constexpr (kConvert) {
        for (std::int64_t v = 0; v < a.classes; ++v) wide[v] = to_float(s[v]);
        if (t)
          for (std::int64_t v = 0; v < a.classes; ++v) wide[a.classes + v] = to_float(t[v]);
        row.s = wide;
        row.t = t ? wide + a.classes : nullptr;
        row.ds = ds ? wide + 2 * a.classes : nullptr;
      } else {
        row.s = s;
        row.t = t;
        row.ds = ds;
      }
      row_loss[i] = block_row(row, pending);
      if (!ds) continue;
      if constexpr (kConvert) {
        finish_gradient(pending);
        for (std::int64_t v = 0; v < a.classes; ++v) ds[v] = to_bf16(row.ds[v]);
      }
      fill_row(ds + a.classes, a.gradient_padding, 0.0f);
    }
    finish_gradient(pending);
    if (stream) flush_rows();
  }
}

}  // namespace

void distill_loss_cpu(const Context&, const DistillLossArgs& a) {
  const double z = check_rows(a);
  const double inv_z = z > 0 ? 1 / z : 0;
  std::vector<double> row_loss(static_cast<std::size_t>(a.rows));
  // 64k to 512k logits a chunk (the last row's gradient has no next row to hide behind), but enough
  // chunks for many threads: bounds depend on the shape alone. What is done once per row costs as
  // much as kRowCost logits.
  constexpr std::int64_t kRowCost = 256;
  const std::int64_t least =
      std::max<std::int64_t>(1, (std::int64_t{1} << 16) / (a.classes + kRowCost));
  const std::int64_t grain = std::clamp<std::int64_t>(a.rows / 32, least, 8 * least);
  dispatch_float(a.dtype, "distill_loss", [&]<class T>() {
    parallel_for(a.rows, grain, [&](std::int64_t begin, std::int64_t end) {
      compute_rows<T>(a, begin, end, inv_z, row_loss.data());
    });
  });
  double total = 0;
  for (const double loss : row_loss) total += loss;
  if (a.dtype == DType::kF64)
    *static_cast<double*>(a.total) = total;
  else
    *static_cast<float*>(a.total) = static_cast<float>(total);
  if (a.invalid_row) *a.invalid_row = 0;
}

void count_rows_cpu(const Context&, const CountRowsArgs& a) {
  std::int64_t counted = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) counted += !is_ignored(a, i);
  *a.count = static_cast<float>(counted);
}

void scale_rows_cpu(const Context&, const ScaleRowsArgs& a) {
  dispatch_float(a.dtype, "scale_rows", [&]<class T>() {
    const accumulator_t<T> scale = *static_cast<const accumulator_t<T>*>(a.scale);
    if (scale == 1) return;
    T* const x = static_cast<T*>(a.x);
    const std::int64_t grain = std::max<std::int64_t>(1, (std::int64_t{1} << 16) / a.columns);
    parallel_for(a.rows, grain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r)
        for (std::int64_t c = 0; c < a.columns; ++c)
          x[r * a.pitch + c] = from_float<T>(to_float(x[r * a.pitch + c]) * scale);
    });
  });
}

}  // namespace retort::kernels
