// Gradients of a batch's slices, added in an order that their number alone decides, and the
// statistics that are averaged from such a sum.
//
// Note [Sum of slices]
//   A batch is cut into M slices, and what they leave (gradients, batch statistics) is added along
//   a binary tree: slices come in by number, two finished neighbours of equal size are added, left
//   + right, and what is left at the end is folded from the right.
//
//     4 slices: (0 + 1) + (2 + 3)        6 slices: ((0 + 1) + (2 + 3)) + (4 + 5)
//
//   Slices [a, a + 2^k), a a multiple of 2^k, are one node of the tree. So whoever holds such a
//   block can add it alone, and whoever adds the blocks by the same rule gets the same bytes,
//   however many hold them. A slice that completes nodes of several sizes is added to their left
//   halves, oldest first, in one pass: n1 + (n2 + (... + slice)).
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"

namespace retort::kernels {

/// Nodes of one sum: 2^15 slices complete no more at once.
inline constexpr int kMaxSliceNodes = 16;

/// out[i] = nodes[0][i] + (nodes[1][i] + (... + nodes[count - 1][i])),  i < n; of one node a copy.
///
/// Shapes    nodes and out f32 (n), adjacent. out may be any of the nodes, but must not overlap one
///           otherwise.
/// Numerics  count - 1 additions in f32, in just this order: the same bits on CPU and CUDA. NaN and
///           infinities go into the sum.
/// Cost      reads count * n, writes n elements; one launch.
/// Errors    Error on n < 0, a count outside [1, 16], or a null pointer while n > 0.
struct SliceSumArgs {
  const float* nodes[kMaxSliceNodes] = {};
  int count = 0;
  float* out = nullptr;
  std::int64_t n = 0;

  void push(const float* node) {
    RETORT_CHECK(count < kMaxSliceNodes, "[slice_sum] expected at most ", kMaxSliceNodes, " nodes");
    nodes[count++] = node;
  }
};

void slice_sum_cpu(const Context& context, const SliceSumArgs& args);
extern CudaOp<SliceSumArgs> slice_sum_cuda;

inline void slice_sum(const Context& context, const SliceSumArgs& args) {
  RETORT_CHECK(args.n >= 0, "[slice_sum] expected n >= 0, got ", args.n);
  RETORT_CHECK(args.count >= 1 && args.count <= kMaxSliceNodes, "[slice_sum] expected 1 to ",
               kMaxSliceNodes, " nodes, got ", args.count);
  if (args.n == 0) return;
  RETORT_CHECK(args.out, "[slice_sum] expected non-null out");
  for (int k = 0; k < args.count; ++k)
    RETORT_CHECK(args.nodes[k], "[slice_sum] expected node ", k, ", got null");
  dispatch("slice_sum", context, args, slice_sum_cpu, slice_sum_cuda);
}

/// running[i] := (1 - momentum) * running[i] + momentum * (sum[i] / slices),  i < n
///
/// Shapes    running, sum f32 (n), adjacent.
/// Units     momentum weighs the new value, as batch_norm's; slices: how many were added.
/// Masking   if skip is given and *skip != 0, nothing is written (a step with bad gradients).
/// Numerics  in f32, fma(1 - momentum, running, momentum * (sum / slices)): the same bits anywhere.
/// Cost      reads 2n, writes n elements; one launch.
/// Errors    Error on n < 0, slices < 1, or a null pointer while n > 0.
struct RunningAverageArgs {
  float* running = nullptr;
  const float* sum = nullptr;
  std::int64_t n = 0;
  std::int64_t slices = 0;
  double momentum = 0;
  const std::int32_t* skip = nullptr;  // optional
};

void running_average_cpu(const Context& context, const RunningAverageArgs& args);
extern CudaOp<RunningAverageArgs> running_average_cuda;

inline void running_average(const Context& context, const RunningAverageArgs& args) {
  RETORT_CHECK(args.n >= 0 && args.slices >= 1,
               "[running_average] expected n >= 0 and slices >= 1, got ", args.n, " and ",
               args.slices);
  if (args.n == 0) return;
  RETORT_CHECK(args.running && args.sum, "[running_average] expected non-null running and sum");
  dispatch("running_average", context, args, running_average_cpu, running_average_cuda);
}

}  // namespace retort::kernels
