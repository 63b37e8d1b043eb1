// Divergences from outside in every kernel that a row may get, against the definition in double.
#include <dlfcn.h>

#include "kernels/distill_loss/distill_loss_composed.h"
#include "tests/kernels/distill_loss_cases.h"
#include "tests/kernels/own_divergences.h"

namespace retort::test {
namespace {

struct Own {
  kernels::DivergenceOps alpha, distance;
};

// With the CUDA kernels of the library beside this program, where they are for the device at hand.
const Own& own() {
  static const Own ops = [] {
    CudaOp<DistillLossArgs> alpha = nullptr, distance = nullptr;
    void* const library = dlopen(RETORT_OWN_DIVERGENCES, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    if (library != nullptr) {
      const auto fill =
          reinterpret_cast<void (*)(CudaOp<DistillLossArgs>*, CudaOp<DistillLossArgs>*)>(
              dlsym(library, "own_divergences"));
      fill(&alpha, &distance);
    }
    return Own{kernels::divergence_ops<AlphaDivergence>(alpha),
               kernels::divergence_ops<Distance>(distance)};
  }();
  return ops;
}

bool memory_is_the_hosts() { return !cuda_available() || cuda_device_info().emulated; }

TEST(DistillLossFunctor, every_kernel_computes_its_definition) {
  if (!memory_is_the_hosts()) GTEST_SKIP() << "built for the emulator";
  for (const kernels::DivergenceOps* ops : {&own().alpha, &own().distance})
    for (const std::int64_t v : {1, 2, 17, 33, 255, 256, 257, 1100, 2049, 4500}) {
#if defined(RETORT_SANITIZED)
      if (v > 1200) continue;
#endif
      Case c = make_case(5, v, 8);
      c.divergence = *ops;
      c.offset = v % 3;
      c.in_place = v % 2 == 1;
      c.statistics = v % 4 != 0;
      // alpha is a difference of numbers that are near each other, times tau^2 up to 64.
      expect_all_close(c, join(name_of(c.divergence), " V = ", v), 5e-5);
    }
}

TEST(DistillLossFunctor, bf16_rows_are_rounded_once) {
  if (!memory_is_the_hosts()) GTEST_SKIP() << "built for the emulator";
  Case c = make_case(6, 300, 31);
  c.divergence = own().alpha;
  const Outcome want = run(c, Device::kCpu, DType::kF64);
  for (const Device device : devices())
    expect_close(run(c, device, DType::kBF16), want, c, 5e-3, name_of(device));
}

TEST(DistillLossFunctor, f64_is_the_definition_with_its_power_of_tau) {
  for (const kernels::DivergenceOps* ops : {&own().alpha, &own().distance}) {
    Case c = make_case(9, 37, 5);
    c.divergence = *ops;
    const Outcome got = run(c, Device::kCpu, DType::kF64);
    double z = 0;
    for (const std::uint8_t m : c.mask) z += m;
    for (std::size_t i = 0; i < 9; ++i) {
      if (!c.mask[i]) continue;
      const auto part = [&](const std::vector<float>& x) {
        const auto begin = x.begin() + static_cast<std::ptrdiff_t>(i) * 37;
        return std::vector<double>(begin, begin + 37);
      };
      const auto of = [&](const std::vector<float>& x) { return static_cast<double>(x[i]); };
      const kernels::DistillRow want = kernels::distill_row_composed(
          {of(c.lambda), of(c.tau), of(c.weights) / z, c.divergence,
           default_parameter(c.divergence), static_cast<std::size_t>(c.targets[i])},
          part(c.student), part(c.teacher));
      for (std::size_t k = 0; k < 37; ++k)
        EXPECT_NEAR(got.gradient[i * 37 + k], want.gradient[k], 1e-14) << name_of(c.divergence);
      EXPECT_NEAR(got.statistics[kernels::kStatKd * 9 + i], want.statistics[kernels::kStatKd],
                  1e-5);
    }
  }
}

// As a divergence of the library, written once more as a functor from outside.
TEST(DistillLossFunctor, a_functor_gives_what_the_vectors_give) {
  static constexpr kernels::DivergenceOps twin =
      kernels::divergence_ops<kernels::divergence::SkewReverseKl>();
  Case c = make_case(7, 3000, 3);
  c.divergence = Divergence::kSkewReverseKl;
  const Outcome want = run(c, Device::kCpu, DType::kF32), exact = run(c, Device::kCpu, DType::kF64);
  c.divergence = twin;
  expect_close(run(c, Device::kCpu, DType::kF32), want, c, 2e-5, "f32");
  const Outcome same = run(c, Device::kCpu, DType::kF64);
  EXPECT_EQ(same.total, exact.total);
  EXPECT_EQ(same.gradient, exact.gradient);
}

TEST(DistillLossFunctor, logits_of_minus_infinity) {
  if (!memory_is_the_hosts()) GTEST_SKIP() << "built for the emulator";
  Case c = make_case(4, 21, 6);
  c.divergence = own().alpha;
  for (std::size_t i = 0; i < 4; ++i) {
    c.teacher[i * 21 + 3] = -kInf;
    c.student[i * 21 + 4 + i] = -kInf;
    c.targets[i] = 0;
  }
  expect_all_close(c, "one of them");
}

TEST(DistillLossFunctor, what_cannot_run_says_so) {
  Case c = make_case(2, 5, 1);
  static constexpr kernels::DivergenceOps alone = kernels::divergence_ops<AlphaDivergence>();
  c.divergence = alone;
  run(c, Device::kCpu, DType::kF32);
  if (cuda_available()) {
    try {
      run(c, Device::kCuda, DType::kF32);
      FAIL() << "ran";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("the divergence alpha has no CUDA kernel"),
                std::string::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace retort::test
