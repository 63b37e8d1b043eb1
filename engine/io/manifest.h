// What files held when they were written, so that whoever reads them back knows it is the same.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "engine/io/json.h"

namespace retort {

/// Of a file's bytes, or of its first ones where it only grows.
struct FileMark {
  std::uint64_t bytes = 0;
  std::string xxh3_128;  // 32 digits
  bool operator==(const FileMark& other) const = default;

  Json json() const;                            // {"bytes": 1, "xxh3_128": "..."}
  static FileMark from(const Json& value);      // throws Error(kBadInput)
  static FileMark of(const std::string& path);  // reads the file
};

enum class Growth : std::uint8_t { kNone, kAllowed };

inline constexpr const char* kOtherContent = "has another content than was written";

/// "" if the file holds what the mark says, else what is wrong: "is missing", "has 3 bytes,
/// expected 5", kOtherContent. kAllowed: only the first mark.bytes bytes count.
std::string mark_problem(const std::string& path, const FileMark& mark,
                         Growth growth = Growth::kNone);

/// The files of a folder that a program reads back, with their marks, in FOLDER/files.json: what is
/// damaged, replaced or was never written whole is told apart from what was made. To be recorded
/// after the file was written. Threads: all calls may come from several.
class FileManifest {
 public:
  /// Reads files.json if there is one. Errors: Error(kBadInput) naming it.
  explicit FileManifest(std::string folder);

  /// Adds or replaces; files.json is then on the disk. `name` is a path within the folder.
  void record(const std::string& name, const FileMark& mark);
  /// The same for a file that lies there whole.
  void record(const std::string& name) { record(name, FileMark::of(folder_ + "/" + name)); }
  bool knows(const std::string& name) const;
  std::map<std::string, FileMark> files() const;

  /// "" if the file is the one that was recorded, else what is wrong with it, in words that follow
  /// its name: "is missing", ..., "is not in files.json".
  std::string problem(const std::string& name) const;
  /// Throws Error(kBadInput), "FOLDER/NAME: <problem>", if there is one.
  void check(const std::string& name) const;

 private:
  std::string folder_;
  mutable std::mutex mutex_;
  std::map<std::string, FileMark> files_;
};

}  // namespace retort
