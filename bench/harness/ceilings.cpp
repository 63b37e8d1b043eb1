#include "bench/harness/ceilings.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "bench/harness/session.h"
#include "engine/ops/random.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "kernels/gemm/gemm.h"

namespace retort::bench {
namespace {

// Medians of a few runs after one that warms up: a ceiling is what can be had repeatedly.
double median_time(Device device, int runs, const std::function<void()>& f) {
  Timer timer(device);
  timer.time(f);
  std::vector<double> ms;
  for (int i = 0; i < runs; ++i) ms.push_back(timer.time(f));
  return median(std::move(ms));
}

double copy_rate(Device device, std::int64_t bytes) {
  const Tensor from = Tensor::zeros({bytes}, DType::kU8, device),
               to = Tensor::zeros({bytes}, DType::kU8, device);
  const double moved = 2 * static_cast<double>(bytes);
  if (device == Device::kCuda)
    return moved / (median_time(device, 9, [&] { to.copy_from(from); }) * 1e6);
  auto* const a = to.data<std::uint8_t>();
  const auto* const b = from.data<std::uint8_t>();
  const auto each = [&](auto copy) {
    return moved / (median_time(device, 9,
                                [&] {
                                  parallel_for(bytes, std::int64_t{1} << 21,
                                               [&](std::int64_t begin, std::int64_t end) {
                                                 copy(a + begin, b + begin,
                                                      static_cast<std::size_t>(end - begin));
                                               });
                                }) *
                    1e6);
  };
  return std::max(each([](void* t, const void* f, std::size_t n) { std::memcpy(t, f, n); }),
                  each(detail::streaming_copy));
}

double gemm_rate(Device device, DType dtype, std::int64_t n) {
  const Tensor a = Tensor::empty({n, n}, dtype, device), b = Tensor::empty({n, n}, dtype, device),
               c = Tensor::empty({n, n}, dtype, device);
  fill_normal(a, {1});
  fill_normal(b, {2});
  kernels::GemmArgs args{c.raw(), a.raw(), b.raw(), n, n, n, n, n, n};
  args.dtype = dtype;
  args.transpose_b = true;
  const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(n * n);
  return flops /
         (median_time(device, 5, [&] { kernels::gemm(kernel_context(device), args); }) * 1e6);
}

// The sum over threads that run at the same time.
double all_threads(double (*rate)(int), int scale) {
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<double> rates(static_cast<std::size_t>(thread_count()));
    parallel_for(thread_count(), 1, [&](std::int64_t i, std::int64_t) {
      rates[static_cast<std::size_t>(i)] = rate(scale);
    });
    double sum = 0;
    for (const double r : rates) sum += r;
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace

Ceilings higher(const Ceilings& a, const Ceilings& b) {
  return {std::max(a.copy_gb_per_s, b.copy_gb_per_s),
          std::max(a.gemm_f32_gflop_per_s, b.gemm_f32_gflop_per_s),
          std::max(a.gemm_bf16_gflop_per_s, b.gemm_bf16_gflop_per_s),
          std::max(a.fma_f32_gflop_per_s, b.fma_f32_gflop_per_s),
          std::max(a.dot_bf16_gflop_per_s, b.dot_bf16_gflop_per_s)};
}

Ceilings measure_ceilings(Device device, bool smoke) {
  Ceilings c;
  const bool cpu = device == Device::kCpu;
  c.copy_gb_per_s = copy_rate(device, std::int64_t{1} << (smoke ? 16 : cpu ? 27 : 30));
  const std::int64_t n = smoke ? 32 : cpu ? 2048 : 8192;
  c.gemm_f32_gflop_per_s = gemm_rate(device, DType::kF32, n);
  c.gemm_bf16_gflop_per_s = gemm_rate(device, DType::kBF16, n);
  if (cpu) {
    const int scale = smoke ? 1 : 50;
    c.fma_f32_gflop_per_s = all_threads(detail::fma_f32_rate, scale);
    c.dot_bf16_gflop_per_s = all_threads(detail::dot_bf16_rate, scale);
  }
  return c;
}

}  // namespace retort::bench
