// A tile of the f32 product of a linear layer over packed panels. Private to gemm_cpu.cpp.
#pragma once
#include <cstdint>

namespace retort::kernels {

/// c (rows, columns) := a b^T + bias, then max(., 0) with relu, on the calling thread: a (rows, k),
/// b (columns, k), bias (columns) or null, k >= 1; lda, ldb, ldc as in GemmArgs. NaN in, NaN out.
/// Takes thread_space.
///
/// An element is the same bits in whatever tile it is: terms are added in runs of 256 by k, each
/// run by fused multiply-adds, runs in order.
struct PanelArgs {
  float* c;
  const float *a, *b, *bias;
  std::int64_t rows, columns, k;
  std::int64_t lda, ldb, ldc;
  bool relu;
};

void panel_product(const PanelArgs& args);

}  // namespace retort::kernels
