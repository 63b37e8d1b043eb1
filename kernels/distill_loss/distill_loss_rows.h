// One row of the distillation loss on the CPU: the plain definition in double, and block_row().
#pragma once
#include "kernels/distill_loss/distill_loss_math.h"

namespace retort::kernels::distill {

/// Sums of x (V) at temperature 1 / inv_tau, accumulated in double.
template <class T>
LogitSums<double> reference_sums(const T* x, std::int64_t classes, double inv_tau) {
  LogitSums<double> s;
  for (std::int64_t v = 0; v < classes; ++v) {
    const double value = static_cast<double>(to_float(x[v]));
    if (value > s.max) {
      s.next = s.max;
      s.max = value;
      s.argmax = static_cast<std::int32_t>(v);
    } else if (value > s.next) {
      s.next = value;
    }
  }
  for (std::int64_t v = 0; v < classes; ++v) {
    const double d = static_cast<double>(to_float(x[v])) - s.max;
    const double e1 = hd_exp(d);
    s.sum += inv_tau == 1 ? e1 : hd_exp(d * inv_tau);
    s.sum1 += e1;
    if (!(e1 == 0)) s.dot1 += e1 * d;
  }
  return s;
}

template <class T>
void fill_row(T* ds, std::int64_t n, float value) {
  for (std::int64_t v = 0; v < n; ++v) ds[v] = from_float<T>(value);
}

/// Gradient and statistics of row i; returns its part of the total.
template <class T>
double reference_row(const DistillLossArgs& a, std::int64_t i, double inv_z) {
  const std::int64_t classes = a.classes;
  const T* const s = static_cast<const T*>(a.student) + i * a.student_pitch;
  const T* const t = a.teacher ? static_cast<const T*>(a.teacher) + i * a.teacher_pitch : nullptr;
  T* const ds = a.dstudent ? static_cast<T*>(a.dstudent) + i * a.dstudent_pitch : nullptr;
  const Row<double> row = row_of<double>(a, i);
  if (ds) fill_row(ds + classes, a.gradient_padding, 0.0f);
  if (row.state != RowState::kCounts) {
    if (ds) fill_row(ds, classes, 0.0f);
    if (a.statistics) store_empty_statistics(a, i, 0.0f);
    return 0;
  }
  const bool has_teacher = t && (row.kd_weight != 0 || a.statistics);
  const LogitSums<double> ss = reference_sums(s, classes, row.inv_tau);
  const LogitSums<double> ts =
      has_teacher ? reference_sums(t, classes, row.inv_tau) : LogitSums<double>{};
  const bool both = has_teacher && ss.sum1 != 0 && ts.sum1 != 0;
  const double log_s = both ? hd_log(ss.sum) : 0, log_t = both ? hd_log(ts.sum) : 0;
  const double at_s = row.target >= 0 ? static_cast<double>(to_float(s[row.target])) : 0;
  const double at_t =
      row.target >= 0 && has_teacher ? static_cast<double>(to_float(t[row.target])) : 0;

  // kForward: D by its sums. element_at: an element by p, q and their logarithms.
  const auto finish = [&]<bool kForward>(const auto& element_at) {
    const auto element = [&](std::int64_t v) {
      const double x = (static_cast<double>(to_float(s[v])) - ss.max) * row.inv_tau;
      const double y = (static_cast<double>(to_float(t[v])) - ts.max) * row.inv_tau;
      const double p = hd_exp(y) / ts.sum, q = hd_exp(x) / ss.sum;
      return element_at(p, q, y - log_t, x - log_s);
    };
    double divergence = 0, h_sum = 0;
    if (both) {
      if constexpr (kForward) {
        for (std::int64_t v = 0; v < classes; ++v) {
          const double y = static_cast<double>(to_float(t[v])) - ts.max;
          const double x = static_cast<double>(to_float(s[v])) - ss.max;
          const double e = hd_exp(y * row.inv_tau);
          if (!(e == 0)) divergence += e * (y - x) * row.inv_tau;
        }
        divergence = divergence / ts.sum + (log_s - log_t);
        h_sum = -1;
      } else {
        for (std::int64_t v = 0; v < classes; ++v) {
          const Element<double> e = element(v);
          divergence += e.d;
          h_sum += e.h;
        }
      }
    }
    const RowResult<double> r =
        finish_row(row, tau_power_of(a), inv_z, ss, has_teacher, ts, divergence, at_s);
    if (a.statistics) store_statistics(a, i, row, r, ss, has_teacher, ts, at_t);
    if (!ds) return r.loss;
    for (std::int64_t v = 0; v < classes; ++v) {
      const double d = static_cast<double>(to_float(s[v])) - ss.max;
      double g = 0;
      if (r.ce_weight != 0) g = r.ce_scale * hd_exp(d) - (v == row.target ? r.ce_weight : 0);
      if (r.kd_weight != 0) {
        const double q = hd_exp(d * row.inv_tau) / ss.sum;
        g += r.kd_weight * (element(v).h - q * h_sum);
      }
      if constexpr (sizeof(T) == 8)
        ds[v] = g;
      else
        ds[v] = from_float<T>(static_cast<float>(g));
    }
    return r.loss;
  };
  if (const DivergenceOps* const outside = a.divergence.outside) {
    return finish.template operator()<false>([&](double p, double q, double lp, double lq) {
      return outside->element(p, q, lp, lq, a.parameter);
    });
  }
  return dispatch_divergence(a.divergence.built_in, [&]<Divergence kind>() {
    return finish.template operator()<kind == Divergence::kForwardKl>(
        [&](double p, double q, double lp, double lq) {
          return element_of<kind>(p, q, lp, lq, a.parameter);
        });
  });
}

// ----------------------------------------------------------------------- rows in cached blocks

enum class TauKind { kOne, kTwo, kFour, kOther };

/// Columns taken at a time: their logits and exponentials stay in the first level cache.
inline constexpr std::int64_t kRowBlock = 2048;
inline constexpr std::int64_t kCacheLine = 16;  // floats

/// A row of f32 logits for block_row(): labels, a teacher or both.
struct BlockRow {
  const DistillLossArgs* args;
  std::int64_t index;
  Row<double> row;  // counts
  double inv_z;
  const float* s;
  const float* t;
  float* ds;  // null: no gradient; may be s
  bool has_teacher, ones, stream;
  // Working memory: block_scratch_floats(V) floats, cut into these.
  float *es, *et, *e1;  // exponentials of the row at tau (student, teacher) and at 1 (student)
  float* block_max;     // maxima of student and teacher that a block's exponentials refer to
};
// From one array to the next: whole vectors may be read and written past the end, and each array
// starts with a cache line (a vector that is stored over two lines costs two stores).
constexpr std::int64_t block_scratch_step(std::int64_t classes) {
  return (classes + 127) / 64 * 64;
}
constexpr std::int64_t block_scratch_floats(std::int64_t classes) {
  return 3 * block_scratch_step(classes) + 2 * (classes / kRowBlock + 1);
}
/// `scratch` is aligned to a cache line.
inline void set_scratch(BlockRow& row, float* scratch, std::int64_t classes) {
  const std::int64_t step = block_scratch_step(classes);
  row.es = scratch, row.et = scratch + step, row.e1 = scratch + 2 * step;
  row.block_max = scratch + 3 * step;
}

/// Sums over a row of a student and a teacher, relative to the largest logits met so far.
struct BlockSums {
  LogitSums<double> s, t;
  double kd = 0;  // sum e_t ((t - m_t) - (s - m_s)), tau not yet divided out
  /// Moves the sums to the maxima of a new block.
  void rebase(float max_s, float max_t, double inv_tau) {
    const double ds = static_cast<double>(max_s) - s.max, dt = static_cast<double>(max_t) - t.max;
    if (ds != 0 && s.sum != 0) {
      s.sum *= hd_exp(-ds * inv_tau);
      s.sum1 *= hd_exp(-ds);
    }
    if (t.sum != 0 && (ds != 0 || dt != 0)) {
      const double f = hd_exp(-dt * inv_tau), f1 = hd_exp(-dt);
      kd = f == 0 ? 0 : f * (kd + t.sum * (ds - dt));
      t.dot1 = f1 == 0 ? 0 : f1 * (t.dot1 - t.sum1 * dt);
      t.sum *= f;
      t.sum1 *= f1;
    }
    s.max = static_cast<double>(max_s);
    t.max = static_cast<double>(max_t);
  }
};

/// The gradient of a row whose sums are known, not yet written: its exponentials lie in working
/// memory. It is written block by block while the next row is summed, each block just before that
/// row's exponentials take its place: memory writes while it computes, instead of between.
struct PendingGradient {
  bool is_due = false;
  bool absolute_t = false;  // et holds values that are not relative to a block's maximum
  TauKind tau_kind = TauKind::kOne;
  BlockRow row;
  BlockSums sums;
  RowResult<double> result;
};

/// Statistics of the row; returns its part of the total. Writes the gradient in `pending`, of a row
/// with the same working memory, and leaves the row's own there.
double block_row(const BlockRow& row, PendingGradient& pending);
/// Writes the gradient in `pending`, if one is due.
void finish_gradient(PendingGradient& pending);
/// After rows with `stream`: their stores become visible to other threads.
void flush_rows();
/// y[i] = exp(x[i]) for x[i] <= 0, as block_row does it: relative error below
/// 2e-7 + 8e-8 |x|, 0 below -86.99 (kernels/common/exp-inl.h).
void exp_nonpositive(const float* x, float* y, std::int64_t n);

}  // namespace retort::kernels::distill
