#include "engine/io/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "engine/io/file.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

TEST(FileManifest, a_file_that_was_recorded_is_told_from_any_other) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "curriculum");
  spill(folder / "a", "12345");
  spill(folder / "curriculum/b.csv", "rank,index\n");
  {
    FileManifest manifest(folder.path());
    EXPECT_EQ(manifest.problem("a"), "is not in files.json");
    manifest.record("a");
    manifest.record("curriculum/b.csv");
  }
  const FileManifest manifest(folder.path());  // read back
  EXPECT_TRUE(manifest.knows("a"));
  EXPECT_FALSE(manifest.knows("b.csv"));
  EXPECT_EQ(manifest.files().at("a"), (FileMark{5, hash_bytes("12345")}));
  EXPECT_EQ(manifest.problem("a"), "");
  EXPECT_NO_THROW(manifest.check("curriculum/b.csv"));

  spill(folder / "a", "12346");
  EXPECT_EQ(manifest.problem("a"), "has another content than was written");
  spill(folder / "a", "123456");
  EXPECT_EQ(manifest.problem("a"), "has 6 bytes, expected 5");
  std::filesystem::remove(folder / "a");
  EXPECT_EQ(manifest.problem("a"), "is missing");
  ASSERT_EQ(::mkfifo((folder / "a").c_str(), 0600), 0);
  EXPECT_THAT(manifest.problem("a"), HasSubstr("got a pipe"));
  try {
    manifest.check("a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr(folder / "a: "));
  }
}

TEST(FileManifest, a_new_record_replaces_the_old_one) {
  const TemporaryFolder folder;
  FileManifest manifest(folder.path());
  spill(folder / "a", "1");
  manifest.record("a");
  spill(folder / "a", "2");
  EXPECT_NE(manifest.problem("a"), "");
  manifest.record("a");
  EXPECT_EQ(manifest.problem("a"), "");
  EXPECT_EQ(FileManifest(folder.path()).problem("a"), "");
}

TEST(FileManifest, damaged_and_hostile_manifests_are_errors_that_name_the_file) {
  const TemporaryFolder folder;
  for (const char* text :
       {"", "[]", "{\"files\":{\"../a\":{\"bytes\":1,\"xxh3_128\":\"\"}}}",
        "{\"files\":{\"/etc/passwd\":{\"bytes\":1,\"xxh3_128\":\"\"}}}",
        "{\"files\":{\"a\":{\"bytes\":-1,\"xxh3_128\":\"\"}}}", "{\"files\":{\"a\":{}}}"}) {
    spill(folder / "files.json", text);
    try {
      const FileManifest manifest(folder.path());
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_THAT(error.what(), HasSubstr(folder / "files.json: "));
    }
  }
}

TEST(FileManifest, names_stay_within_the_folder) {
  const TemporaryFolder folder;
  FileManifest manifest(folder.path());
  for (const char* name : {"", "../a", "/a", "a/../../b", "a/", ".", "files.json"})
    EXPECT_THROW(manifest.record(name, {}), Error) << name;
}

TEST(FileManifest, growth_is_allowed_where_it_is_meant) {
  const TemporaryFolder folder;
  spill(folder / "log", "one\n");
  const FileMark mark = FileMark::of(folder / "log");
  spill(folder / "log", "one\ntwo\n");
  EXPECT_EQ(mark_problem(folder / "log", mark), "has 8 bytes, expected 4");
  EXPECT_EQ(mark_problem(folder / "log", mark, Growth::kAllowed), "");
  spill(folder / "log", "onE\ntwo\n");
  EXPECT_EQ(mark_problem(folder / "log", mark, Growth::kAllowed), kOtherContent);
}

}  // namespace
}  // namespace retort::test
