#include "engine/io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

TEST(File, escaped_text_is_short_and_printable) {
  EXPECT_EQ(escaped("plain \\ text"), "plain \\ text");
  EXPECT_EQ(escaped(std::string("a\n\x1b[\xff\0", 6)), "a\\x0a\\x1b[\\xff\\x00");
  EXPECT_EQ(escaped(std::string(100, 'x')), std::string(80, 'x').append("..."));
}

TEST(File, hash_is_canonical_xxh3_128) {
  EXPECT_EQ(hash_bytes(""), "99aa06d3014798d86001c324468d497f");
  const TemporaryFolder folder;
  const std::string bytes(700000, 'q');  // more than one buffer
  spill(folder / "a", bytes);
  EXPECT_EQ(hash_file(folder / "a"), hash_bytes(bytes));
}

TEST(File, writer_counts_hashes_and_keeps_every_byte) {
  const TemporaryFolder folder;
  std::string all;
  FileWriter writer(folder / "a");
  for (int i = 0; i < 3000; ++i) {
    const std::string part(static_cast<std::size_t>(i % 257), static_cast<char>(i));
    writer.write(part);
    all += part;
  }
  writer.finish();
  EXPECT_EQ(slurp(folder / "a"), all);
  EXPECT_EQ(writer.size(), all.size());
  EXPECT_EQ(writer.hash(), hash_bytes(all));
  EXPECT_THROW(FileWriter again(folder / "a"), Error);
}

TEST(File, atomic_file_replaces_only_on_commit) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.writer().write("new");
  }
  EXPECT_EQ(slurp(folder / "a"), "old");
  write_file_atomically(folder / "a", "new");
  EXPECT_EQ(slurp(folder / "a"), "new");
}

TEST(File, devices_and_folders_are_not_replaced_and_links_stay) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_directory(folder / "inner");
  for (const char* name : {"pipe", "inner"}) {
    try {
      const AtomicFile file(folder / name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo) << name;
      EXPECT_NE(std::string(error.what()).find("expected a file or a new name"), std::string::npos);
    }
  }
  EXPECT_THROW(AtomicFile("/dev/null"), Error);
  write_file_atomically(folder / "inner/file", "old");
  fs::create_symlink("inner/file", folder / "link");
  write_file_atomically(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(slurp(folder / "inner/file"), "new");
  fs::create_symlink("nowhere", folder / "broken");
  write_file_atomically(folder / "broken", "whole");
  EXPECT_EQ(slurp(folder / "broken"), "whole");
}

TEST(File, a_full_disk_is_an_io_error_and_leaves_the_old_file) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "old");
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 100000, before.rlim_max };
  setrlimit(RLIMIT_FSIZE, &small);
  std::string error;
  ErrorCode code = ErrorCode::kOk;
  try {
    write_file_atomically(folder / "a", std::string(1000000, 'x'));
  } catch (const Error& e) {
    error = e.what();
    code = e.code();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_THAT(error, HasSubstr("cannot write"));
  EXPECT_EQ(slurp(folder / "a"), "old");
}

TEST(File, reading_past_the_end_and_large_files_are_bad_input) {
  const TemporaryFolder folder;
  spill(folder / "a", "12345");
  const FileReader reader(folder / "a");
  std::vector<std::byte> buffer(4);
  reader.read_at(1, buffer);
  EXPECT_EQ(static_cast<char>(buffer[3]), '5');
  EXPECT_THROW(reader.read_at(2, buffer), Error);
  EXPECT_EQ(read_file(folder / "a", 5), "12345");
  EXPECT_THROW(read_file(folder / "a", 4), Error);
}

TEST(File, folders) {
  const TemporaryFolder folder;
  make_folders(folder / "a/b/c");
  make_folders(folder / "a/b/c");
  sync_folder(folder / "a/b");
  EXPECT_GT(free_bytes(folder.path()), 0u);
  EXPECT_EQ(parent_folder("a/b"), "a");
  EXPECT_EQ(parent_folder("b"), ".");
  spill(folder / "file", "");
  try {
    make_folders(folder / "file/x");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
  }
}

}  // namespace
}  // namespace retort::test
