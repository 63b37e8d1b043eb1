// Which kernel computes the rows of a distillation loss on CUDA: the one place that decides.
#pragma once
#include <cstddef>
#include <cstdint>

namespace retort::kernels {

enum class RowKernel : std::uint8_t {
  kFourLanes,     // V <= 32: eight rows a warp
  kWarp,          // V <= 1024: a warp a row; the second read of a row comes from L1
  kCluster,       // sm_90: a row lies in the shared memory of 1 to 8 blocks; read once, 3 touches
  kBlockTwoPass,  // a block a row, which is read twice (from L2 where it fits): 5 touches
};
constexpr const char* name_of(RowKernel k) {
  constexpr const char* names[] = {"four_lanes", "warp", "cluster", "block_two_pass"};
  return names[static_cast<int>(k)];
}

struct RowPlan {
  RowKernel kernel;
  int cluster = 1;       // blocks that share a row
  int slice_chunks = 0;  // 16-byte chunks of one row that a block of kCluster holds, at most
  std::size_t shared_bytes = 0;  // dynamic, a block
};

inline constexpr std::int64_t kFourLanesClasses = 32, kWarpClasses = 1024;
/// Three blocks fit on a multiprocessor (228 KiB, of which a block loses 1 and its static arrays),
/// so that one loads while one computes and one writes.
inline constexpr std::size_t kSliceBytesWanted = 72 * 1024;
/// What one block may have at most (227 KiB), less its static arrays.
inline constexpr std::size_t kSliceBytesMost = 224 * 1024;

/// N rows of V elements of `element` bytes, `operands` of them on chip at once (2 with a teacher).
/// capability: 90 for compute capability 9.0.
constexpr RowPlan plan_rows(std::int64_t rows, std::int64_t classes, std::size_t element,
                            int operands, int capability) {
  if (classes <= kFourLanesClasses) return {RowKernel::kFourLanes};
  if (classes <= kWarpClasses) return {RowKernel::kWarp};
  if (capability < 90) return {RowKernel::kBlockTwoPass};
  const std::int64_t width = static_cast<std::int64_t>(16 / element);
  // A row that starts just before a 16-byte boundary touches one chunk more.
  const std::int64_t chunks = (classes + 2 * (width - 1)) / width;
  RowPlan plan{RowKernel::kCluster};
  const auto slice = [&](int cluster) {
    return static_cast<std::size_t>((chunks + cluster - 1) / cluster) * 16 *
           static_cast<std::size_t>(operands);
  };
  while (plan.cluster < 8 && slice(plan.cluster) > kSliceBytesWanted) plan.cluster *= 2;
  plan.shared_bytes = slice(plan.cluster);
  if (plan.shared_bytes > kSliceBytesMost || rows > ((std::int64_t{1} << 31) - 1) / plan.cluster)
    return {RowKernel::kBlockTwoPass};
  plan.slice_chunks = static_cast<int>((chunks + plan.cluster - 1) / plan.cluster);
  return plan;
}

}  // namespace retort::kernels
