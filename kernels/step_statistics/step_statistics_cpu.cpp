#include "kernels/step_statistics/step_statistics.h"

namespace retort::kernels {

CudaOp<StepStatisticsArgs> step_statistics_cuda = nullptr;

namespace {

// The kernel's order: see StepStatisticsArgs.
template <class Of>
double sum(std::int64_t n, const Of& value) {
  double lane[256] = {};
  for (std::int64_t i = 0; i < n; ++i) lane[i % 256] += value(i);
  double total = 0;
  for (double* warp = lane; warp < lane + 256; warp += 32) {
    for (int d = 16; d > 0; d >>= 1)
      for (int l = 0; l < d; ++l) warp[l] += warp[l + d];
    total += warp[0];
  }
  return total;
}

double made_of(const StepColumn& c, const StepStatisticsArgs& a) {
  using Kind = StepColumn::Kind;
  switch (c.kind) {
    case Kind::kSumF32:
      return sum(a.rows, [v = static_cast<const float*>(c.values)](std::int64_t i) {
        return static_cast<double>(v[i]);
      });
    case Kind::kSumU8:
      return sum(a.rows, [v = static_cast<const std::uint8_t*>(c.values)](std::int64_t i) {
        return static_cast<double>(v[i]);
      });
    case Kind::kCountI32:
      return sum(a.rows, [&, v = static_cast<const std::int32_t*>(c.values)](std::int64_t i) {
        return v[i] != a.ignore_index && (c.mask == nullptr || c.mask[i] != 0) ? 1.0 : 0.0;
      });
    case Kind::kScalarF32: return static_cast<double>(*static_cast<const float*>(c.values));
    case Kind::kScalarF64: return *static_cast<const double*>(c.values);
    case Kind::kConstant: return c.constant;
  }
  return 0;
}

}  // namespace

void step_statistics_cpu(const Context&, const StepStatisticsArgs& a) {
  double* const row = a.numbers + kStepColumns * (a.slot ? *a.slot : 0);
  for (int k = 0; k < a.count; ++k) row[k] = (a.add ? row[k] : 0) + made_of(a.columns[k], a);
}

}  // namespace retort::kernels
