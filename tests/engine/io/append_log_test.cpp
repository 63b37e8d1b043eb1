#include "engine/io/append_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>

#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

TEST(AppendLog, resuming_cuts_what_came_after_the_checkpoint) {
  const TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  FileMark first, second;
  {
    AppendLog log(path);
    log.append("one\n");
    first = log.sync();
    log.append("two\n");
    second = log.sync();
    log.append("three\n");
  }
  EXPECT_EQ(second, (FileMark{8, hash_bytes("one\ntwo\n")}));
  EXPECT_EQ(AppendLog::read(path, first), "one\n");
  {
    AppendLog log(path, second);
    EXPECT_EQ(slurp(path), "one\ntwo\n");
    log.append("3\n");
    EXPECT_EQ(log.sync(), (FileMark{10, hash_bytes("one\ntwo\n3\n")}));
  }
  const AppendLog again(path, first);
  EXPECT_EQ(slurp(path), "one\n");
  EXPECT_EQ(again.size(), 4u);
  const AppendLog anew(path);
  EXPECT_EQ(slurp(path), "");
}

TEST(AppendLog, a_log_that_is_not_the_checkpoints_is_refused_and_not_cut) {
  const TemporaryFolder folder;
  const std::string path = folder / "log";
  const FileMark mark{4, hash_bytes("one\n")};
  EXPECT_THAT(error_of([&] { AppendLog log(path, mark); }, ErrorCode::kIo), HasSubstr("No such"));
  spill(path, "on");
  EXPECT_THAT(error_of([&] { AppendLog log(path, mark); }, ErrorCode::kBadInput),
              HasSubstr(path + ": has 2 bytes, expected at least 4"));
  spill(path, "oNe\ntwo\n");
  EXPECT_THAT(error_of([&] { AppendLog log(path, mark); }, ErrorCode::kBadInput),
              HasSubstr("another content"));
  EXPECT_EQ(slurp(path), "oNe\ntwo\n");
  std::filesystem::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { AppendLog log(path, mark); }, ErrorCode::kIo), "accepted");
  EXPECT_NE(error_of([&] { AppendLog log(path); }, ErrorCode::kIo), "accepted");
}

std::size_t g_writes = 0, g_fail_at = 0;
int fail_write(const char* call, const std::string&) {
  return std::string(call) == "write" && ++g_writes == g_fail_at ? ENOSPC : 0;
}

TEST(AppendLog, a_failed_write_leaves_whole_lines_and_the_mark_of_them) {
  const TemporaryFolder folder;
  const std::string path = folder / "log";
  AppendLog log(path);
  log.append("one\n");
  g_writes = 0;
  g_fail_at = 1;
  detail::before_io = fail_write;
  EXPECT_THAT(error_of([&] { log.append("two\n"); }, ErrorCode::kIo), HasSubstr("No space"));
  detail::before_io = nullptr;
  EXPECT_EQ(slurp(path), "one\n");
  log.append("2\n");
  EXPECT_EQ(log.sync(), FileMark::of(path));
  EXPECT_EQ(slurp(path), "one\n2\n");
}

// What a checkpoint costs does not depend on how much was logged before.
TEST(AppendLog, every_byte_is_written_once) {
  const TemporaryFolder folder;
  AppendLog log(folder / "log");
  g_writes = 0;
  g_fail_at = 0;
  detail::before_io = fail_write;
  for (int i = 0; i < 1000; ++i) {
    log.append("line\n");
    EXPECT_EQ(log.sync().bytes, 5u * static_cast<unsigned>(i + 1));
  }
  detail::before_io = nullptr;
  EXPECT_EQ(g_writes, 1000u);
  EXPECT_EQ(log.sync(), FileMark::of(folder / "log"));
}

}  // namespace
}  // namespace retort::test
