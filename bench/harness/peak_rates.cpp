// Register-only loops: the arithmetic no kernel can pass. Written with intrinsics, since a compiler
// would fold them.
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "bench/harness/ceilings.h"
#include "bench/harness/timer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace retort::bench::detail {

#if defined(__x86_64__)
namespace {

constexpr int kAccumulators = 16;  // two units, latency 4, and some

bool has_bf16_dot() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("flags", 0) == 0) return (line + " ").find(" avx512_bf16 ") != std::string::npos;
  return false;
}

__attribute__((target("avx512f"))) float fma_avx512(int rounds) {
  __m512 sum[kAccumulators];
  for (auto& s : sum) s = _mm512_set1_ps(1);
  const __m512 a = _mm512_set1_ps(0.999999f), b = _mm512_set1_ps(1e-7f);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
  float total = 0;
  for (const auto& s : sum) total += _mm512_cvtss_f32(s);
  return total;
}

__attribute__((target("avx2,fma"))) float fma_avx2(int rounds) {
  __m256 sum[kAccumulators - 4];  // 16 registers, two of them the constants
  for (auto& s : sum) s = _mm256_set1_ps(1);
  const __m256 a = _mm256_set1_ps(0.999999f), b = _mm256_set1_ps(1e-7f);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
  float total = 0;
  for (const auto& s : sum) total += _mm256_cvtss_f32(s);
  return total;
}

__attribute__((target("avx512f,avx512bf16"))) float dot_avx512(int rounds) {
  __m512 sum[kAccumulators];
  for (auto& s : sum) s = _mm512_setzero_ps();
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1e-3f)), b = a;
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbf16_ps(s, a, b);
  float total = 0;
  for (const auto& s : sum) total += _mm512_cvtss_f32(s);
  return total;
}

double rate_of(float (*loop)(int), double flops_per_round, int scale) {
  const int rounds = 60000 * scale;
  volatile float sink = loop(1000);
  const double begin = now_ms();
  sink = loop(rounds);
  static_cast<void>(sink);
  return flops_per_round * rounds / ((now_ms() - begin) * 1e6);
}

}  // namespace

double fma_f32_rate(int scale) {
  if (__builtin_cpu_supports("avx512f")) return rate_of(fma_avx512, 2 * 16 * 16, scale);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return rate_of(fma_avx2, 2 * 8 * 12, scale);
  return 0;
}

double dot_bf16_rate(int scale) {
  static const bool available = has_bf16_dot();
  return available ? rate_of(dot_avx512, 2 * 32 * 16, scale) : 0;
}

void streaming_copy(void* to, const void* from, std::size_t bytes) {
  auto* const t = static_cast<__m128i*>(to);
  const auto* const f = static_cast<const __m128i*>(from);
  const std::size_t n = bytes / sizeof(__m128i);
  for (std::size_t i = 0; i < n; ++i) _mm_stream_si128(t + i, _mm_loadu_si128(f + i));
  _mm_sfence();
  std::memcpy(t + n, f + n, bytes % sizeof(__m128i));
}
#else
double fma_f32_rate(int) { return 0; }
double dot_bf16_rate(int) { return 0; }
void streaming_copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
#endif

}  // namespace retort::bench::detail
