// CPU side of pooling: one image row at a time, inner loops over channels.
#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/pool/pool.h"

namespace retort::kernels {

CudaOp<MaxPoolArgs> max_pool_cuda = nullptr;
CudaOp<MaxPoolBackwardArgs> max_pool_backward_cuda = nullptr;
CudaOp<AveragePoolArgs> average_pool_cuda = nullptr;
CudaOp<AveragePoolBackwardArgs> average_pool_backward_cuda = nullptr;

namespace {

struct Range {
  std::int64_t begin, end;
};
// Window positions i of output p that lie inside the image of `size`.
Range inside(std::int64_t p, int stride, int padding, int kernel, std::int64_t size) {
  const std::int64_t first = p * stride - padding;
  return {first < 0 ? -first : 0, first + kernel > size ? size - first : kernel};
}
// Outputs p whose window holds position h.
Range windows(std::int64_t h, int stride, int padding, int kernel, std::int64_t outputs) {
  const std::int64_t last = (h + padding) / stride;
  const std::int64_t below =
      h + padding - kernel;  // windows starting at or before this end before h
  return {below < 0 ? 0 : below / stride + 1, last + 1 < outputs ? last + 1 : outputs};
}
// Rows of the image per chunk: about 64 KiB of floats.
std::int64_t row_grain(std::int64_t row_elements) {
  return row_elements >= 16384 ? 1 : 16384 / (row_elements < 1 ? 1 : row_elements);
}

}  // namespace

void max_pool_cpu(const Context&, const MaxPoolArgs& args) {
  const PoolSizes s = args.sizes;
  dispatch_float(args.dtype, "max_pool", [&]<class T>() {
    const T* const x = static_cast<const T*>(args.x);
    T* const y = static_cast<T*>(args.y);
    const auto c_count = s.channels;
    parallel_for(s.batch * s.out_height, row_grain(s.out_width * c_count),
                 [&](std::int64_t begin, std::int64_t end) {
                   using A = accumulator_t<T>;
                   // Of one size, so that the compiler selects both with one mask.
                   using Index = std::conditional_t<sizeof(A) == 8, std::int64_t, std::int32_t>;
                   std::vector<A> bests(static_cast<std::size_t>(c_count));
                   std::vector<Index> winners(static_cast<std::size_t>(c_count));
                   A* const best = bests.data();
                   Index* const won = winners.data();
                   for (std::int64_t row = begin; row < end; ++row) {
                     const std::int64_t n = row / s.out_height, p = row % s.out_height;
                     const Range ri = inside(p, s.stride, s.padding, s.kernel_h, s.height);
                     for (std::int64_t q = 0; q < s.out_width; ++q) {
                       const Range rj = inside(q, s.stride, s.padding, s.kernel_w, s.width);
                       std::fill(bests.begin(), bests.end(), -std::numeric_limits<A>::infinity());
                       std::fill(winners.begin(), winners.end(),
                                 static_cast<Index>(ri.begin * s.kernel_w + rj.begin));
                       for (std::int64_t i = ri.begin; i < ri.end; ++i)
                         for (std::int64_t j = rj.begin; j < rj.end; ++j) {
                           const T* const from =
                               x + ((n * s.height + p * s.stride - s.padding + i) * s.width +
                                    q * s.stride - s.padding + j) *
                                       c_count;
                           const auto k = static_cast<Index>(i * s.kernel_w + j);
                           for (std::int64_t c = 0; c < c_count; ++c) {
                             const A v = to_float(from[c]);
                             const bool wins = (v > best[c]) | (v != v);  // a NaN wins and stays
                             best[c] = wins ? v : best[c];
                             won[c] = wins ? k : won[c];
                           }
                         }
                       const std::int64_t at = (row * s.out_width + q) * c_count;
                       for (std::int64_t c = 0; c < c_count; ++c) {
                         y[at + c] = from_float<T>(best[c]);
                         args.winner[at + c] = static_cast<std::uint8_t>(won[c]);
                       }
                     }
                   }
                 });
  });
}

void max_pool_backward_cpu(const Context&, const MaxPoolBackwardArgs& args) {
  const PoolSizes s = args.sizes;
  dispatch_float(args.dtype, "max_pool_backward", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const dy = static_cast<const T*>(args.dy);
    T* const dx = static_cast<T*>(args.dx);
    const auto c_count = s.channels;
    parallel_for(
        s.batch * s.height, row_grain(s.width * c_count),
        [&](std::int64_t begin, std::int64_t end) {
          std::vector<A> sums(static_cast<std::size_t>(c_count));
          A* const sum = sums.data();
          for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t n = row / s.height, h = row % s.height;
            const Range rp = windows(h, s.stride, s.padding, s.kernel_h, s.out_height);
            for (std::int64_t w = 0; w < s.width; ++w) {
              const Range rq = windows(w, s.stride, s.padding, s.kernel_w, s.out_width);
              std::fill(sums.begin(), sums.end(), A{0});
              for (std::int64_t p = rp.begin; p < rp.end; ++p)
                for (std::int64_t q = rq.begin; q < rq.end; ++q) {
                  const std::int64_t at = ((n * s.out_height + p) * s.out_width + q) * c_count;
                  const auto k = static_cast<std::uint8_t>(
                      (h + s.padding - p * s.stride) * s.kernel_w + w + s.padding - q * s.stride);
                  for (std::int64_t c = 0; c < c_count; ++c)
                    sum[c] += args.winner[at + c] == k ? to_float(dy[at + c]) : A{0};
                }
              T* const to = dx + (row * s.width + w) * c_count;
              for (std::int64_t c = 0; c < c_count; ++c) to[c] = from_float<T>(sum[c]);
            }
          }
        });
  });
}

void average_pool_cpu(const Context&, const AveragePoolArgs& args) {
  const PoolSizes s = args.sizes;
  dispatch_float(args.dtype, "average_pool", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const x = static_cast<const T*>(args.x);
    T* const y = static_cast<T*>(args.y);
    const auto c_count = s.channels;
    const A count = static_cast<A>(s.kernel_h) * static_cast<A>(s.kernel_w);
    parallel_for(s.batch * s.out_height, row_grain(s.width * s.kernel_h * c_count),
                 [&](std::int64_t begin, std::int64_t end) {
                   std::vector<A> sums(static_cast<std::size_t>(c_count));
                   A* const sum = sums.data();
                   for (std::int64_t row = begin; row < end; ++row) {
                     const std::int64_t n = row / s.out_height, p = row % s.out_height;
                     const Range ri = inside(p, s.stride, s.padding, s.kernel_h, s.height);
                     for (std::int64_t q = 0; q < s.out_width; ++q) {
                       const Range rj = inside(q, s.stride, s.padding, s.kernel_w, s.width);
                       std::fill(sums.begin(), sums.end(), A{0});
                       for (std::int64_t i = ri.begin; i < ri.end; ++i)
                         for (std::int64_t j = rj.begin; j < rj.end; ++j) {
                           const T* const from =
                               x + ((n * s.height + p * s.stride - s.padding + i) * s.width +
                                    q * s.stride - s.padding + j) *
                                       c_count;
                           for (std::int64_t c = 0; c < c_count; ++c) sum[c] += to_float(from[c]);
                         }
                       T* const to = y + (row * s.out_width + q) * c_count;
                       for (std::int64_t c = 0; c < c_count; ++c)
                         to[c] = from_float<T>(sum[c] / count);
                     }
                   }
                 });
  });
}

void average_pool_backward_cpu(const Context&, const AveragePoolBackwardArgs& args) {
  const PoolSizes s = args.sizes;
  dispatch_float(args.dtype, "average_pool_backward", [&]<class T>() {
    using A = accumulator_t<T>;
    const T* const dy = static_cast<const T*>(args.dy);
    T* const dx = static_cast<T*>(args.dx);
    const auto c_count = s.channels;
    const A count = static_cast<A>(s.kernel_h) * static_cast<A>(s.kernel_w);
    parallel_for(s.batch * s.height, row_grain(s.width * c_count),
                 [&](std::int64_t begin, std::int64_t end) {
                   std::vector<A> sums(static_cast<std::size_t>(c_count));
                   A* const sum = sums.data();
                   for (std::int64_t row = begin; row < end; ++row) {
                     const std::int64_t n = row / s.height, h = row % s.height;
                     const Range rp = windows(h, s.stride, s.padding, s.kernel_h, s.out_height);
                     for (std::int64_t w = 0; w < s.width; ++w) {
                       const Range rq = windows(w, s.stride, s.padding, s.kernel_w, s.out_width);
                       std::fill(sums.begin(), sums.end(), A{0});
                       for (std::int64_t p = rp.begin; p < rp.end; ++p)
                         for (std::int64_t q = rq.begin; q < rq.end; ++q) {
                           const T* const from =
                               dy + ((n * s.out_height + p) * s.out_width + q) * c_count;
                           for (std::int64_t c = 0; c < c_count; ++c) sum[c] += to_float(from[c]);
                         }
                       T* const to = dx + (row * s.width + w) * c_count;
                       for (std::int64_t c = 0; c < c_count; ++c)
                         to[c] = from_float<T>(sum[c] / count);
                     }
                   }
                 });
  });
}

}  // namespace retort::kernels
