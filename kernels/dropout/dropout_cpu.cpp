// The loops are plain: Highway compiles this file once per instruction set and GCC vectorises them
// there, the rounds of Philox over kGroup blocks side by side.
#include "kernels/dropout/dropout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout/dropout_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

constexpr int kGroup = 16;  // blocks

// words[4 i + k] = word k of block `first` + i.
void group_words(const DropoutKey& key, std::uint32_t sample, std::uint32_t first,
                 std::uint32_t (&words)[kDropoutBlock * kGroup]) {
  std::uint32_t all[kDropoutBlock][kGroup];
  for (int i = 0; i < kGroup; ++i) {
    const Philox4 r = dropout_words(key, sample, first + static_cast<std::uint32_t>(i));
    for (int k = 0; k < kDropoutBlock; ++k) all[k][i] = r.v[k];
  }
  for (int i = 0; i < kGroup; ++i)
    for (int k = 0; k < kDropoutBlock; ++k) words[kDropoutBlock * i + k] = all[k][i];
}

template <class T>
void drop_row(T* y, const T* x, std::int64_t columns, const DropoutKey& key, std::uint32_t sample,
              std::uint32_t block, accumulator_t<T> scale) {
  constexpr std::int64_t kStep = std::int64_t{kDropoutBlock} * kGroup;
  std::uint32_t words[kStep];
  for (std::int64_t c = 0; c < columns; c += kStep, block += kGroup) {
    group_words(key, sample, block, words);
    const std::int64_t n = columns - c < kStep ? columns - c : kStep;
    for (std::int64_t i = 0; i < n; ++i)
      y[c + i] = from_float<T>(
          dropout_value<accumulator_t<T>>(to_float(x[c + i]), words[i], key.threshold, scale));
  }
}

void dropout_rows(const DropoutArgs& a) {
  const DropoutKey key = dropout_key(a);
  dispatch_float(a.dtype, "dropout", [&]<class T>() {
    T* const y = static_cast<T*>(a.y);
    const T* const x = static_cast<const T*>(a.x);
    const auto scale = static_cast<accumulator_t<T>>(1 / (1 - a.p));
    const std::int64_t least = (std::int64_t{1} << 14) / a.columns;
    parallel_for(a.rows, least < 1 ? 1 : least, [=, &a](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n)
        drop_row(y + n * a.columns, x + n * a.columns, a.columns, key, dropout_sample(a, n),
                 dropout_first_block(a, n), scale);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<DropoutArgs> dropout_cuda = nullptr;

HWY_EXPORT(dropout_rows);
void dropout_cpu(const Context&, const DropoutArgs& args) {
  HWY_DYNAMIC_DISPATCH(dropout_rows)(args);
}

}  // namespace retort::kernels
#endif  // HWY_ONCE
