// A log that checkpoints refer to instead of holding it.
#pragma once
#include <string>
#include <string_view>

#include "engine/io/file.h"
#include "engine/io/manifest.h"

namespace retort {

/// A file that only grows. A checkpoint keeps the mark of what the log held then (sync()); resuming
/// opens the log with that mark, which cuts off what was written later. So every byte is written
/// once, however often checkpoints are made.
///
/// Cost      append: one write. sync: one fsync. Opening reads what the mark covers, once.
class AppendLog {
 public:
  /// Opens the file or makes it, cut to the mark; without one it is empty.
  /// Errors    Error(kBadInput), naming the file, if it does not begin with what the mark says;
  ///           nothing is changed then. Error(kIo).
  explicit AppendLog(const std::string& path, const FileMark& mark = {});
  ~AppendLog();
  AppendLog(const AppendLog&) = delete;
  AppendLog& operator=(const AppendLog&) = delete;

  /// Errors    Error(kIo); the file then ends where it did before.
  void append(std::string_view text);
  /// All so far is on the disk; its mark.
  FileMark sync();
  std::uint64_t size() const { return size_; }

  /// What the mark covers. Errors as above.
  static std::string read(const std::string& path, const FileMark& mark);

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  Hasher hasher_;
};

}  // namespace retort
