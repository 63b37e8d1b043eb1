#include "engine/io/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/support/error_of.h"
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

// A pipe without a writer would make open() wait for ever.
TEST(File, what_is_no_regular_file_is_refused_without_waiting) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = folder / "socket";
  ASSERT_LT(name.size(), sizeof address.sun_path);
  std::copy(name.begin(), name.end(), address.sun_path);
  ASSERT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const std::pair<std::string, const char*> cases[] = {{folder / "pipe", "got a pipe"},
                                                       {name, "got a socket"},
                                                       {folder.path(), "got a folder"},
                                                       {"/dev/zero", "got a device"}};
  for (const auto& [path, says] : cases) {
    const std::string error = error_of([&] { read_file(path, 100); }, ErrorCode::kIo);
    EXPECT_THAT(error, HasSubstr(path + ": expected a regular file, " + says));
  }
  ::close(socket);
}

std::atomic<bool> g_stop{false};
bool stop() noexcept { return g_stop; }

TEST(File, text_comes_from_a_file_or_a_pipe_that_ends) {
  const TemporaryFolder folder;
  spill(folder / "file", "12345");
  EXPECT_EQ(read_file_or_pipe(folder / "file", 5), "12345");
  EXPECT_THAT(error_of([&] { read_file_or_pipe(folder / "file", 4); }, ErrorCode::kBadInput),
              HasSubstr("at most 4 bytes"));
  EXPECT_EQ(read_file_or_pipe("/dev/null", 4), "");
  EXPECT_THAT(error_of([&] { read_file_or_pipe("/dev/zero", 1000); }, ErrorCode::kBadInput),
              HasSubstr("at most 1000 bytes"));
  EXPECT_THROW(read_file_or_pipe(folder.path(), 4), Error);
  EXPECT_THROW(read_file_or_pipe(folder / "none", 4), Error);

  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { read_file_or_pipe(folder / "pipe", 100); }, ErrorCode::kIo),
              HasSubstr("nobody writes to it yet"));
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::thread writer([&] {
    for (const char* part : {"one ", "two ", "three"}) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_GT(::write(ends[1], part, std::strlen(part)), 0);
    }
    ::close(ends[1]);
  });
  EXPECT_EQ(read_file_or_pipe("/dev/fd/" + std::to_string(ends[0]), 100), "one two three");
  writer.join();
  ::close(ends[0]);
}

TEST(File, a_stop_ends_the_wait_for_a_pipe) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  stop_wanted = stop;
  std::thread signal([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    g_stop = true;
  });
  const std::string error =
      error_of([&] { read_file_or_pipe("/dev/fd/" + std::to_string(ends[0]), 100); }, kStopped);
  signal.join();
  stop_wanted = nullptr;
  g_stop = false;
  EXPECT_THAT(error, HasSubstr("stopped while reading"));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(File, leftovers_of_dead_processes_are_removed) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const std::string gone = std::to_string(dead), alive = std::to_string(::getppid()),
                    own = std::to_string(::getpid());
  const TemporaryFolder folder;
  fs::create_directories(folder / "arms/a");
  const std::vector<std::string> rubbish{"model.safetensors.tmp-" + gone, "report." + gone + ".tmp",
                                         "arms/a/x.tmp-" + own, "arms/a/y.html." + gone + ".tmp"};
  const std::vector<std::string> others{"x.tmp-" + alive,      "x.tmp-",      "x.tmp-12a",
                                        ".tmp-" + gone,        gone + ".tmp", "notes.tmp",
                                        "x.tmp-" + gone + "b", "x.tmp"};
  for (const auto* list : {&rubbish, &others})
    for (const std::string& name : *list) spill(folder / name, "x");
  fs::create_directory(folder / ("folder.tmp-" + gone));
  spill(folder / ("recipe.tmp-" + gone), "x");
  EXPECT_EQ(remove_leftovers(folder.path(), "recipe"), 1);
  EXPECT_EQ(remove_leftovers(folder.path()), 4);
  for (const std::string& name : rubbish) EXPECT_FALSE(fs::exists(folder / name)) << name;
  for (const std::string& name : others) EXPECT_TRUE(fs::exists(folder / name)) << name;
  EXPECT_TRUE(fs::exists(folder / ("folder.tmp-" + gone)));
  EXPECT_EQ(remove_leftovers(folder / "none"), 0);
  EXPECT_EQ(remove_leftovers(folder.path(), "", OtherWriters::kNone), 1);
  EXPECT_FALSE(fs::exists(folder / ("x.tmp-" + alive))) << "nobody else writes there";
}

std::vector<std::string>* g_calls = nullptr;
int note_call(const char* call, const std::string& path) {
  g_calls->push_back(std::string(call) + " " + fs::path(path).filename().string());
  return 0;
}

TEST(File, names_of_new_folders_are_synced_in_their_parents) {
  const TemporaryFolder folder;
  std::vector<std::string> calls;
  g_calls = &calls;
  detail::before_io = note_call;
  make_folders(folder / "a/b/");
  make_folders(folder / "a/b");
  detail::before_io = nullptr;
  const std::string top = fs::path(folder.path()).filename().string();
  EXPECT_THAT(calls, ::testing::ElementsAre("mkdir a", "fsync " + top, "mkdir b", "fsync a"));
}

TEST(File, an_error_of_content_names_its_file_once) {
  const auto text = [](const std::string& what) {
    return error_of([&] { naming_file("a/b.json", [&] { fail(ErrorCode::kBadInput, what); }); },
                    ErrorCode::kBadInput);
  };
  EXPECT_EQ(text("[json] expected a number"), "a/b.json: [json] expected a number");
  EXPECT_EQ(text("a/b.json: byte 3: x"), "a/b.json: byte 3: x");
  EXPECT_EQ(naming_file("x", [] { return 3; }), 3);
  EXPECT_EQ(error_of([&] { naming_file("x", [] { fail(ErrorCode::kMemory, "none"); }); },
                     ErrorCode::kMemory),
            "none");
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
