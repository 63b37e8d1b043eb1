#include "kernels/step_statistics/step_statistics.h"

#include <algorithm>

namespace retort::kernels {

CudaOp<StepStatisticsArgs> step_statistics_cuda = nullptr;

namespace {

// The kernel's order: see StepStatisticsArgs.
template <class T>
double sum(const T* values, std::int64_t n) {
  double lane[256] = {};
  if (values != nullptr)
    for (std::int64_t i = 0; i < n; ++i) lane[i % 256] += static_cast<double>(values[i]);
  double total = 0;
  for (double* warp = lane; warp < lane + 256; warp += 32) {
    for (int d = 16; d > 0; d >>= 1)
      for (int l = 0; l < d; ++l) warp[l] += warp[l + d];
    total += warp[0];
  }
  return total;
}

double samples(const float* confidence, std::int64_t n) {
  if (confidence == nullptr) return static_cast<double>(n);
  return static_cast<double>(
      std::count_if(confidence, confidence + n, [](float c) { return c != 0; }));
}

}  // namespace

void step_statistics_cpu(const Context&, const StepStatisticsArgs& a) {
  const double part[kStepNumbers] = {a.loss_dtype == DType::kF64
                                         ? *static_cast<const double*>(a.loss)
                                         : static_cast<double>(*static_cast<const float*>(a.loss)),
                                     sum(a.ce, a.rows),
                                     sum(a.kd, a.rows),
                                     sum(a.correct, a.rows),
                                     sum(a.teacher_correct, a.rows),
                                     samples(a.confidence, a.rows),
                                     0,
                                     0};
  double* const row = a.numbers + kStepNumbers * (a.slot ? *a.slot : 0);
  for (int k = 0; k < kStepNumbers; ++k) row[k] = (a.add ? row[k] : 0) + part[k];
}

}  // namespace retort::kernels
