#include "kernels/slice_sum/slice_sum.h"

#include <algorithm>

#include "kernels/common/parallel.h"
#include "kernels/slice_sum/slice_sum_math.h"

namespace retort::kernels {

CudaOp<SliceSumArgs> slice_sum_cuda = nullptr;
CudaOp<RunningAverageArgs> running_average_cuda = nullptr;

namespace {

constexpr std::int64_t kPiece = 1024;  // elements: stays in the first-level cache, whole vectors
constexpr std::int64_t kGrain = std::int64_t{1} << 16;

}  // namespace

void slice_sum_cpu(const Context&, const SliceSumArgs& args) {
  parallel_for(args.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    float sum[kPiece];
    for (std::int64_t at = begin; at < end; at += kPiece) {
      const std::int64_t m = std::min(kPiece, end - at);
      std::copy_n(args.nodes[args.count - 1] + at, m, sum);
      for (int k = args.count - 2; k >= 0; --k) {
        const float* const left = args.nodes[k] + at;
        for (std::int64_t i = 0; i < m; ++i) sum[i] = left[i] + sum[i];
      }
      std::copy_n(sum, m, args.out + at);
    }
  });
}

void running_average_cpu(const Context&, const RunningAverageArgs& args) {
  if (args.skip != nullptr && *args.skip != 0) return;
  const auto keep = static_cast<float>(1 - args.momentum), take = static_cast<float>(args.momentum),
             slices = static_cast<float>(args.slices);
  parallel_for(args.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      args.running[i] = running_average_element(args.running[i], args.sum[i], keep, take, slices);
  });
}

}  // namespace retort::kernels
