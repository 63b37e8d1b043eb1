#include "engine/io/manifest.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>

#include "engine/io/file.h"

namespace retort {
namespace {

constexpr const char* kFiles = "files.json";
constexpr std::size_t kBlock = std::size_t{1} << 18;

std::string hash_of_first(const FileReader& reader, std::uint64_t bytes) {
  Hasher hasher;
  std::string buffer(std::min<std::uint64_t>(kBlock, bytes), '\0');
  for (std::uint64_t at = 0; at < bytes;) {
    const std::size_t n = std::min<std::uint64_t>(kBlock, bytes - at);
    reader.read_at(at, std::as_writable_bytes(std::span(buffer).first(n)));
    hasher.update(buffer.data(), n);
    at += n;
  }
  return hasher.hex();
}

// Stays within the folder.
bool is_inside(const std::string& name) {
  const std::filesystem::path path(name);
  return !name.empty() && name.find('\0') == std::string::npos && path.is_relative() &&
         path.has_filename() && path.lexically_normal() == path && *path.begin() != ".." &&
         *path.begin() != ".";
}

}  // namespace

Json FileMark::json() const { return Json::object().set("bytes", bytes).set("xxh3_128", xxh3_128); }

FileMark FileMark::from(const Json& value) {
  return {value.at("bytes").as_unsigned(), value.at("xxh3_128").as_string()};
}

FileMark FileMark::of(const std::string& path) {
  const FileReader reader(path);
  return {reader.size(), hash_of_first(reader, reader.size())};
}

std::string mark_problem(const std::string& path, const FileMark& mark, Growth growth) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error) return "is missing";
  try {
    const FileReader reader(path);
    const bool right =
        growth == Growth::kAllowed ? reader.size() >= mark.bytes : reader.size() == mark.bytes;
    if (!right)
      return join("has ", reader.size(), " bytes, expected ",
                  growth == Growth::kAllowed ? "at least " : "", mark.bytes);
    if (hash_of_first(reader, mark.bytes) != mark.xxh3_128) return kOtherContent;
    return "";
  } catch (const Error& problem) {
    return std::string("cannot be read: ") + problem.what();
  }
}

FileManifest::FileManifest(std::string folder) : folder_(std::move(folder)) {
  const std::string path = folder_ + "/" + kFiles;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  try {
    naming_file(path, [&] {
      const Json all = Json::read(path);
      for (const auto& [name, value] : all.at("files").members()) {
        RETORT_CHECK_AS(kBadInput, is_inside(name), "'", escaped(name), "' is not in this folder");
        files_[name] = FileMark::from(value);
      }
    });
  } catch (const Error& damage) {
    if (damage.code() != ErrorCode::kBadInput) throw;
    fail(ErrorCode::kBadInput, damage.what(),
         ": the list of files is damaged; bring it back from a copy, or remove it and go on: what "
         "it names is made again where that can be");
  }
}

void FileManifest::record(const std::string& name, const FileMark& mark) {
  RETORT_CHECK(is_inside(name) && name != kFiles, "[manifest] expected a path within ",
               escaped(folder_, 4096), ", got '", escaped(name), "'");
  const std::lock_guard lock(mutex_);
  std::map<std::string, FileMark> next = files_;
  next[name] = mark;
  Json list = Json::object();
  for (const auto& [file, m] : next) list.set(file, m.json());
  write_file_atomically(folder_ + "/" + kFiles,
                        Json::object().set("format", 1).set("files", std::move(list)).dump());
  files_ = std::move(next);
}

bool FileManifest::knows(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return files_.contains(name);
}

std::map<std::string, FileMark> FileManifest::files() const {
  const std::lock_guard lock(mutex_);
  return files_;
}

std::string FileManifest::problem(const std::string& name) const {
  FileMark mark;
  {
    const std::lock_guard lock(mutex_);
    const auto at = files_.find(name);
    if (at == files_.end()) return join("is not in ", kFiles);
    mark = at->second;
  }
  return mark_problem(folder_ + "/" + name, mark);
}

void FileManifest::check(const std::string& name) const {
  const std::string wrong = problem(name);
  RETORT_CHECK_AS(kBadInput, wrong.empty(), escaped(folder_ + "/" + name, 4096), ": ", wrong);
}

}  // namespace retort
