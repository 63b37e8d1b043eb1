// The epilogue and the statistics of a convolution on the CPU, as passes of their own over y.
#pragma once
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {

/// sums := [relu](sums + bias [+ residual]). `sums` holds y before it is rounded to T.
template <class T>
void conv2d_apply_epilogue(const Conv2dArgs& args, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  if (!args.epilogue.any()) return;
  const auto* const bias = static_cast<const A*>(args.epilogue.bias);
  const auto* const residual = static_cast<const T*>(args.epilogue.residual);
  const bool relu = args.epilogue.relu;
  const std::int64_t filters = args.shape.filters, rows = args.shape.y_elements() / filters;
  parallel_for(rows, (std::int64_t{1} << 14) / filters + 1,
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   for (std::int64_t k = 0; k < filters; ++k) {
                     const std::int64_t i = r * filters + k;
                     A v = sums[i];
                     if (bias) v += bias[k];
                     if (residual) v += static_cast<A>(to_float(residual[i]));
                     sums[i] = relu && v < A(0) ? A(0) : v;
                   }
               });
}

/// Fills args.statistics from y as it was stored.
template <class T>
void conv2d_statistics_of(const Conv2dArgs& args) {
  using A = accumulator_t<T>;
  if (args.statistics == nullptr) return;
  const Conv2dChunks chunks = conv2d_statistics_chunks(args.shape, Device::kCpu);
  const std::int64_t filters = args.shape.filters, rows = args.shape.y_elements() / filters;
  const auto* const y = static_cast<const T*>(args.y);
  auto* const statistics = static_cast<A*>(args.statistics);
  parallel_for(rows, chunks.rows, [=](std::int64_t begin, std::int64_t end) {
    std::vector<double> mean(static_cast<std::size_t>(filters)), square(mean);
    const auto each = [&](auto&& f) {
      for (std::int64_t r = begin; r < end; ++r)
        for (std::int64_t k = 0; k < filters; ++k)
          f(static_cast<std::size_t>(k), static_cast<double>(to_float(y[r * filters + k])));
    };
    each([&](std::size_t k, double v) { mean[k] += v; });
    for (double& m : mean) m /= static_cast<double>(end - begin);
    each([&](std::size_t k, double v) { square[k] += (v - mean[k]) * (v - mean[k]); });
    A* const to = statistics + begin / chunks.rows * 2 * filters;
    for (std::int64_t k = 0; k < filters; ++k) {
      to[k] = static_cast<A>(mean[static_cast<std::size_t>(k)]);
      to[filters + k] = static_cast<A>(square[static_cast<std::size_t>(k)]);
    }
  });
}

}  // namespace retort::kernels
