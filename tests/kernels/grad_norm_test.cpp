#include "kernels/grad_norm/grad_norm_composed.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct NormResult {
  Tensor norm, clip, not_finite;
};
NormResult norm_of(const std::vector<Tensor>& gradients, double max_norm, Device device) {
  NormResult r{Tensor::full({}, -1, DType::kF32, device), Tensor::full({}, -1, DType::kF32, device),
               Tensor::full({}, -1, DType::kI32, device)};
  std::vector<kernels::GradientSegment> segments;
  for (const Tensor& g : gradients) segments.push_back({g.raw(), g.numel()});
  kernels::grad_norm(context_of(device),
                     {segments, r.norm.data<float>(), r.clip.data<float>(),
                      r.not_finite.data<std::int32_t>(), max_norm, gradients.at(0).dtype()});
  return r;
}

TEST(GradNorm, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor a = Tensor::from<float>({3}, {1}, device),
                 b = Tensor::from<float>({0, 4, 0}, {3}, device),
                 none = Tensor::empty({0}, DType::kF32, device);
    const NormResult r = norm_of({a, none, b}, 2.5, device);
    EXPECT_EQ(r.norm.item(), 5) << name_of(device);
    EXPECT_NEAR(r.clip.item(), 0.5, 1e-6);
    EXPECT_EQ(r.not_finite.item(), 0);
    EXPECT_EQ(norm_of({a, b}, 6, device).clip.item(), 1);
    EXPECT_EQ(norm_of({a, b}, 0, device).clip.item(), 1);
    EXPECT_EQ(norm_of({none}, 1, device).norm.item(), 0);
  }
}

TEST(GradNorm, large_and_many_segments) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      std::vector<Tensor> gradients;
      std::vector<double> all;
      std::uint64_t seed = 0;
      for (const std::int64_t n : {0, 1, 31, 32, 33, 255, 256, 257, 70001}) {
        gradients.push_back(randn({n}, ++seed, dtype));
        for (const double v : gradients.back().to_vector<double>()) all.push_back(v);
        gradients.back() = gradients.back().to(device);
      }
      for (int i = 0; i < 100; ++i) {
        gradients.push_back(Tensor::full({3}, 0.5, dtype, device));
        all.insert(all.end(), 3, 0.5);
      }
      const NormResult r = norm_of(gradients, 1, device);
      const kernels::GradNorm want = kernels::grad_norm_composed(all, 1);
      EXPECT_NEAR(r.norm.item(), want.norm, 1e-6 * want.norm)
          << name_of(device) << " " << name_of(dtype);
      EXPECT_NEAR(r.clip.item(), want.clip, 1e-6 * want.clip);
      EXPECT_TRUE(same_bytes(r.norm, norm_of(gradients, 1, device).norm));
    }
}

TEST(GradNorm, a_value_that_is_not_finite_raises_the_flag) {
  for (const Device device : devices())
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const Tensor g = Tensor::from<float>({1, bad, 2}, {3}, device);
      const NormResult r = norm_of({g}, 1, device);
      EXPECT_EQ(r.not_finite.item(), 1) << bad << " " << name_of(device);
      EXPECT_EQ(r.clip.item(), 1);
    }
}

// Blocks that others squared: the same bytes, whatever their size makes of the last block.
TEST(GradNorm, in_two_parts_it_has_the_bytes_of_one) {
  constexpr std::int64_t kBlock = kernels::kGradNormBlock;
  const auto blocks = [](std::int64_t m) {
    return static_cast<std::size_t>((m + kBlock - 1) / kBlock);
  };
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{5}, kBlock, 3 * kBlock + 77})
    for (const float bad : {0.0f, std::numeric_limits<float>::infinity()}) {
      const Tensor g = randn({n}, 5);
      if (n > 0 && bad != 0) g.slice(n / 2, n / 2 + 1).fill(static_cast<double>(bad));
      const NormResult want = norm_of({g}, 0.5, Device::kCpu);
      for (const std::int64_t cut : {std::int64_t{0}, kBlock, 2 * kBlock}) {
        if (cut > n) continue;
        std::vector<double> squares(blocks(n));
        kernels::grad_norm_squares_cpu(g.data<float>(), cut, squares.data());
        const Tensor rest = g.slice(cut, n).clone();  // elsewhere
        kernels::grad_norm_squares_cpu(rest.data<float>(), n - cut, squares.data() + blocks(cut));
        NormResult got = norm_of({Tensor::full({1}, 7)}, 0, Device::kCpu);
        kernels::grad_norm_of_squares_cpu(squares, 0.5, got.norm.data<float>(),
                                          got.clip.data<float>(),
                                          got.not_finite.data<std::int32_t>());
        EXPECT_TRUE(same_bytes(got.norm, want.norm)) << n << " " << cut;
        EXPECT_TRUE(same_bytes(got.clip, want.clip)) << n << " " << cut;
        EXPECT_EQ(got.not_finite.item(), want.not_finite.item()) << n << " " << cut;
      }
    }
}

// Their squares leave the range of f32: an explosion must be clipped, not waved through.
TEST(GradNorm, gradients_of_any_finite_size_are_measured_and_clipped) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const double size : {1e20, 1e30, 1e-25}) {
        const Tensor g = Tensor::full({4096}, size, dtype, device);  // norm: 64 of them
        const double one = g.slice(0, 1).item();
        const NormResult r = norm_of({g}, 1, device);
        EXPECT_TRUE(close(r.norm.item(), 64 * one, 1e-6, 0)) << size << name_of(device);
        EXPECT_TRUE(close(r.clip.item(), size > 1 ? 1 / (64 * one) : 1, 1e-6, 0)) << size;
        EXPECT_EQ(r.not_finite.item(), 0);
      }
  for (const Device device : devices()) {  // the norm is no float any more; the factor is
    const NormResult r = norm_of({Tensor::full({4}, 3e38, DType::kF32, device)}, 10, device);
    EXPECT_EQ(r.not_finite.item(), 1);
    EXPECT_TRUE(close(r.clip.item(), 10 / 6e38, 1e-3, 0)) << name_of(device);
  }
}

// With a ticket one launch does all, to the same bits, time after time.
TEST(GradNorm, a_ticket_saves_the_finishing_launch) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  const Device device = Device::kCuda;
  const Tensor ticket = Tensor::zeros({}, DType::kI32, device);
  for (const std::int64_t n : {1, 16384, 16385, 100003}) {
    const Tensor g = randn({n}, 5).to(device), norm = Tensor::zeros({}, DType::kF32, device),
                 clip = norm.clone();
    const kernels::GradientSegment segment{g.raw(), n};
    kernels::GradNormArgs args;
    args.segments = {&segment, 1};
    args.norm = norm.data<float>();
    args.clip = clip.data<float>();
    args.max_norm = 1;
    args.ticket = reinterpret_cast<std::uint32_t*>(ticket.data<std::int32_t>());
    const NormResult want = norm_of({g}, 1, device);
    for (int repeat = 0; repeat < 2; ++repeat) {
      norm.fill(-1);
      clip.fill(-1);
      const std::uint64_t before = cuda_runtime.launches();
      kernels::grad_norm(context_of(device), args);
      EXPECT_EQ(cuda_runtime.launches() - before, 1u);
      EXPECT_TRUE(same_bytes(norm, want.norm)) << n;
      EXPECT_TRUE(same_bytes(clip, want.clip)) << n;
      EXPECT_EQ(ticket.item(), 0);
    }
  }
  // More segments than a launch takes: the finishing launch is back.
  std::vector<Tensor> many(65, Tensor::full({2}, 0.5, DType::kF32, device));
  std::vector<kernels::GradientSegment> segments;
  for (const Tensor& t : many) segments.push_back({t.raw(), 2});
  const Tensor norm = Tensor::zeros({}, DType::kF32, device);
  kernels::GradNormArgs args;
  args.segments = segments;
  args.norm = norm.data<float>();
  args.ticket = reinterpret_cast<std::uint32_t*>(ticket.data<std::int32_t>());
  const std::uint64_t before = cuda_runtime.launches();
  kernels::grad_norm(context_of(device), args);
  EXPECT_EQ(cuda_runtime.launches() - before, 3u);
  EXPECT_NEAR(norm.item(), std::sqrt(32.5), 1e-5);
  EXPECT_EQ(ticket.item(), 0);
}

TEST(GradNorm, errors) {
  const std::vector<kernels::GradientSegment> bad{{nullptr, 3}};
  EXPECT_THROW(kernels::grad_norm(context_of(Device::kCpu), {bad}), Error);
}

}  // namespace
}  // namespace retort::test
