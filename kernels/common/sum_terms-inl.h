// A sum over n terms in an order fixed by n: the loop of reduce, mse and the gradient norm,
// compiled for each instruction set.
#if defined(RETORT_SUM_TERMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETORT_SUM_TERMS_INL_H_
#undef RETORT_SUM_TERMS_INL_H_
#else
#define RETORT_SUM_TERMS_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/common/context.h"
#include "kernels/common/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace retort::kernels {
namespace HWY_NAMESPACE {

// A run is what is summed in A. 32 lanes, so that GCC keeps them in vector registers and no lane
// adds more than 128 terms.
constexpr std::int64_t kTermRun = 4096, kTermChunk = std::int64_t{1} << 14;
constexpr int kTermLanes = 32;

/// term(begin) + ... + term(end - 1) on this thread: runs in A, runs in order in double.
template <class A, class Term>
double sum_terms_here(std::int64_t begin, std::int64_t end, const Term& term) {
  double total = 0;
  for (std::int64_t first = begin; first < end; first += kTermRun) {
    const std::int64_t last = std::min(first + kTermRun, end);
    A lane[kTermLanes] = {};
    std::int64_t i = first;
    for (; i + kTermLanes <= last; i += kTermLanes)
      for (int l = 0; l < kTermLanes; ++l) lane[l] += term(i + l);
    for (int l = 0; i + l < last; ++l) lane[l] += term(i + l);
    double run = 0;
    for (int l = 0; l < kTermLanes; ++l) run += static_cast<double>(lane[l]);
    total += run;
  }
  return total;
}

/// term(0) + ... + term(n - 1) on all threads: chunks of 16,384 as above, their sums in order.
/// Scratch: 8 bytes a chunk.
template <class A, class Term>
double sum_terms(Scratch* scratch, std::int64_t n, const Term& term) {
  const std::int64_t chunks = (n + kTermChunk - 1) / kTermChunk;
  if (chunks <= 1) return sum_terms_here<A>(0, n, term);
  double* const partial =
      static_cast<double*>(scratch->get(static_cast<std::size_t>(chunks) * sizeof(double)));
  parallel_for(n, kTermChunk, [=, &term](std::int64_t begin, std::int64_t end) {
    partial[begin / kTermChunk] = sum_terms_here<A>(begin, end, term);
  });
  double total = 0;
  for (std::int64_t c = 0; c < chunks; ++c) total += partial[c];
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace retort::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard that flips with the target
