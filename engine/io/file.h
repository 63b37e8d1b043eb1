// Files: reading at offsets, and writing so that a crash leaves either the old file or the new one.
//
// Every failure is an Error that names the path: kIo when the operating system refuses, kBadInput
// when a file is not what it should be.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/common/check.h"

namespace retort {

namespace detail {
/// For tests of crashes and full disks: if set, it is called before each system call that changes
/// something on disk; a result other than 0 makes the call fail with that errno.
extern int (*before_io)(const char* call, const std::string& path);
}  // namespace detail

/// Text for a message: printable ASCII stays, other bytes become \xNN, more than `limit` characters
/// are cut to `limit` and "...". For names that come out of files.
std::string escaped(std::string_view text, std::size_t limit = 80);

/// The code of what gave up because somebody asked for it: the tools exit with 130 or 143, as the
/// signal says.
inline constexpr ErrorCode kStopped{143};

/// A program that may be asked to stop sets it: reading that takes long (a pipe, an archive that is
/// unpacked) asks between blocks, and gives up with Error(kStopped) when it says true.
extern bool (*stop_wanted)() noexcept;
/// Throws Error(kStopped), naming what was being read, if a stop is wanted.
void give_up_if_stopped(const std::string& what);

/// f(). An Error(kBadInput) that it throws gets the file's name in front, unless it has it.
template <class F>
decltype(auto) naming_file(const std::string& path, F&& f) {
  try {
    return f();
  } catch (const Error& error) {
    const std::string what = error.what(), name = escaped(path, 4096);
    if (error.code() != ErrorCode::kBadInput || what.find(name) != std::string::npos) throw;
    throw Error(error.code(), name + ": " + what);
  }
}

/// An open regular file; anything else is Error(kIo) that says what it is, and nothing waits for a
/// pipe's other end. Reads by pread: a file cut by someone else is an error, not a signal.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // when it was opened
  /// Fills `to` from `offset`. Throws Error(kBadInput) if the file ends before.
  void read_at(std::uint64_t offset, std::span<std::byte> to) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// The whole file. Throws Error(kBadInput) if it is larger than max_bytes, before reading it.
std::string read_file(const std::string& path, std::uint64_t max_bytes);

/// The same for text that a person may also give through a pipe or a terminal (/dev/stdin): all up
/// to its end. A pipe that gives nothing is an error (kIo). The wait ends when a stop is wanted.
std::string read_file_or_pipe(const std::string& path, std::uint64_t max_bytes);

/// Streaming XXH3-128.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void update(const void* data, std::size_t bytes);
  std::string hex() const;  // 32 digits, the canonical (big-endian) form that xxhsum prints

 private:
  struct State;
  std::unique_ptr<State> state_;
};
std::string hash_bytes(std::string_view bytes);
std::string hash_file(const std::string& path);

/// A new file, written front to back.
class FileWriter {
 public:
  /// Creates it; throws Error(kIo) if it exists.
  explicit FileWriter(const std::string& path);
  ~FileWriter();  // closes; the file stays, without any promise that it reached the disk
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Flushes, fsyncs and closes. An error here makes the whole file void.
  void finish();
  std::uint64_t size() const { return size_; }
  std::string hash() const { return hasher_.hex(); }  // XXH3-128 of all bytes written

 private:
  void flush();
  std::string path_, buffer_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  Hasher hasher_;
};

/// Replaces a file as a whole: write to a temporary name beside it, then commit() = fsync, rename,
/// fsync of the folder. Without commit() the old file stays and the temporary one is removed. What
/// a link names is replaced, not the link; a device, a pipe or a folder is kIo before anything is
/// written.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  FileWriter& writer() { return *writer_; }
  void commit();

 private:
  std::string path_, temporary_;
  std::unique_ptr<FileWriter> writer_;
};
void write_file_atomically(const std::string& path, std::string_view text);

/// Makes names that were created or renamed in a folder survive a crash.
void sync_folder(const std::string& folder);
/// Like mkdir -p; the name of each new folder is synced in its parent.
void make_folders(const std::string& folder);
void rename_path(const std::string& from, const std::string& to);
/// Two existing names change places in one step. False, and nothing happened, where the file system
/// cannot do that.
bool exchange_paths(const std::string& from, const std::string& to);
/// Removes a file or a folder with all it holds; nothing if there is none. False if it could not.
bool remove_path(const std::string& path) noexcept;
/// Removes what AtomicFile and its like left in a folder, and in those below, when they were
/// killed: NAME.tmp-PID and NAME.PID.tmp of processes that are gone; of one NAME only if it is
/// given. kNone: nobody else writes there, as a lock says; then a number that another process has by
/// now, after a restart or in another container, keeps no file. Returns how many.
enum class OtherWriters { kPerhaps, kNone };
int remove_leftovers(const std::string& folder, const std::string& name = "",
                     OtherWriters others = OtherWriters::kPerhaps) noexcept;
/// The folder part of a path: "a/b" -> "a", "b" -> ".".
std::string parent_folder(const std::string& path);
/// Bytes that this user may still write in the file system of `folder`.
std::uint64_t free_bytes(const std::string& folder);

}  // namespace retort
