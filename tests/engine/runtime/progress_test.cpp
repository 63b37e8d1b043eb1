#include "engine/runtime/progress.h"

#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "engine/ops/elementwise.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

TEST(Progress, ops_and_blocks_of_files_count) {
  std::int64_t before = progress();
  const auto moved = [&] { return progress() > std::exchange(before, progress()); };
  EXPECT_FALSE(moved());
  const Tensor x = Tensor::full({2, 3}, 1.0);
  moved();
  static_cast<void>(add(x, x));
  EXPECT_TRUE(moved());
  const TemporaryFolder folder;
  FileWriter writer(folder / "file");
  writer.write("text");
  EXPECT_FALSE(moved());
  writer.finish();
  EXPECT_TRUE(moved());
  EXPECT_EQ(read_file(folder / "file", 100), "text");
  EXPECT_TRUE(moved());
}

}  // namespace
}  // namespace retort::test
