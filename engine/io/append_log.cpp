#include "engine/io/append_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "engine/io/fault_points.h"

namespace retort {
namespace {

using detail::injected, detail::refuse;

}  // namespace

std::string AppendLog::read(const std::string& path, const FileMark& mark) {
  if (mark.bytes == 0) return "";
  const FileReader reader(path);
  RETORT_CHECK_AS(kBadInput, reader.size() >= mark.bytes, escaped(path, 4096), ": has ",
                  reader.size(), " bytes, expected at least ", mark.bytes);
  std::string text(mark.bytes, '\0');
  reader.read_at(0, std::as_writable_bytes(std::span(text)));
  RETORT_CHECK_AS(kBadInput, hash_bytes(text) == mark.xxh3_128, escaped(path, 4096), ": ",
                  kOtherContent);
  return text;
}

AppendLog::AppendLog(const std::string& path, const FileMark& mark) : path_(path) {
  const std::string before = read(path, mark);
  hasher_.update(before.data(), before.size());
  size_ = before.size();
  if (const int code = injected("create", path)) refuse(path, "open", code);
  // Non-blocking, so that a pipe in its place is an error and not a wait.
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  if (descriptor_ < 0) refuse(path, "open", errno);
  struct stat status {};
  int code = fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (code == 0 && !S_ISREG(status.st_mode)) code = EINVAL;
  if (code == 0) code = injected("truncate", path);
  if (code == 0 && ftruncate(descriptor_, static_cast<off_t>(size_)) != 0) code = errno;
  if (code != 0) {
    close(descriptor_);
    refuse(path, "cut it to where the checkpoint ends", code);
  }
  try {
    sync_folder(parent_folder(path));  // its name
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

AppendLog::~AppendLog() {
  if (descriptor_ >= 0) close(descriptor_);
}

void AppendLog::append(std::string_view text) {
  for (std::size_t done = 0; done < text.size();) {
    int code = injected("write", path_);
    ssize_t n = -1;
    if (code == 0 && (n = write(descriptor_, text.data() + done, text.size() - done)) < 0)
      code = errno;
    if (code == EINTR) continue;
    if (code != 0) {
      // Leave no torn line behind; if this fails too, the next resume cuts it.
      [[maybe_unused]] const int cut = ftruncate(descriptor_, static_cast<off_t>(size_));
      refuse(path_, "write", code);
    }
    done += static_cast<std::size_t>(n);
  }
  hasher_.update(text.data(), text.size());
  size_ += text.size();
}

FileMark AppendLog::sync() {
  if (const int code = injected("fsync", path_)) refuse(path_, "sync", code);
  if (fsync(descriptor_) != 0) refuse(path_, "sync", errno);
  return {size_, hasher_.hex()};
}

}  // namespace retort
