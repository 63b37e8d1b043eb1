// Values at the edges: large, equal and infinite logits, NaN, rows that do not count. On the CPU
// and on CUDA, against the definition in double.
#include "kernels/distill_loss/distill_loss_composed.h"
#include "tests/kernels/distill_loss_cases.h"

namespace retort::test {
namespace {

TEST(DistillLossValues, divergences_of_a_distribution_from_itself_are_zero) {
  for (const Device device : devices())
    for (int d = 0; d < kernels::kDivergences; ++d)
      for (const std::int64_t v : {10, 3000}) {
        Case c = make_case(6, v, 21);
        c.divergence = static_cast<Divergence>(d);
        c.student = c.teacher;
        c.lambda = {1}, c.mask.clear();
        const Outcome o = run(c, device, DType::kF32);
        EXPECT_EQ(o.total, 0) << name_of(c.divergence) << " on " << name_of(device);
        // Differences of equal terms, rounded one after the other: of the order of 6e-8 q.
        const double bound = c.divergence == Divergence::kTotalVariation ? 0 : 2e-6;
        EXPECT_LE(largest(o.gradient), bound) << name_of(c.divergence) << name_of(device);
      }
}

// By lanes, in blocks, by four lanes, a warp and (bf16) a cluster a row, and f64: sizes choose.
TEST(DistillLossValues, every_power_of_tau) {
  for (const Divergence divergence :
       {Divergence::kForwardKl, Divergence::kTotalVariation, Divergence::kSkewKl})
    for (const std::int64_t v : {7, 200, 1100})
      for (const int power : {-1, 0, 1, 2}) {
        Case c = make_case(5, v, 14);
        c.divergence = divergence;
        c.tau_power = power;
        const int n = power == -1 ? (divergence == Divergence::kTotalVariation ? 1 : 2) : power;
        const Outcome exact = run(c, Device::kCpu, DType::kF64);
        double z = 0;
        for (const std::uint8_t m : c.mask) z += m;
        for (std::size_t i = 0; i < 5; ++i) {
          if (!c.mask[i]) continue;
          const auto part = [&](const std::vector<float>& x) {
            const auto begin = x.begin() + static_cast<std::ptrdiff_t>(i) * v;
            return std::vector<double>(begin, begin + v);
          };
          const auto of = [&](const std::vector<float>& x) { return static_cast<double>(x[i]); };
          kernels::DistillRowSettings s{of(c.lambda),
                                        of(c.tau),
                                        of(c.weights) / z,
                                        divergence,
                                        kernels::default_parameter(divergence),
                                        static_cast<std::size_t>(c.targets[i])};
          s.tau_power = n;
          const kernels::DistillRow want =
              kernels::distill_row_composed(s, part(c.student), part(c.teacher));
          EXPECT_NEAR(exact.statistics[kernels::kStatKd * 5 + i], want.statistics[kernels::kStatKd],
                      1e-5 * std::abs(want.statistics[kernels::kStatKd]) + 1e-7);
          for (std::int64_t k = 0; k < v; ++k)
            EXPECT_NEAR(
                exact.gradient[i * static_cast<std::size_t>(v) + static_cast<std::size_t>(k)],
                want.gradient[static_cast<std::size_t>(k)], 1e-13);
        }
        expect_all_close(c, join(name_of(c.divergence), " V = ", v, " power ", power));
      }
}

// Of mixtures: shares on both sides of where formulas change, of models that nearly agree and of ones
// that do not.
TEST(DistillLossValues, every_share_of_a_mixture) {
  for (const Divergence divergence :
       {Divergence::kJensenShannon, Divergence::kSkewKl, Divergence::kSkewReverseKl})
    for (const double share : {0.02, 0.24, 0.25, 0.5, 0.75, 0.76, 0.98})
      for (const std::int64_t v : {7, 200})
        for (const float apart : {0.01f, 1.0f, 12.0f}) {
          Case c = make_case(5, v, 31);
          c.divergence = divergence;
          c.parameter = share;
          for (std::size_t i = 0; i < c.student.size(); ++i)
            c.student[i] = c.teacher[i] + apart * c.student[i];
          const Outcome want = run(c, Device::kCpu, DType::kF64);
          const Outcome got = run(c, Device::kCpu, DType::kF32);
          const std::string what =
              join(name_of(divergence), " ", share, " V ", v, " apart ", apart);
          // Terms of first order that cancel, each rounded; in Jensen-Shannon's they do so in pairs.
          const double least = divergence == Divergence::kJensenShannon ? 3e-7 : 4e-6;
          for (std::size_t i = 0; i < 5; ++i) {
            const double kd = want.statistics[kernels::kStatKd * 5 + i];
            EXPECT_NEAR(got.statistics[kernels::kStatKd * 5 + i], kd, 3e-5 * std::abs(kd) + least)
                << what;
          }
          for (std::size_t i = 0; i < want.gradient.size(); ++i)
            ASSERT_NEAR(got.gradient[i], want.gradient[i], 2e-5 * std::abs(want.gradient[i]) + 3e-7)
                << what << " at " << i;
        }
}

TEST(DistillLossValues, every_divergence_with_infinite_logits) {
  for (int d = 0; d < kernels::kDivergences; ++d)
    for (const std::int64_t v : {6, 1300}) {
      Case c = make_case(6, v, 22);
      c.divergence = static_cast<Divergence>(d);
      for (auto& y : c.targets) y = 1;
      Case both = c, teacher = c, student = c;
      for (std::size_t i = 0; i < c.teacher.size(); i += 2) {
        both.student[i] = both.teacher[i] = teacher.teacher[i] = -kInf;
        student.student[i] = -kInf;
      }
      expect_all_close(both, join(name_of(c.divergence), " both"));
      // Where a divergence is infinite its gradient is not a number.
      if (c.divergence != Divergence::kReverseKl)
        expect_all_close(teacher, join(name_of(c.divergence), " teacher"));
      if (c.divergence != Divergence::kForwardKl)
        expect_all_close(student, join(name_of(c.divergence), " student"));
    }
}

TEST(DistillLossValues, large_logits) {
  // exp(-100 / tau) lives and dies by the row maximum; 1e-4: rounding of logits near 100 in f32.
  for (const std::int64_t v : {10, 1000, 1500}) {
    Case c = make_case(6, v, 9, 40);
    for (float& x : c.student) x = std::min(100.0f, std::max(-100.0f, x));
    for (float& x : c.teacher) x = std::min(100.0f, std::max(-100.0f, x));
    expect_all_close(c, "logits to +-100", 1e-4);
    for (float& x : c.student) x += 1024;
    expect_all_close(c, "logits shifted by 1024", 1e-4);
  }
}

TEST(DistillLossValues, rising_and_falling_rows) {
  // Rising: every chunk brings a new maximum. Falling: none does.
  for (const std::int64_t v : {40, 3000}) {
    Case c = make_case(4, v, 10);
    for (std::int64_t i = 0; i < 4; ++i)
      for (std::int64_t k = 0; k < v; ++k) {
        const auto at = static_cast<std::size_t>(i * v + k);
        const float up = 60.0f * static_cast<float>(k) / static_cast<float>(v);
        c.student[at] = i % 2 ? up : -up;
        c.teacher[at] = i / 2 ? up : -up;
      }
    expect_all_close(c, "ramps", 1e-4);
  }
}

TEST(DistillLossValues, equal_logits_and_ties) {
  for (const std::int64_t v : {7, 1300, 20000}) {
    Case c = make_case(6, v, 11);
    std::fill(c.student.begin(), c.student.end(), 3.0f);
    std::fill(c.teacher.begin(), c.teacher.end(), -2.0f);
    expect_all_close(c, "equal logits");
    for (const Device device : devices()) {
      const Outcome o = run(c, device, DType::kF32);
      for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_EQ(o.argmax[i], 0);
        EXPECT_EQ(o.statistics[kernels::kStatTeacherMargin * 6 + i], 0);
        EXPECT_EQ(o.statistics[kernels::kStatKd * 6 + i], 0);
      }
    }
    const auto last = static_cast<std::size_t>(v - 1);
    // Two equal winners: the first counts, also where another block holds it.
    c.teacher[last] = c.teacher[last / 3] = 1;
    for (const Device device : devices())
      EXPECT_EQ(run(c, device, DType::kF32).argmax[6], static_cast<int>(last / 3));
  }
}

TEST(DistillLossValues, ignored_rows_are_not_read) {
  for (const Device device : devices())
    for (const std::int64_t v : {5, 1100}) {
      Case c = make_case(4, v, 12);
      c.mask = {1, 0, 1, 1};
      c.targets[2] = -100;
      Case poisoned = c;
      for (const std::size_t row : {1u, 2u})
        for (std::size_t k = 0; k < static_cast<std::size_t>(v); ++k)
          poisoned.student[row * static_cast<std::size_t>(v) + k] =
              poisoned.teacher[row * static_cast<std::size_t>(v) + k] = kNaN;
      poisoned.tau[1] = -1;
      poisoned.targets[1] = 1 << 20;
      const Outcome want = run(c, device, DType::kF32), got = run(poisoned, device, DType::kF32);
      EXPECT_EQ(got.total, want.total);
      EXPECT_EQ(got.gradient, want.gradient);
      EXPECT_EQ(got.statistics, want.statistics);
      EXPECT_EQ(got.invalid_row, 0);
      for (std::size_t k = 0; k < 2 * static_cast<std::size_t>(v); ++k)
        EXPECT_EQ(got.gradient[static_cast<std::size_t>(v) + k], 0);
      expect_all_close(c, "two of four rows");
    }
}

TEST(DistillLossValues, all_rows_ignored) {
  for (const Device device : devices()) {
    Case c = make_case(4, 6, 13);
    c.mask = {0, 0, 0, 0};
    const Outcome o = run(c, device, DType::kF32);
    EXPECT_EQ(o.total, 0);
    for (const double g : o.gradient) EXPECT_EQ(g, 0);
    for (const double s : o.statistics) EXPECT_EQ(s, 0);
  }
}

TEST(DistillLossValues, minus_infinity_in_the_teacher_alone_counts_nothing) {
  for (const std::int64_t v : {6, 1300}) {
    Case c = make_case(6, v, 14);
    for (std::size_t i = 0; i < c.teacher.size(); i += 3) c.teacher[i] = -kInf;
    for (std::int64_t i = 0; i < 6; ++i)  // a finite target: the teacher's log p_true is a number
      c.targets[static_cast<std::size_t>(i)] = i * v % 3 == 0 ? 1 : i * v % 3 == 1 ? 0 : 2;
    expect_all_close(c, "teacher -inf");
    EXPECT_TRUE(std::isfinite(run(c, Device::kCpu, DType::kF32).total));
  }
}

TEST(DistillLossValues, minus_infinity_in_both_counts_nothing) {
  for (const std::int64_t v : {6, 1300}) {
    Case c = make_case(6, v, 15);
    for (std::size_t i = 0; i < c.teacher.size(); i += 2) c.student[i] = c.teacher[i] = -kInf;
    for (auto& y : c.targets) y = 1;
    expect_all_close(c, "both -inf");
    EXPECT_TRUE(std::isfinite(run(c, Device::kCpu, DType::kF32).total));
  }
}

TEST(DistillLossValues, minus_infinity_in_the_student_costs_infinity) {
  for (const Device device : devices())
    for (const std::int64_t v : {6, 1300, 20000}) {
      Case c = make_case(2, v, 16);
      c.lambda = {1}, c.tau = {2};
      for (const std::int64_t dead : {std::int64_t{0}, v - 1}) {
        Case d = c;
        d.student[static_cast<std::size_t>(dead)] = -kInf;
        d.teacher[static_cast<std::size_t>(dead)] = 1;
        const Outcome o = run(d, device, DType::kF32);
        EXPECT_EQ(o.total, HUGE_VAL) << name_of(device) << " V = " << v;
        EXPECT_EQ(o.statistics[kernels::kStatKd * 2], HUGE_VAL);
        EXPECT_TRUE(std::isfinite(o.statistics[kernels::kStatKd * 2 + 1]));
        for (const double g : o.gradient) EXPECT_TRUE(std::isfinite(g)) << name_of(device);
        EXPECT_LT(o.gradient[static_cast<std::size_t>(dead)], 0);
        // The other term alone is finite: the infinite one has coefficient 0 and is skipped.
        d.lambda = {0};
        d.targets = {1, 1};
        EXPECT_TRUE(std::isfinite(run(d, device, DType::kF32).total));
        d.targets = {static_cast<std::int32_t>(dead), 1};
        EXPECT_EQ(run(d, device, DType::kF32).total, HUGE_VAL);
      }
    }
}

TEST(DistillLossValues, rows_of_minus_infinity) {
  for (const Device device : devices())
    for (const std::int64_t v : {1, 6, 1300, 20000}) {
      const auto n = static_cast<std::size_t>(v);
      const Case c = make_case(2, v, 17);
      Case student = c, teacher = c;
      std::fill_n(student.student.begin(), n, -kInf);
      std::fill_n(teacher.teacher.begin(), n, -kInf);
      const Outcome s = run(student, device, DType::kF32);
      EXPECT_EQ(s.total, HUGE_VAL) << name_of(device);
      for (std::size_t k = 0; k < n; ++k) EXPECT_EQ(s.gradient[k], 0);
      EXPECT_EQ(s.argmax[0], -1);
      const Outcome t = run(teacher, device, DType::kF32);
      EXPECT_TRUE(std::isfinite(t.total)) << name_of(device);
      EXPECT_EQ(t.argmax[2], -1);
      EXPECT_EQ(t.statistics[kernels::kStatKd * 2], 0);
      EXPECT_EQ(t.statistics[kernels::kStatTeacherEntropy * 2], 0);
      for (const double g : t.gradient) EXPECT_TRUE(std::isfinite(g));
      expect_close(t, run(teacher, Device::kCpu, DType::kF64), teacher, 1e-5, name_of(device));
    }
}

TEST(DistillLossValues, nan_shows) {
  for (const Device device : devices())
    for (int divergence = 0; divergence < kernels::kDivergences; ++divergence)
      for (const std::int64_t v : {6, 1300, 20000}) {
        if (v == 20000 && divergence > 0) continue;  // time
        for (const bool in_teacher : {false, true})
          for (const float bad : {kNaN, kInf})
            for (const bool soft_alone :
                 {false, true}) {  // no cross-entropy that would show it too
              Case c = make_case(2, v, 18);
              c.divergence = static_cast<Divergence>(divergence);
              if (soft_alone) c.lambda = {1, 1};
              (in_teacher ? c.teacher : c.student)[static_cast<std::size_t>(v / 2)] = bad;
              const Outcome o = run(c, device, DType::kF32);
              const std::string what =
                  join(name_of(c.divergence), " on ", name_of(device), " V ", v, " ", bad,
                       in_teacher ? " teacher" : " student", soft_alone ? " alone" : "");
              EXPECT_TRUE(std::isnan(o.total)) << what;
              EXPECT_TRUE(std::isnan(o.gradient[0]) || c.lambda[0] == 0) << what;
            }
      }
}

}  // namespace
}  // namespace retort::test
