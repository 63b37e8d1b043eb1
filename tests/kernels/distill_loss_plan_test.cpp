// Which kernel takes which rows: the decision at its edges.
#include "kernels/distill_loss/distill_loss_plan.h"

#include <gtest/gtest.h>

namespace retort::kernels {
namespace {

constexpr std::int64_t kRows = 8192;

RowPlan bf16(std::int64_t classes, int capability = 90, std::int64_t rows = kRows) {
  return plan_rows(rows, classes, 2, 2, capability);
}
RowPlan f32(std::int64_t classes) { return plan_rows(kRows, classes, 4, 2, 90); }

TEST(DistillLossPlan, short_rows_need_no_cluster) {
  for (const int capability : {80, 90, 100}) {
    EXPECT_EQ(bf16(1, capability).kernel, RowKernel::kFourLanes);
    EXPECT_EQ(bf16(32, capability).kernel, RowKernel::kFourLanes);
    EXPECT_EQ(bf16(33, capability).kernel, RowKernel::kWarp);
    EXPECT_EQ(bf16(1024, capability).kernel, RowKernel::kWarp);
  }
  EXPECT_EQ(bf16(1025, 80).kernel, RowKernel::kBlockTwoPass);
  EXPECT_EQ(bf16(1025, 89).kernel, RowKernel::kBlockTwoPass);
  EXPECT_EQ(bf16(1025, 90).kernel, RowKernel::kCluster);
  EXPECT_EQ(bf16(1025, 100).kernel, RowKernel::kCluster);
  EXPECT_EQ(bf16(1025).cluster, 1);
}

TEST(DistillLossPlan, vocabularies) {
  EXPECT_EQ(bf16(28996).cluster, 2);
  EXPECT_EQ(bf16(30522).cluster, 2);
  EXPECT_EQ(bf16(50257).cluster, 4);
  EXPECT_EQ(bf16(128256).cluster, 8);
  EXPECT_EQ(f32(30522).cluster, 4);
  EXPECT_EQ(f32(50257).cluster, 8);
}

// The largest V for which the cluster is c, and the next.
TEST(DistillLossPlan, the_cluster_grows_where_a_slice_would_exceed_what_three_blocks_share) {
  const std::int64_t width = 8;  // of a 16-byte chunk
  std::int64_t last = 0;
  for (const int cluster : {1, 2, 4}) {
    // cluster * 72 KiB / (2 rows * 16 bytes) chunks; V + 14 elements must fit into them.
    last = cluster * (72 * 1024 / 32) * width + width - 1 - 14;
    EXPECT_EQ(bf16(last).cluster, cluster) << last;
    EXPECT_LE(bf16(last).shared_bytes, kSliceBytesWanted);
    EXPECT_EQ(bf16(last + 1).cluster, 2 * cluster) << last;
  }
  last = 8 * (224 * 1024 / 32) * width + width - 1 - 14;  // one block on a multiprocessor
  EXPECT_EQ(bf16(last).kernel, RowKernel::kCluster);
  EXPECT_EQ(bf16(last).cluster, 8);
  EXPECT_EQ(bf16(last + 1).kernel, RowKernel::kBlockTwoPass);
}

TEST(DistillLossPlan, every_slice_fits_wherever_the_row_begins) {
  for (const std::size_t element : {std::size_t{2}, std::size_t{4}})
    for (const int operands : {1, 2})
      for (std::int64_t classes = 1025; classes < 400000; classes += classes / 7 + 1) {
        const RowPlan plan = plan_rows(kRows, classes, element, operands, 90);
        if (plan.kernel != RowKernel::kCluster) continue;
        const auto width = static_cast<std::int64_t>(16 / element);
        EXPECT_GE(plan.slice_chunks * plan.cluster * width, classes + width - 1);
        EXPECT_EQ(plan.shared_bytes, static_cast<std::size_t>(plan.slice_chunks * 16 * operands));
        EXPECT_LE(plan.shared_bytes, kSliceBytesMost);
      }
  // Without a teacher half the memory does: longer rows in the same cluster.
  EXPECT_EQ(plan_rows(kRows, 36000, 2, 1, 90).cluster, 1);
  EXPECT_EQ(bf16(36000).cluster, 2);
}

TEST(DistillLossPlan, more_blocks_than_a_grid_has) {
  const std::int64_t most = ((std::int64_t{1} << 31) - 1) / 8;
  EXPECT_EQ(bf16(128256, 90, most).kernel, RowKernel::kCluster);
  EXPECT_EQ(bf16(128256, 90, most + 1).kernel, RowKernel::kBlockTwoPass);
}

}  // namespace
}  // namespace retort::kernels
