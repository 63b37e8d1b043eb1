#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/random/random_cpu.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/common/parallel.h"
#include "kernels/random/random_math.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

// Plain loops, for each instruction set: where it has no fma, std::fma is a slow call of the same
// value.

template <class T, Random kKind>
void fill_blocks(const RandomArgs& args, std::uint32_t epoch) {
  T* const y = static_cast<T*>(args.y);
  constexpr std::int64_t kBlock = kKind == Random::kSigns ? 128 : 4;
  const std::int64_t n = args.n, blocks = (n + kBlock - 1) / kBlock;
  const float a = static_cast<float>(args.a), b = static_cast<float>(args.b);
  parallel_for(blocks, 32768 / kBlock, [=, &args](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const Philox4 r =
          philox(args.seed, static_cast<std::uint32_t>(block), args.sample, epoch, args.path);
      const std::int64_t at = block * kBlock;
      const int count = static_cast<int>(n - at < kBlock ? n - at : kBlock);
      if constexpr (kKind == Random::kSigns) {
        for (int i = 0; i < count; ++i) y[at + i] = from_float<T>(random_sign(r, i));
      } else {
        float values[4];
        random_block<kKind>(r, a, b, values);
        for (int i = 0; i < count; ++i) y[at + i] = from_float<T>(values[i]);
      }
    }
  });
}

void random_fill(const RandomArgs& args) {
  const std::uint32_t epoch =
      args.epoch_pointer ? static_cast<std::uint32_t>(*args.epoch_pointer) : args.epoch;
  dispatch_float(args.dtype, "random", [&]<class T>() {
    switch (args.kind) {
      case Random::kUniform: return fill_blocks<T, Random::kUniform>(args, epoch);
      case Random::kNormal: return fill_blocks<T, Random::kNormal>(args, epoch);
      case Random::kBernoulli: return fill_blocks<T, Random::kBernoulli>(args, epoch);
      case Random::kSigns: return fill_blocks<T, Random::kSigns>(args, epoch);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace retort::kernels {

CudaOp<RandomArgs> random_cuda = nullptr;

HWY_EXPORT(random_fill);

void random_cpu(const Context&, const RandomArgs& args) { HWY_DYNAMIC_DISPATCH(random_fill)(args); }

}  // namespace retort::kernels
#endif  // HWY_ONCE
