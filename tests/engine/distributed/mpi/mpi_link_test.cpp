#include "engine/distributed/mpi/mpi_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string broken(int kind) {
  return join(RETORT_BROKEN_PLUGINS, "/broken_mpi_plugin_", kind, ".so");
}

TEST(MpiPlugin, every_fault_is_one_sentence) {
  const char* const says[] = {"does not say how it was built", "does not say how it was built",
                              "built from other headers",      "the entry is broken",
                              "it leaves functions out",       "not a Retort plug-in"};
  for (int kind = 0; kind < 6; ++kind) {
    MpiTable table;
    const std::string problem = open_mpi_plugin(broken(kind), &table);
    EXPECT_THAT(problem, HasSubstr(says[kind])) << kind;
    EXPECT_THAT(problem, StartsWith("no MPI plug-in: " + broken(kind) + ": "));
    EXPECT_EQ(problem.find('\n'), std::string::npos);
    EXPECT_EQ(table.start, nullptr);
    EXPECT_EQ(error_of([&] { MpiLink{broken(kind)}; }, ErrorCode::kDevice), problem);
  }
}

TEST(MpiPlugin, a_file_that_was_cut_is_not_opened) {
  const TemporaryFolder folder;
  const std::string half = folder / "half.so";
  std::filesystem::copy_file(broken(4), half);
  std::filesystem::resize_file(half, std::filesystem::file_size(half) / 2);
  MpiTable table;
  EXPECT_THAT(open_mpi_plugin(half, &table),
              StartsWith("no MPI plug-in: " + half + ": it was cut"));
  EXPECT_THAT(open_mpi_plugin(folder / "none.so", &table), HasSubstr("No such file"));
}

TEST(MpiPlugin, the_cuda_plugin_is_none) {
  MpiTable table;
  EXPECT_THAT(open_mpi_plugin(RETORT_EMULATED_PLUGIN, &table), HasSubstr("not a Retort plug-in"));
}

}  // namespace
}  // namespace retort::test
