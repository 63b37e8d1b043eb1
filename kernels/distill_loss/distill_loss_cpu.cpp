#include <algorithm>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/thread_space.h"
#include "kernels/distill_loss/distill_loss_math.h"
#include "kernels/distill_loss/distill_loss_rows.h"

namespace retort::kernels {

CudaOp<DistillLossArgs> distill_loss_cuda = nullptr;
CudaOp<CountRowsArgs> count_rows_cuda = nullptr;
CudaOp<ScaleRowsArgs> scale_rows_cuda = nullptr;

namespace {

using namespace distill;

/// Throws for the first row that cannot be computed, before anything is written. Returns Z.
double check_rows(const DistillLossArgs& a) {
  std::int64_t counted = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) {
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
    RETORT_CHECK(!a.temperature || a.temperature[sample * a.temperature_stride] > 0,
                 "[distill_loss] row ", i, ": expected a temperature > 0, got ",
                 a.temperature[sample * a.temperature_stride]);
    fail(ErrorCode::kUsage, "[distill_loss] row ", i,
         ": expected lambda = 0 where there is no teacher, got ",
         a.lambda[sample * a.lambda_stride]);
  }
  if (!a.normalizer) return static_cast<double>(counted);
  const double z = static_cast<double>(*a.normalizer);
  RETORT_CHECK(z > 0 || counted == 0, "[distill_loss] expected a normalizer > 0, got ", z);
  return z;
}

/// Rows [begin, end): of f32 and bf16 by block_row, others by the definition.
template <class T>
void compute_rows(const DistillLossArgs& a, std::int64_t begin, std::int64_t end, double inv_z,
                  double* row_loss) {
  const auto by_definition = [&](std::int64_t i) { row_loss[i] = reference_row<T>(a, i, inv_z); };
  if constexpr (sizeof(T) == 8) {
    for (std::int64_t i = begin; i < end; ++i) by_definition(i);
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
