// Shapes, alignments, divergences and precision, every one on the CPU and on CUDA, against the
// definition in double. Values at the edges: distill_loss_values_test.cpp. What the loss means is
// tested in tests/distill/losses. Over 500 lines: one op, whose cases all go through one check().
#include "kernels/distill_loss/distill_loss_composed.h"
#include "tests/kernels/distill_loss_cases.h"

namespace retort::test {
namespace {

TEST(DistillLossKernel, hand_checked_numbers) {
  const float l3 = std::log(3.0f);
  Case c;
  c.rows = 2;
  c.student = {0, l3, 0, 0};
  c.teacher = {2 * l3, 0, 0, 0};
  c.targets = {0, 1};
  c.lambda = {0.25f};
  c.tau = {2};
  // Row 0: softmax(s) = (1, 3) / 4, CE = log 4; q = (1, r) / (1 + r) with r = sqrt 3, p = (3, 1)
  // / 4.
  const double q = 1 / (1 + std::sqrt(3.0));
  const double kl = 0.75 * std::log(0.75 / q) + 0.25 * std::log(0.25 / (1 - q));
  const double g = 0.5 * (0.75 * (0.25 - 1) + 0.25 * 2 * (q - 0.75));
  for (const Device device : devices()) {
    const Outcome o = run(c, device, DType::kF32);
    // Row 1: CE = log 2, KL = 0.
    EXPECT_NEAR(o.total, 0.5 * (0.75 * std::log(4.0) + 0.25 * 4 * kl + 0.75 * std::log(2.0)), 1e-6);
    EXPECT_NEAR(o.gradient[0], g, 1e-6);
    EXPECT_NEAR(o.gradient[1], -g, 1e-6);
    EXPECT_NEAR(o.gradient[2], 0.5 * 0.75 * 0.5, 1e-6);
    EXPECT_NEAR(o.gradient[3], -0.5 * 0.75 * 0.5, 1e-6);
    const auto stat = [&](int k, int i) {
      return o.statistics[static_cast<std::size_t>(2 * k + i)];
    };
    EXPECT_NEAR(stat(kernels::kStatCe, 0), std::log(4.0), 1e-6);
    EXPECT_NEAR(stat(kernels::kStatKd, 0), 4 * kl, 1e-6);
    EXPECT_EQ(stat(kernels::kStatKd, 1), 0.0f);
    EXPECT_NEAR(stat(kernels::kStatTeacherMargin, 0), 0.8, 1e-6);
    EXPECT_NEAR(stat(kernels::kStatTeacherEntropy, 1), std::log(2.0), 1e-6);
    EXPECT_EQ(o.argmax, (std::vector<int>{1, 0, 0, 0}));
    EXPECT_EQ(o.correct, (std::vector<int>{0, 0, 1, 0}));
  }
}

// -- both devices against the definition -------------------------------------------------------

TEST(DistillLossKernel, edge_shapes) {
  for (const std::int64_t classes : {1, 2, 31, 32, 33, 1000, 1024, 1025, 1271, 2049})
    expect_all_close(make_case(7, classes, 1), "V = " + std::to_string(classes));
  for (const std::int64_t rows : {0, 1, 401}) {
    Case c = make_case(rows, 10, 2);
    if (rows == 0) c.lambda = {0.5f}, c.tau = {1};
    expect_all_close(c, "N = " + std::to_string(rows));
  }
  expect_all_close(make_case(2, 50257, 3), "V = 50257");
}

TEST(DistillLossKernel, rows_that_just_fit_a_cluster_and_rows_that_just_do_not) {
  for (const int cluster : {1, 2, 4}) {
    std::int64_t v = 1025;  // the largest whose rows lie in `cluster` blocks
    while (kernels::plan_rows(2, v + 1, 4, 2, 90).cluster <= cluster) ++v;
    for (const std::int64_t classes : {v, v + 1})
      for (const std::int64_t offset : {0, 3}) {
        Case c = make_case(2, classes, 31);
        c.offset = offset, c.pitch = classes + offset, c.in_place = offset != 0;
        expect_all_close(c, "V = " + std::to_string(classes));
      }
  }
}

// One block's slices and its static arrays just pass the 48 KiB that a launch has without asking.
TEST(DistillLossKernel, rows_whose_slices_need_more_shared_memory_than_the_default) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::int64_t v = 1025;
    const auto dynamic = [&] {
      return kernels::plan_rows(2, v, size_of(dtype), 2, 90).shared_bytes;
    };
    while (dynamic() <= 47 * 1024) ++v;
    for (; dynamic() <= 48 * 1024; v += 60) {
      const Case c = make_case(2, v, 32);
      ASSERT_EQ(kernels::plan_rows(2, v, size_of(dtype), 2, 90).cluster, 1);
      const Outcome want = run(c, Device::kCpu, DType::kF64);
      for (const Device device : devices())
        expect_close(run(c, device, dtype), want, c, dtype == DType::kF32 ? 1e-5 : 0.004,
                     join("V = ", v, " ", name_of(dtype), " on ", name_of(device)));
    }
  }
}

// Rows that eight blocks cannot hold are read twice, by one block each, on Hopper too.
TEST(DistillLossKernel, rows_too_long_for_the_largest_cluster) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "half a million classes take too long here; sm_80 takes the same kernel";
#endif
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::int64_t v =
        static_cast<std::int64_t>(8 * kernels::kSliceBytesMost / (2 * size_of(dtype))) + 1;
    ASSERT_EQ(kernels::plan_rows(1, v, size_of(dtype), 2, 90).kernel,
              kernels::RowKernel::kBlockTwoPass);
    Case c = make_case(1, v, 33);
    for (const Divergence divergence : {Divergence::kForwardKl, Divergence::kReverseKl}) {
      c.divergence = divergence;
      const Outcome want = run(c, Device::kCpu, DType::kF64);
      for (const Device device : devices())
        expect_close(run(c, device, dtype), want, c, dtype == DType::kF32 ? 1e-5 : 0.004,
                     join("V = ", v, " ", name_of(dtype), " on ", name_of(device)));
    }
  }
}

TEST(DistillLossKernel, alignments_and_pitches) {
  for (const std::int64_t classes : {37, 1100})
    for (const std::int64_t offset : {0, 1, 2, 3, 5})
      for (const std::int64_t gap : {0, 1, 12}) {
        Case c = make_case(3, classes, 4);
        c.offset = offset;
        c.pitch = classes + gap;
        c.in_place = offset % 2 == 1;
        expect_all_close(c, "offset " + std::to_string(offset) + " gap " + std::to_string(gap));
      }
}

TEST(DistillLossKernel, rows_that_lie_differently_against_16_bytes) {
  for (const Device device : devices()) {
    const std::int64_t n = 3, v = 75;
    const Case c = make_case(n, v, 5);
    const Outcome want = run(c, Device::kCpu, DType::kF64);
    const Tensor s = Tensor::from(c.student, {n, v}, device);
    std::vector<float> shifted(1, 0);
    shifted.insert(shifted.end(), c.teacher.begin(), c.teacher.end());
    const Tensor t = Tensor::from(shifted, {n * v + 1}, device);
    const Tensor ds = Tensor::zeros({n * v + 2}, DType::kF32, device);
    const Tensor targets = Tensor::from(c.targets, {n}, device),
                 lambda = Tensor::from(c.lambda, {n}, device),
                 tau = Tensor::from(c.tau, {n}, device),
                 weights = Tensor::from(c.weights, {n}, device);
    const Tensor total = Tensor::zeros({}, DType::kF32, device);
    DistillLossArgs a;
    a.student = s.raw(), a.teacher = t.data<float>() + 1, a.dstudent = ds.data<float>() + 2;
    a.student_pitch = a.teacher_pitch = a.dstudent_pitch = v;
    a.targets = targets.data<std::int32_t>();
    a.lambda = lambda.data<float>(), a.temperature = tau.data<float>(),
    a.weights = weights.data<float>();
    a.lambda_stride = a.temperature_stride = a.weights_stride = 1;
    a.total = total.raw();
    a.rows = n, a.classes = v;
    kernels::distill_loss(context_of(device), a);
    EXPECT_TRUE(close(total.item(), want.total, 1e-5, 0)) << name_of(device);
    const std::vector<double> g = ds.to_vector<double>();
    for (std::size_t i = 0; i < want.gradient.size(); ++i)
      EXPECT_NEAR(g[i + 2], want.gradient[i], 1e-6) << name_of(device);
  }
}

TEST(DistillLossKernel, gradient_padding_becomes_zero) {
  for (const Device device : devices())
    for (const std::int64_t v : {61, 1100}) {
      const Case c = make_case(3, v, 6);
      const Tensor s = Tensor::from(c.student, {3, v}, device);
      const Tensor targets = Tensor::from(c.targets, {3}, device),
                   total = Tensor::zeros({}, DType::kF32, device);
      const Tensor ds = Tensor::full({3 * (v + 5)}, kSentinel, DType::kF32, device);
      const Tensor mask = Tensor::from<std::uint8_t>({1, 0, 1}, {3}, device);
      DistillLossArgs a;
      a.student = s.raw(), a.dstudent = ds.raw(), a.targets = targets.data<std::int32_t>();
      a.mask = mask.data<std::uint8_t>();
      a.student_pitch = v, a.dstudent_pitch = v + 5, a.gradient_padding = 4;
      a.total = total.raw();
      a.rows = 3, a.classes = v;
      kernels::distill_loss(context_of(device), a);
      const std::vector<double> g = ds.to_vector<double>();
      for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t k = 0; k < 4; ++k)
          EXPECT_EQ(g[static_cast<std::size_t>(i * (v + 5) + v + k)], 0);
        EXPECT_EQ(g[static_cast<std::size_t>(i * (v + 5) + v + 4)], kSentinel);
      }
    }
}

TEST(DistillLossKernel, one_term_alone_and_no_gradient) {
  for (const std::int64_t v : {33, 1100}) {
    const Case both = make_case(7, v, 7);
    Case c = both;
    c.teacher.clear(), c.lambda.clear();
    expect_all_close(c, "labels alone");
    c.statistics = false;
    expect_all_close(c, "labels alone without statistics");
    c = both;
    c.targets.clear(), c.lambda.clear();
    expect_all_close(c, "teacher alone");
    c.statistics = false;
    expect_all_close(c, "teacher alone without statistics");
    c = both;
    c.statistics = false;
    expect_all_close(c, "without statistics");
    c = both;
    c.gradient = false;
    expect_all_close(c, "without gradient");
  }
}

// On the CPU a row's gradient is written while the next row's logits are read, from memory that the
// next row then takes.
TEST(DistillLossKernel, rows_know_nothing_of_their_neighbours) {
  constexpr std::int64_t kRows = 8, kClasses = 5003;  // 1/8 is exact; three blocks of columns
  for (const bool in_place : {false, true})
    for (const Divergence divergence : {Divergence::kForwardKl, Divergence::kReverseKl})
      for (const std::vector<float>& tau : std::vector<std::vector<float>>{
               {2}, {1}, {3}, {2, 2, 3, 3, 1, 1, 4, 2}, {2, 3, 2, 3, 4, 1, 4, 3}})
        for (const bool statistics : {false, true}) {
          Case c = make_case(kRows, kClasses, 33);
          c.divergence = divergence, c.tau = tau, c.in_place = in_place, c.statistics = statistics;
          c.pitch = kClasses + 2, c.offset = 1;
          c.mask.clear();
          c.lambda = {0.5f, 0.5f, 0, 0, 0.5f, 1, 1, 0.25f};
          const Outcome all = run(c, Device::kCpu, DType::kF32);
          for (std::int64_t i = 0; i < kRows; ++i) {
            const auto row = [&](const std::vector<float>& v) {
              const auto from = v.begin() + i * kClasses;
              return std::vector<float>(from, from + kClasses);
            };
            const auto at = static_cast<std::size_t>(i);
            Case one = c;
            one.rows = 1;
            one.student = row(c.student), one.teacher = row(c.teacher);
            one.targets = {c.targets[at]}, one.lambda = {c.lambda[at]};
            one.weights = {c.weights[at]}, one.tau = {tau.size() == 1 ? tau[0] : tau[at]};
            const Outcome alone = run(one, Device::kCpu, DType::kF32);
            for (std::size_t v = 0; v < kClasses; ++v)
              ASSERT_EQ(all.gradient[at * kClasses + v] * kRows, alone.gradient[v])
                  << "row " << i << " class " << v << ", tau " << one.tau[0];
          }
        }
}

TEST(DistillLossKernel, all_divergences) {
  for (int d = 0; d < kernels::kDivergences; ++d)
    for (const std::int64_t v : {1, 2, 15, 16, 17, 33, 100, 1100, 2048, 2049, 4500, 20000}) {
#if defined(RETORT_SANITIZED)
      if (v > 3000) continue;  // edge_shapes and bf16_rounds_once go further
#endif
      Case c = make_case(v < 20000 ? 7 : 3, v, 8);
      c.divergence = static_cast<Divergence>(d);
      c.offset = v % 3;
      c.in_place = v % 2 == 1;
      c.statistics = v % 4 != 0;
      expect_all_close(c, name_of(c.divergence));
    }
}

// The error of one gradient element as a share of its row's largest plus 1 % of the row's weight,
// which matters where all of a row's gradient has cancelled.
double gradient_error(const Case& c, DType dtype) {
  const Outcome want = run(c, Device::kCpu, DType::kF64), got = run(c, Device::kCpu, dtype);
  const auto v = static_cast<std::size_t>(c.classes);
  double worst = 0;
  for (std::size_t row = 0; row * v < want.gradient.size(); ++row) {
    double most = 0.01 * static_cast<double>(c.weights[row] * c.tau[row]) /
                  static_cast<double>(c.rows),
           error = 0;
    for (std::size_t k = row * v; k < row * v + v; ++k) {
      most = std::max(most, std::abs(want.gradient[k]));
      error = std::max(error, std::abs(got.gradient[k] - want.gradient[k]));
    }
    worst = std::max(worst, error / most);
  }
  return worst;
}

TEST(DistillLossKernel, cpu_gradient_error_in_shares_of_the_rows_largest) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "about numbers; half a minute in a sanitizer build";
#endif
  for (int d = 0; d < kernels::kDivergences; ++d)
    for (const std::int64_t v : {10, 100, 1000, 5000}) {
      double worst = 0;
      for (std::uint64_t seed = 30; seed < 34; ++seed) {
        Case c = make_case(64, v, seed, 1.5);
        c.divergence = static_cast<Divergence>(d);
        c.mask.clear();
        for (float& tau : c.tau) tau = std::max(tau, 1.0f);
        worst = std::max(worst, gradient_error(c, DType::kF32));
      }
      EXPECT_LT(worst, 3e-6) << name_of(static_cast<Divergence>(d)) << " V = " << v;
    }
}

TEST(DistillLossKernel, exponential_of_nonpositive_numbers_against_double) {
  std::vector<float> x, y;
  for (int i = 0; i <= 200000; ++i) x.push_back(-88.5f * static_cast<float>(i) / 200000.0f);
  for (const float extra : {-0.0f, -1e-30f, -1000.0f, -3e38f, -kInf}) x.push_back(extra);
  y.resize(x.size());
  kernels::distill::exp_nonpositive(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    if (y[i] == want) continue;  // 0 for -inf
    // Rounding log2(e) and its product with x costs 8e-8 |x|; results below 2^-125.5 are cut to 0.
    ASSERT_NEAR(y[i], want, want * (2e-7 + 8e-8 * std::abs(static_cast<double>(x[i]))) + 1.7e-38)
        << x[i];
  }
  kernels::distill::exp_nonpositive(&kNaN, y.data(), 1);
  EXPECT_TRUE(std::isnan(y[0]));
}

// -- masks and infinities ----------------------------------------------------------------------

// -- low precision -----------------------------------------------------------------------------

// flash-attention's rule: against double, at most 3 times the error of the same loss in plain f32
// steps rounded to bf16 at the end; here the inputs are exact in bf16, so what is left is the one
// rounding of each gradient element: 2^-8 of it.
TEST(DistillLossKernel, bf16_rounds_once) {
  for (const Device device : devices())
    for (const std::int64_t v : {10, 33, 1000, 1500, 40000})
      for (const std::int64_t offset : {0, 3}) {
        Case c = make_case(v < 40000 ? 7 : 3, v, 19);
        c.offset = offset;
        c.in_place = offset != 0;
        const Outcome want = run(c, Device::kCpu, DType::kF64), got = run(c, device, DType::kBF16);
        EXPECT_TRUE(close(got.total, want.total, 1e-5, 0)) << name_of(device);
        const auto n = static_cast<std::ptrdiff_t>(v);
        for (auto row = want.gradient.begin(); row != want.gradient.end(); row += n) {
          const double most = largest(std::vector<double>(row, row + n));
          const auto begin = row - want.gradient.begin();
          for (std::ptrdiff_t k = begin; k < begin + n; ++k) {
            const auto at = static_cast<std::size_t>(k);
            ASSERT_TRUE(close(got.gradient[at], want.gradient[at], 0.003907, 1e-6 * most))
                << name_of(device) << " V = " << v << " element " << k << ": " << got.gradient[at]
                << " want " << want.gradient[at];
          }
        }
      }
}

// -- the same bits -----------------------------------------------------------------------------

TEST(DistillLossKernel, twice_the_same_bits_for_any_thread_count) {
  const int before = thread_count();
  for (const Device device : devices())
    for (int d = 0; d < kernels::kDivergences; ++d)
      for (const std::int64_t v : {10, 33, 3000, 20000}) {
        if (device != Device::kCpu && d > 0) continue;  // time
        Case c = make_case(v < 20000 ? 60 : 3, v, 20);
        c.divergence = static_cast<Divergence>(d);
        set_thread_count(1);
        const Outcome one = run(c, device, DType::kF32);
        for (const int threads : {2, 3}) {
          set_thread_count(threads);
          const Outcome more = run(c, device, DType::kF32);
          EXPECT_EQ(one.total, more.total);
          EXPECT_EQ(one.gradient, more.gradient);
          EXPECT_EQ(one.statistics, more.statistics);
        }
      }
  set_thread_count(before);
}

// -- errors ------------------------------------------------------------------------------------

TEST(DistillLossKernel, cuda_marks_rows_that_cannot_be_computed) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const std::int64_t v : {5, 1100}) {
    const auto check = [&](const Case& c, int row) {
      const Outcome o = run(c, Device::kCuda, DType::kF32);
      EXPECT_TRUE(std::isnan(o.total));
      EXPECT_EQ(o.invalid_row, row + 1);
      for (std::int64_t i = 0; i < c.rows; ++i)
        EXPECT_EQ(std::isnan(o.gradient[static_cast<std::size_t>(i * v)]), i >= row) << i;
      EXPECT_THROW(run(c, Device::kCpu, DType::kF32), Error);
    };
    Case c = make_case(4, v, 21);
    c.targets[2] = static_cast<std::int32_t>(v), c.targets[3] = -1;
    check(c, 2);
    c = make_case(4, v, 21);
    c.tau[3] = 0;
    check(c, 3);
    c = make_case(4, v, 21);
    c.teacher.clear();
    c.lambda = {0, 0.5f, 1, 0.25f};
    check(c, 1);
    for (const float bad : {kNaN, kInf, -kInf})
      for (std::vector<float> Case::*of : {&Case::lambda, &Case::tau, &Case::weights}) {
        c = make_case(4, v, 21);
        (c.*of)[3] = bad;
        check(c, 3);
      }
  }
}

TEST(DistillLossKernel, coefficients_that_are_no_numbers_are_refused_by_row) {
  const auto told = [](const Case& c) {
    try {
      run(c, Device::kCpu, DType::kF32);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("computed");
  };
  for (const float bad : {kNaN, kInf, -kInf})
    for (const auto& [of, name] : {std::pair{&Case::lambda, "a finite lambda"},
                                   {&Case::tau, "a finite temperature > 0"},
                                   {&Case::weights, "a finite weight"}}) {
      Case c = make_case(4, 5, 21);
      (c.*of)[2] = bad;
      EXPECT_NE(told(c).find(join("row 2: expected ", name, ", got ", bad)), std::string::npos)
          << told(c);
      c.mask[2] = 0;  // a row that does not count is not looked at
      EXPECT_EQ(told(c), "computed");
      c = make_case(4, 5, 21);
      c.*of = {bad};  // one for all
      EXPECT_NE(told(c).find(join("row 0: expected ", name)), std::string::npos) << told(c);
    }
}

TEST(DistillLossKernel, a_normalizer_that_is_no_number_is_refused) {
  for (const Device device : devices())
    for (const float bad : {kNaN, kInf, 0.0f, -1.0f}) {
      const Tensor s = Tensor::zeros({2, 4}, DType::kF32, device),
                   total = Tensor::zeros({}, DType::kF32, device),
                   z = Tensor::from<float>({bad}, {1}, device),
                   targets = Tensor::zeros({2}, DType::kI32, device);
      DistillLossArgs a;
      a.student = s.raw();
      a.targets = targets.data<std::int32_t>();
      a.normalizer = z.data<float>();
      a.total = total.raw();
      a.rows = 2, a.classes = 4, a.student_pitch = 4;
      if (device == Device::kCpu) {
        EXPECT_THROW(kernels::distill_loss(context_of(device), a), Error) << bad;
        EXPECT_EQ(total.item(), 0) << "written";
      } else {
        kernels::distill_loss(context_of(device), a);
        EXPECT_TRUE(std::isnan(total.item())) << bad;
      }
    }
}

TEST(DistillLossKernel, bad_arguments_throw_on_every_device) {
  for (const Device device : devices()) {
    const Context& context = context_of(device);
    const Tensor s = Tensor::zeros({2, 4}, DType::kF32, device),
                 total = Tensor::zeros({}, DType::kF32, device);
    const Tensor targets = Tensor::zeros({2}, DType::kI32, device);
    DistillLossArgs good;
    good.student = s.raw();
    good.targets = targets.data<std::int32_t>();
    good.total = total.raw();
    good.rows = 2, good.classes = 4, good.student_pitch = 4;
    kernels::distill_loss(context, good);
    const auto refused = [&](auto change) {
      DistillLossArgs a = good;
      change(a);
      EXPECT_THROW(kernels::distill_loss(context, a), Error);
    };
    refused([](auto& a) { a.classes = 0; });
    refused([](auto& a) { a.rows = -1; });
    refused([](auto& a) { a.student_pitch = 3; });
    refused([](auto& a) { a.student = nullptr; });
    refused([](auto& a) { a.total = nullptr; });
    refused([](auto& a) { a.targets = nullptr; });
    refused([](auto& a) { a.teacher = a.student, a.teacher_pitch = 4; });  // no lambda
    refused([](auto& a) { a.dstudent = a.total, a.dstudent_pitch = 3; });
    refused([](auto& a) { a.parameter = 1; });
    refused([](auto& a) { a.tau_power = -2; });
    refused([](auto& a) { a.tau_power = 3; });
    refused([](auto& a) { a.dtype = DType::kF16; });
    refused([](auto& a) { a.divergence = Divergence::kJensenShannon, a.parameter = 0; });
    refused([](auto& a) { a.argmax = const_cast<std::int32_t*>(a.targets); });
  }
}

// f64 on the CPU is what every other test holds f32, bf16 and CUDA against.
TEST(DistillLossKernel, f64_on_the_cpu_is_the_definition) {
  for (int d = 0; d < kernels::kDivergences; ++d)
    for (const std::int64_t v : {2, 10, 257}) {
      Case c = make_case(13, v, 23);
      c.divergence = static_cast<Divergence>(d);
      const Outcome got = run(c, Device::kCpu, DType::kF64);
      double z = 0, total = 0;
      for (const std::uint8_t m : c.mask) z += m;
      for (std::size_t i = 0; i < 13; ++i) {
        const auto part = [&](const std::vector<float>& x) {
          const auto begin = x.begin() + static_cast<std::ptrdiff_t>(i) * v;
          return std::vector<double>(begin, begin + v);
        };
        const auto of = [&](const std::vector<float>& x) { return static_cast<double>(x[i]); };
        kernels::DistillRow want;
        want.gradient.resize(static_cast<std::size_t>(v));
        if (c.mask[i])
          want = kernels::distill_row_composed(
              {of(c.lambda), of(c.tau), of(c.weights) / z, c.divergence,
               kernels::default_parameter(c.divergence), static_cast<std::size_t>(c.targets[i])},
              part(c.student), part(c.teacher));
        total += want.loss;
        const std::string what = join(name_of(c.divergence), " V = ", v, " row ", i);
        for (std::size_t k = 0; k < want.gradient.size(); ++k)
          EXPECT_NEAR(got.gradient[i * want.gradient.size() + k], want.gradient[k], 1e-14) << what;
        for (std::size_t k = 0; k < kernels::kRowStatistics; ++k)  // stored in f32
          EXPECT_NEAR(got.statistics[k * 13 + i], want.statistics[k],
                      1e-6 * (1 + std::abs(want.statistics[k])))
              << what << " statistic " << k;
        EXPECT_EQ(got.argmax[i], want.argmax_student) << what;
        EXPECT_EQ(got.argmax[13 + i], want.argmax_teacher) << what;
      }
      EXPECT_NEAR(got.total, total, 1e-12) << name_of(c.divergence);
    }
}

TEST(DistillLossKernel, count_rows_counts_what_a_loop_counts) {
  for (const Device device : devices())
    for (const std::int64_t n : {0, 1, 31, 1023, 1024, 1025, 5000}) {
      const Tensor targets = randint({n}, 3, 4).to(device),
                   count = Tensor::empty({}, DType::kF32, device);
      const Tensor mask = randint({n}, 4, 3).to(DType::kU8).to(device);
      const auto y = targets.to_vector<std::int32_t>();
      const auto m = mask.to_vector<std::uint8_t>();
      for (const bool labelled : {true, false})
        for (const bool masked : {true, false}) {
          count.fill(-7);
          kernels::count_rows(
              context_of(device),
              {labelled && n ? targets.data<std::int32_t>() : nullptr,
               masked && n ? mask.data<std::uint8_t>() : nullptr, 2, n, count.data<float>()});
          double want = 0;
          for (std::size_t i = 0; i < y.size(); ++i)
            want += (!labelled || y[i] != 2) && (!masked || m[i] != 0);
          EXPECT_EQ(count.item(), want) << name_of(device) << " " << n;
        }
    }
  float count = 0;
  const Context& cpu = context_of(Device::kCpu);
  EXPECT_THROW(kernels::count_rows(cpu, {nullptr, nullptr, -100, -1, &count}), Error);
  EXPECT_THROW(kernels::count_rows(cpu, {nullptr, nullptr, -100, 1, nullptr}), Error);
}

TEST(DistillLossKernel, scale_rows_skips_one_and_keeps_the_padding) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      for (const double factor : {1.0, 2.5}) {
        const Tensor x = Tensor::full({7, 40}, 3, dtype, device);
        const Tensor scale =
            Tensor::scalar(factor, dtype == DType::kF64 ? dtype : DType::kF32, device);
        kernels::scale_rows(context_of(device), {x.raw(), scale.raw(), 7, 37, 40, dtype});
        const std::vector<double> v = x.to_vector<double>();
        for (std::size_t i = 0; i < v.size(); ++i) EXPECT_EQ(v[i], i % 40 < 37 ? 3 * factor : 3);
      }
}

}  // namespace
}  // namespace retort::test
