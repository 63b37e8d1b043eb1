#include "kernels/segment_sum/segment_sum.h"

#include <algorithm>

#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<SegmentSumArgs> segment_sum_cuda = nullptr;
CudaOp<SegmentSpreadArgs> segment_spread_cuda = nullptr;
CudaOp<SegmentStartsArgs> segment_starts_cuda = nullptr;

namespace {

void check_starts(const char* op, const std::int32_t* starts, std::int64_t segments,
                  std::int64_t rows) {
  for (std::int64_t s = 0; s <= segments; ++s)
    RETORT_CHECK(starts[s] >= (s > 0 ? starts[s - 1] : 0) && starts[s] <= rows, "[", op,
                 "] expected ascending starts in [0, ", rows, "], got ", starts[s], " at ", s,
                 s > 0 ? join(" after ", starts[s - 1]) : std::string());
}

constexpr std::int64_t kColumnRun = 512;  // sums of a run of columns stay in the first cache

// y[0 .. columns) = factor * the sum of `rows` rows.
template <class T>
void sum_of_rows(T* y, const T* x, std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                 double factor) {
  double sum[kColumnRun];
  for (std::int64_t first = 0; first < columns; first += kColumnRun) {
    const std::int64_t n = std::min(kColumnRun, columns - first);
    std::fill(sum, sum + n, 0.0);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < n; ++c)
        sum[c] += static_cast<double>(to_float(x[r * pitch + first + c]));
    for (std::int64_t c = 0; c < n; ++c)
      y[first + c] = from_float<T>(static_cast<accumulator_t<T>>(factor * sum[c]));
  }
}

double factor_of(bool mean, std::int64_t rows) {
  return mean && rows > 0 ? 1 / static_cast<double>(rows) : 1;
}

}  // namespace

void segment_sum_cpu(const Context&, const SegmentSumArgs& a) {
  check_starts("segment_sum", a.starts, a.segments, a.rows);
  // So many segments that the rows of an average one make a chunk worth a thread.
  const std::int64_t each = std::max<std::int64_t>(1, a.rows / a.segments * a.columns),
                     grain = std::max<std::int64_t>(1, (std::int64_t{1} << 15) / each);
  dispatch_float(a.dtype, "segment_sum", [&]<class T>() {
    parallel_for(a.segments, grain, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t s = first; s < last; ++s) {
        const std::int64_t begin = a.starts[s], rows = a.starts[s + 1] - begin;
        sum_of_rows(static_cast<T*>(a.y) + s * a.columns,
                    static_cast<const T*>(a.x) + begin * a.x_pitch, rows, a.columns, a.x_pitch,
                    factor_of(a.mean, rows));
      }
    });
  });
}

void segment_spread_cpu(const Context&, const SegmentSpreadArgs& a) {
  check_starts("segment_spread", a.starts, a.segments, a.rows);
  dispatch_float(a.dtype, "segment_spread", [&]<class T>() {
    using A = accumulator_t<T>;
    T* const dx = static_cast<T*>(a.dx);
    const auto clear = [=](std::int64_t begin, std::int64_t end) {
      std::fill(dx + begin * a.columns, dx + end * a.columns, from_float<T>(A(0)));
    };
    clear(0, a.starts[0]);
    clear(a.starts[a.segments], a.rows);
    parallel_for(a.segments, 1, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t s = first; s < last; ++s) {
        const std::int64_t begin = a.starts[s], end = a.starts[s + 1];
        const A factor = static_cast<A>(factor_of(a.mean, end - begin));
        const T* const dy = static_cast<const T*>(a.dy) + s * a.dy_pitch;
        for (std::int64_t n = begin; n < end; ++n)
          for (std::int64_t c = 0; c < a.columns; ++c)
            dx[n * a.columns + c] = from_float<T>(factor * to_float(dy[c]));
      }
    });
  });
}

void segment_starts_cpu(const Context&, const SegmentStartsArgs& a) {
  std::int64_t next = 0;  // the segment whose start is still to be found
  for (std::int64_t n = 0; n < a.rows; ++n) {
    const std::int64_t s = a.segment_of_row[n];
    RETORT_CHECK(s >= (n > 0 ? a.segment_of_row[n - 1] : 0) && s < a.segments,
                 "[segment_starts] expected ascending segments in [0, ", a.segments, "), got ", s,
                 " in row ", n);
    for (; next <= s; ++next) a.starts[next] = static_cast<std::int32_t>(n);
  }
  for (; next <= a.segments; ++next) a.starts[next] = static_cast<std::int32_t>(a.rows);
}

}  // namespace retort::kernels
