// Rows of few classes go by lanes (Note [Lanes across rows]): held against the same rows by blocks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/tensor/tensor.h"
#include "kernels/common/parallel.h"
#include "kernels/common/thread_space.h"
#include "kernels/distill_loss/distill_loss_lanes.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::DistillLossArgs;
using kernels::Divergence;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                kInf = std::numeric_limits<float>::infinity();

// One batch, and what the loss leaves of it.
struct Batch {
  std::int64_t rows, classes;
  std::vector<float> student, teacher, gradient, lambda, tau, weights, statistics;
  std::vector<std::int32_t> targets, argmax;
  std::vector<std::uint8_t> mask, correct;
  float total = 0;
  DistillLossArgs args;

  Batch(std::int64_t n, std::int64_t v, bool alike, double one_tau) : rows(n), classes(v) {
    student = randn({n, v}, 1, DType::kF32, 3).to_vector<float>();
    teacher = randn({n, v}, 2, DType::kF32, 3).to_vector<float>();
    targets = randint({n}, 3, static_cast<std::uint32_t>(v)).to_vector<std::int32_t>();
    for (std::int64_t i = 0; i < n; ++i) {
      const auto k = static_cast<std::size_t>(i);
      if (i % 9 == 4) targets[k] = -100;
      mask.push_back(i % 7 != 2);
      lambda.push_back(i % 5 == 0 ? 0.0f : i % 5 == 1 ? 1.0f : 0.3f);
      tau.push_back(i % 4 == 0 ? 1.0f : i % 4 == 1 ? 2.0f : i % 4 == 2 ? 4.0f : 3.0f);
      weights.push_back(0.5f + static_cast<float>(i % 3));
    }
    if (alike) lambda = {0.3f}, tau = {static_cast<float>(one_tau)}, weights = {1.5f};
    gradient.assign(student.size(), kNaN);
    statistics.assign(static_cast<std::size_t>(kernels::kRowStatistics * n), kNaN);
    argmax.assign(static_cast<std::size_t>(2 * n), 77);
    correct.assign(static_cast<std::size_t>(2 * n), 77);
  }
  // The pointers are those of this object: call it on the one that stays.
  void point() {
    DistillLossArgs& a = args;
    a.student = student.data(), a.teacher = teacher.data(), a.dstudent = gradient.data();
    a.student_pitch = a.teacher_pitch = a.dstudent_pitch = classes;
    a.targets = targets.data(), a.mask = mask.data();
    a.lambda = lambda.data(), a.temperature = tau.data(), a.weights = weights.data();
    a.lambda_stride = a.temperature_stride = a.weights_stride = lambda.size() > 1;
    a.rows = rows, a.classes = classes, a.total = &total;
    a.statistics = statistics.data(), a.argmax = argmax.data(), a.correct = correct.data();
  }
  void run() { kernels::distill_loss(context_of(Device::kCpu), args); }
};

// The same by blocks of classes, row by row.
void run_by_blocks(Batch& b) {
  using namespace kernels::distill;
  DistillLossArgs& a = b.args;
  double z = 0, total = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) z += !is_ignored(a, i);
  float* const space =
      kernels::thread_space(static_cast<std::size_t>(block_scratch_floats(a.classes)));
  PendingGradient pending;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    BlockRow row{};
    row.row = row_of<double>(a, i);
    if (row.row.state != RowState::kCounts) {
      reference_row<float>(a, i, 1 / z);
      continue;
    }
    row.args = &a, row.index = i, row.inv_z = 1 / z;
    row.has_teacher = a.teacher && (row.row.kd_weight != 0 || a.statistics);
    row.ones = row.row.ce_weight != 0 || a.statistics;
    row.s = static_cast<const float*>(a.student) + i * a.student_pitch;
    row.t = row.has_teacher ? static_cast<const float*>(a.teacher) + i * a.teacher_pitch : nullptr;
    row.ds = a.dstudent ? static_cast<float*>(a.dstudent) + i * a.dstudent_pitch : nullptr;
    set_scratch(row, space, a.classes);
    total += block_row(row, pending);
    finish_gradient(pending);
  }
  b.total = static_cast<float>(total);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void expect_same(const Batch& got, const Batch& want, bool same_gradient, const std::string& what) {
  if (same_gradient) {
    EXPECT_TRUE(same(got.gradient, want.gradient)) << what;
  } else {
    for (std::size_t i = 0; i < got.gradient.size(); ++i)
      ASSERT_NEAR(got.gradient[i], want.gradient[i], 1e-6 * std::abs(want.gradient[i]) + 1e-9)
          << what << " at " << i;
  }
  EXPECT_EQ(got.argmax, want.argmax) << what;
  EXPECT_EQ(got.correct, want.correct) << what;
  for (std::size_t i = 0; i < got.statistics.size(); ++i)
    ASSERT_NEAR(got.statistics[i], want.statistics[i], 2e-7 * std::abs(want.statistics[i]) + 1e-12)
        << what << " statistic " << i;
  EXPECT_NEAR(got.total, want.total, 2e-7 * std::abs(want.total)) << what;
}

TEST(DistillLossLanes, give_the_gradients_of_blocks_bit_for_bit) {
  for (const std::int64_t classes : {1, 2, 3, 7, 10, 15, 16, 17, 31, 32, 33, 64, 100, 128})
    for (const std::int64_t rows : {1, 15, 16, 17, 70})
      for (const double tau : {0.0, 1.0, 2.0, 4.0, 3.0})  // 0: of each row's own
        for (int d = 0; d < kernels::kDivergences; ++d) {
          if (d > 0 && (rows != 17 || tau == 4)) continue;  // time
          Batch lanes(rows, classes, tau != 0, tau), blocks(rows, classes, tau != 0, tau);
          for (Batch* b : {&lanes, &blocks}) {
            b->point();
            b->args.divergence = static_cast<Divergence>(d);
            b->args.parameter = kernels::default_parameter(static_cast<Divergence>(d));
          }
          lanes.run();
          run_by_blocks(blocks);
          expect_same(lanes, blocks, d == 0,
                      join(rows, " x ", classes, " tau ", tau, " divergence ", d));
        }
}

TEST(DistillLossLanes, without_a_teacher_statistics_or_gradient_and_in_place) {
  for (const std::int64_t classes : {2, 10, 100})
    for (int which = 0; which < 5; ++which) {
      Batch lanes(37, classes, which % 2 == 0, 2), blocks(37, classes, which % 2 == 0, 2);
      for (Batch* b : {&lanes, &blocks}) {
        b->point();
        DistillLossArgs& a = b->args;
        if (which == 0) a.teacher = nullptr, a.lambda = a.temperature = nullptr;
        if (which == 1 || which == 2)
          a.statistics = nullptr, a.argmax = nullptr, a.correct = nullptr;
        if (which == 3) a.dstudent = nullptr;
        if (which == 4) a.dstudent = b->student.data();
      }
      lanes.run();
      run_by_blocks(blocks);
      if (which == 4) lanes.gradient = lanes.student, blocks.gradient = blocks.student;
      if (which == 1 || which == 2) {
        EXPECT_TRUE(same(lanes.gradient, blocks.gradient)) << which;
        EXPECT_NEAR(lanes.total, blocks.total, 2e-7 * std::abs(blocks.total));
      } else if (which == 3) {
        for (const float g : lanes.gradient) ASSERT_TRUE(std::isnan(g));
        EXPECT_NEAR(lanes.total, blocks.total, 2e-7 * std::abs(blocks.total));
      } else {
        expect_same(lanes, blocks, true, join("case ", which, " of ", classes));
      }
    }
}

TEST(DistillLossLanes, rows_that_are_not_finite_leave_their_neighbours_alone) {
  for (const std::int64_t classes : {2, 10, 100})
    for (int d = 0; d < kernels::kDivergences; ++d) {
      Batch lanes(40, classes, true, 2), blocks(40, classes, true, 2);
      for (Batch* b : {&lanes, &blocks}) {
        const auto at = [&](std::vector<float>& x, std::int64_t row, std::int64_t v) -> float& {
          return x[static_cast<std::size_t>(row * classes + v)];
        };
        at(b->student, 3, 1) = kNaN;
        at(b->teacher, 5, 0) = kInf;
        at(b->student, 6, 1) = -kInf;
        at(b->teacher, 8, 1) = -kInf;
        for (std::int64_t v = 0; v < classes; ++v) {
          at(b->student, 17, v) = -kInf;
          at(b->teacher, 20, v) = -kInf;
          at(b->student, 21, v) = 0.25f;  // ties
          at(b->teacher, 21, v) = 0.25f;
          at(b->student, 24, v) *= 30;  // far apart
          at(b->teacher, 24, v) *= 30;
        }
        b->point();
        b->args.divergence = static_cast<Divergence>(d);
        b->args.parameter = kernels::default_parameter(static_cast<Divergence>(d));
      }
      lanes.run();
      run_by_blocks(blocks);
      const auto agree = [](float got, float want) {
        return std::isnan(want)
                   ? std::isnan(got)
                   : got == want || std::abs(got - want) <= 1e-6f * std::abs(want) + 1e-9f;
      };
      for (std::size_t i = 0; i < lanes.gradient.size(); ++i)
        ASSERT_TRUE(agree(lanes.gradient[i], blocks.gradient[i]))
            << d << " row " << static_cast<std::int64_t>(i) / classes << ": " << lanes.gradient[i]
            << " " << blocks.gradient[i];
      for (std::size_t i = 0; i < lanes.statistics.size(); ++i)
        ASSERT_TRUE(agree(lanes.statistics[i], blocks.statistics[i]))
            << d << " statistic " << i / 40 << " row " << i % 40;
      EXPECT_EQ(lanes.argmax, blocks.argmax);
      EXPECT_EQ(lanes.correct, blocks.correct);
    }
}

TEST(DistillLossLanes, rows_are_the_same_bits_wherever_they_stand) {
  for (const std::int64_t classes : {2, 10, 100}) {
    Batch whole(64, classes, false, 0);
    whole.point();
    const float z = 50;
    whole.args.normalizer = &z;
    whole.run();
    const int before = thread_count();
    for (const std::int64_t first : {1, 5, 16}) {
      set_thread_count(first == 5 ? 3 : 1);
      Batch part(64, classes, false, 0);
      part.point();
      DistillLossArgs& a = part.args;
      a.normalizer = &z;
      a.rows -= first;
      a.student = part.student.data() + first * classes;
      a.teacher = part.teacher.data() + first * classes;
      a.targets += first, a.mask += first, a.lambda += first, a.temperature += first,
          a.weights += first;
      part.run();
      EXPECT_EQ(std::memcmp(part.gradient.data(), whole.gradient.data() + first * classes,
                            static_cast<std::size_t>(a.rows * classes) * sizeof(float)),
                0);
      for (int k = 0; k < kernels::kRowStatistics; ++k)
        EXPECT_EQ(std::memcmp(part.statistics.data() + k * a.rows,
                              whole.statistics.data() + k * 64 + first,
                              static_cast<std::size_t>(a.rows) * sizeof(float)),
                  0)
            << k;
    }
    set_thread_count(before);
  }
}

}  // namespace
}  // namespace retort::test
