// A call of the distillation loss with everything it may be given, and its comparison with the
// definition in double on the CPU and on CUDA: what the tests of the kernel share.
#pragma once
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "kernels/common/parallel.h"
#include "kernels/distill_loss/distill_loss.h"
#include "kernels/distill_loss/distill_loss_plan.h"
#include "kernels/distill_loss/distill_loss_rows.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {

using kernels::DistillLossArgs;
using kernels::Divergence;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// One call: logits as floats that are exact in the dtype asked for, all the rest per row.
struct Case {
  std::int64_t rows = 1, classes = 2;
  std::vector<float> student, teacher;  // (N, V); no teacher if empty
  std::vector<std::int32_t> targets;    // none if empty
  std::vector<float> lambda, tau, weights;
  std::vector<std::uint8_t> mask;
  kernels::AnyDivergence divergence = Divergence::kForwardKl;
  std::int32_t tau_power = -1;
  double parameter = -1;    // below 0: the divergence's default
  std::int64_t pitch = 0;   // 0: classes
  std::int64_t offset = 0;  // elements before the first row: alignment
  bool in_place = false;
  bool gradient = true, statistics = true;
};

struct Outcome {
  double total = 0;
  int invalid_row = 0;
  std::vector<double> gradient;  // (N, V)
  std::vector<double> statistics;
  std::vector<int> argmax, correct;
};

constexpr double kSentinel = -77;

/// Runs the op with every buffer followed, and every gap between rows filled, by sentinels.
inline Outcome run(const Case& c, Device device, DType dtype) {
  const std::int64_t pitch = c.pitch == 0 ? c.classes : c.pitch,
                     extent = c.rows * pitch + c.offset + 19;
  const auto place = [&](const std::vector<float>& v) {
    std::vector<float> out(static_cast<std::size_t>(extent), static_cast<float>(kSentinel));
    for (std::int64_t i = 0; i < c.rows; ++i)
      for (std::int64_t k = 0; k < c.classes; ++k)
        out[static_cast<std::size_t>(c.offset + i * pitch + k)] =
            v[static_cast<std::size_t>(i * c.classes + k)];
    return Tensor::from(out, {extent}).to(dtype).to(device);
  };
  const auto at = [&](const Tensor& t) {
    return static_cast<char*>(t.raw()) + static_cast<std::size_t>(c.offset) * size_of(dtype);
  };
  const auto upload = [&](const auto& v) {
    return Tensor::from(v, {static_cast<std::int64_t>(v.size())}, device);
  };
  const std::int64_t n = c.rows;
  const Tensor s = place(c.student), t = c.teacher.empty() ? Tensor() : place(c.teacher);
  const Tensor ds = c.in_place ? s : Tensor::full({extent}, kSentinel, dtype, device);
  const Tensor targets = upload(c.targets), lambda = upload(c.lambda), tau = upload(c.tau),
               weights = upload(c.weights), mask = upload(c.mask);
  const Tensor stats =
      Tensor::full({kernels::kRowStatistics * n + 1}, kSentinel, DType::kF32, device);
  const Tensor argmax = Tensor::full({2 * n + 1}, kSentinel, DType::kI32, device);
  const Tensor correct = Tensor::full({2 * n + 1}, 77, DType::kU8, device);
  const Tensor total =
      Tensor::full({2}, kSentinel, dtype == DType::kF64 ? dtype : DType::kF32, device);
  const Tensor invalid = Tensor::full({2}, kSentinel, DType::kI32, device);
  DistillLossArgs a;
  a.student = at(s);
  a.teacher = t.defined() ? at(t) : nullptr;
  a.dstudent = c.gradient ? at(ds) : nullptr;
  a.student_pitch = a.teacher_pitch = a.dstudent_pitch = pitch;
  a.targets = c.targets.empty() ? nullptr : targets.data<std::int32_t>();
  a.lambda = c.lambda.empty() ? nullptr : lambda.data<float>();
  a.lambda_stride = c.lambda.size() > 1;
  a.temperature = c.tau.empty() ? nullptr : tau.data<float>();
  a.temperature_stride = c.tau.size() > 1;
  a.weights = c.weights.empty() ? nullptr : weights.data<float>();
  a.weights_stride = c.weights.size() > 1;
  a.mask = c.mask.empty() ? nullptr : mask.data<std::uint8_t>();
  a.total = total.raw();
  a.invalid_row = invalid.data<std::int32_t>();
  if (c.statistics) {
    a.statistics = stats.data<float>();
    a.argmax = argmax.data<std::int32_t>();
    a.correct = correct.data<std::uint8_t>();
  }
  a.rows = n;
  a.classes = c.classes;
  a.dtype = dtype;
  a.divergence = c.divergence;
  a.parameter = c.parameter < 0 ? default_parameter(c.divergence) : c.parameter;
  a.tau_power = c.tau_power;
  kernels::distill_loss(context_of(device), a);

  Outcome o;
  o.total = total.to_vector<double>()[0];
  EXPECT_EQ(total.to_vector<double>()[1], kSentinel);
  o.invalid_row = invalid.to_vector<int>()[0];
  EXPECT_EQ(invalid.to_vector<int>()[1], kSentinel);
  const std::vector<double> memory = ds.to_vector<double>();
  for (std::int64_t i = 0; i < extent; ++i) {
    const std::int64_t r = i - c.offset;
    const double value = memory[static_cast<std::size_t>(i)];
    if (c.gradient && r >= 0 && r < n * pitch && r % pitch < c.classes) {
      o.gradient.push_back(value);
    } else {
      EXPECT_EQ(value, kSentinel) << "written outside the rows at " << r;
    }
  }
  if (!c.statistics) return o;
  o.statistics = stats.to_vector<double>();
  o.argmax = argmax.to_vector<int>();
  o.correct = correct.to_vector<int>();
  EXPECT_EQ(o.statistics.back(), kSentinel);
  EXPECT_EQ(o.argmax.back(), kSentinel);
  EXPECT_EQ(o.correct.back(), 77);
  o.statistics.pop_back(), o.argmax.pop_back(), o.correct.pop_back();
  return o;
}

/// Random logits (rounded to bf16, so that every dtype sees the same numbers) and parameters.
inline Case make_case(std::int64_t rows, std::int64_t classes, std::uint64_t seed,
                      double scale = 3) {
  Case c;
  c.rows = rows;
  c.classes = classes;
  const auto logits = [&](std::uint64_t s) {
    return randn({rows, classes}, s, DType::kF32, scale).to(DType::kBF16).to_vector<float>();
  };
  c.student = logits(seed);
  c.teacher = logits(seed + 1000);
  c.targets = randint({rows}, seed + 2000, static_cast<std::uint32_t>(classes)).to_vector<int>();
  for (std::int64_t i = 0; i < rows; ++i) {
    c.lambda.push_back(static_cast<float>((i + 1) % 5) / 4);
    c.tau.push_back(std::vector<float>{2, 1, 4, 0.5f, 8, 3}[static_cast<std::size_t>(i % 6)]);
    c.weights.push_back(0.5f + static_cast<float>(i % 3));
    c.mask.push_back(i % 7 != 5);
  }
  return c;
}

inline double largest(const std::vector<double>& v) {
  double m = 0;
  for (const double x : v)
    if (std::isfinite(x)) m = std::max(m, std::abs(x));
  return m;
}

/// got against want in double. A gradient element may be off by rtol of the row's largest plus
/// rtol / 100: it is a difference of probabilities, rounded at 6e-8 each. Other numbers by rtol of
/// themselves plus rtol: sums of rounded terms of either sign.
inline void expect_close(const Outcome& got, const Outcome& want, const Case& c, double rtol,
                         const std::string& what) {
  EXPECT_TRUE(close(got.total, want.total, rtol, rtol))
      << what << " total " << got.total << " want " << want.total;
  EXPECT_EQ(got.argmax, want.argmax) << what;
  EXPECT_EQ(got.correct, want.correct) << what;
  ASSERT_EQ(got.statistics.size(), want.statistics.size());
  for (std::size_t i = 0; i < want.statistics.size(); ++i)
    EXPECT_TRUE(close(got.statistics[i], want.statistics[i], rtol, rtol))
        << what << " statistic " << i / static_cast<std::size_t>(c.rows) << " of row "
        << i % static_cast<std::size_t>(c.rows) << ": " << got.statistics[i] << " want "
        << want.statistics[i];
  ASSERT_EQ(got.gradient.size(), want.gradient.size());
  const auto v = static_cast<std::size_t>(c.classes);
  int shown = 0;
  for (std::size_t i = 0; i * v < want.gradient.size(); ++i) {
    const std::vector<double> row(want.gradient.begin() + static_cast<std::ptrdiff_t>(i * v),
                                  want.gradient.begin() + static_cast<std::ptrdiff_t>(i * v + v));
    const double bound = rtol * largest(row) + rtol / 100;
    for (std::size_t k = 0; k < v && shown < 5; ++k) {
      const bool ok = close(got.gradient[i * v + k], row[k], rtol, bound);
      EXPECT_TRUE(ok) << what << " gradient of row " << i << " class " << k << ": "
                      << got.gradient[i * v + k] << " want " << row[k];
      shown += !ok;
    }
  }
}

/// f32 on every device against f64. A thousand-fold sum of f32 terms leaves about 2e-6.
inline void expect_all_close(const Case& c, const std::string& what, double rtol = 1e-5) {
  const Outcome want = run(c, Device::kCpu, DType::kF64);
  for (const Device device : devices())
    expect_close(run(c, device, DType::kF32), want, c, rtol, what + " on " + name_of(device));
}

}  // namespace retort::test
