#include "engine/io/file.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/io/fault_points.h"
#include "engine/runtime/progress.h"

namespace retort {
namespace {

using detail::injected, detail::refuse;

constexpr std::size_t kBuffer = std::size_t{1} << 18;

const char* kind_of(mode_t mode) {
  return S_ISREG(mode)    ? "a file"
         : S_ISDIR(mode)  ? "a folder"
         : S_ISFIFO(mode) ? "a pipe"
         : S_ISSOCK(mode) ? "a socket"
                          : "a device";
}

// An open descriptor, closed at the end.
struct Descriptor {
  explicit Descriptor(int number) : number(number) {}
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number;
};

// Opening a pipe for reading waits for a writer, and opening a device may do anything: so it never
// waits, and what it is decides what becomes of it.
int open_for_reading(const std::string& path, struct stat* status) {
  if (stat(path.c_str(), status) == 0 && S_ISSOCK(status->st_mode))
    fail(ErrorCode::kIo, escaped(path, 4096), ": expected a regular file, got a socket");
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.number < 0) refuse(path, "open", errno);
  if (fstat(file.number, status) != 0) refuse(path, "stat", errno);
  return std::exchange(file.number, -1);
}

// Waits until the descriptor can be read, or a stop is wanted.
void wait_for_bytes(int descriptor, const std::string& path) {
  for (;;) {
    give_up_if_stopped(path);
    pollfd ready{descriptor, POLLIN, 0};
    const int n = poll(&ready, 1, 100);
    if (n > 0) return;
    if (n < 0 && errno != EINTR) refuse(path, "read", errno);
  }
}

}  // namespace

int (*detail::before_io)(const char* call, const std::string& path) = nullptr;

bool (*stop_wanted)() noexcept = nullptr;

void give_up_if_stopped(const std::string& what) {
  if (stop_wanted != nullptr && stop_wanted())
    fail(kStopped, escaped(what, 4096), ": stopped while reading");
}

std::string escaped(std::string_view text, std::size_t limit) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (result.size() >= limit) {
      result.resize(limit);
      return result + "...";
    }
    if (byte >= 0x20 && byte < 0x7f) {
      result += c;
    } else {
      constexpr char kDigits[] = "0123456789abcdef";
      result += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return result;
}

FileReader::FileReader(const std::string& path) : path_(path) {
  struct stat status {};
  Descriptor file(open_for_reading(path, &status));
  RETORT_CHECK_AS(kIo, S_ISREG(status.st_mode), escaped(path, 4096),
                  ": expected a regular file, got ", kind_of(status.st_mode));
  size_ = static_cast<std::uint64_t>(status.st_size);
  descriptor_ = std::exchange(file.number, -1);
}

FileReader::~FileReader() { close(descriptor_); }

void FileReader::read_at(std::uint64_t offset, std::span<std::byte> to) const {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t n =
        pread(descriptor_, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path_, "read", errno);
    RETORT_CHECK_AS(kBadInput, n > 0, escaped(path_, 4096), ": expected ", to.size(),
                    " bytes at offset ", offset, ", got ", done, " (the file is too short)");
    done += static_cast<std::size_t>(n);
    note_progress();
  }
}

std::string read_file(const std::string& path, std::uint64_t max_bytes) {
  const FileReader reader(path);
  RETORT_CHECK_AS(kBadInput, reader.size() <= max_bytes, escaped(path, 4096), ": expected at most ",
                  max_bytes, " bytes, got ", reader.size());
  std::string text(static_cast<std::size_t>(reader.size()), '\0');
  reader.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string read_file_or_pipe(const std::string& path, std::uint64_t max_bytes) {
  struct stat status {};
  const Descriptor file(open_for_reading(path, &status));
  RETORT_CHECK_AS(kIo, !S_ISDIR(status.st_mode), escaped(path, 4096),
                  ": expected a file or a pipe, got a folder");
  std::string text;
  for (std::string block(std::min<std::uint64_t>(kBuffer, max_bytes + 1), '\0');;) {
    const ssize_t n = read(file.number, block.data(), block.size());
    if (n == 0) {
      RETORT_CHECK_AS(kIo, !text.empty() || !S_ISFIFO(status.st_mode), escaped(path, 4096),
                      ": the pipe is empty, or nobody writes to it yet");
      return text;
    }
    if (n < 0 && errno == EAGAIN) {
      wait_for_bytes(file.number, path);
    } else if (n < 0 && errno != EINTR) {
      refuse(path, "read", errno);
    } else if (n > 0) {
      text.append(block.data(), static_cast<std::size_t>(n));
      RETORT_CHECK_AS(kBadInput, text.size() <= max_bytes, escaped(path, 4096),
                      ": expected at most ", max_bytes, " bytes, got more");
    }
  }
}

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};
Hasher::Hasher() : state_(std::make_unique<State>()) {
  RETORT_CHECK_AS(kMemory, state_->xxh != nullptr, "[hash] out of memory");
  XXH3_128bits_reset(state_->xxh);
}
Hasher::~Hasher() = default;
void Hasher::update(const void* data, std::size_t bytes) {
  if (bytes > 0) XXH3_128bits_update(state_->xxh, data, bytes);
}
std::string Hasher::hex() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh));
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return text;
}

std::string hash_bytes(std::string_view bytes) {
  Hasher hasher;
  hasher.update(bytes.data(), bytes.size());
  return hasher.hex();
}

std::string hash_file(const std::string& path) {
  const FileReader reader(path);
  Hasher hasher;
  std::string buffer(kBuffer, '\0');
  for (std::uint64_t at = 0; at < reader.size();) {
    const std::size_t n = std::min<std::uint64_t>(kBuffer, reader.size() - at);
    reader.read_at(at, std::as_writable_bytes(std::span(buffer).first(n)));
    hasher.update(buffer.data(), n);
    at += n;
  }
  return hasher.hex();
}

FileWriter::FileWriter(const std::string& path) : path_(path) {
  if (const int code = injected("create", path)) refuse(path, "create", code);
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) refuse(path, "create", errno);
  buffer_.reserve(kBuffer);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) close(descriptor_);
}

void FileWriter::write(const void* data, std::size_t bytes) {
  hasher_.update(data, bytes);
  size_ += bytes;
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const std::size_t n = std::min(bytes, kBuffer - buffer_.size());
    buffer_.append(from, n);
    from += n;
    bytes -= n;
    if (buffer_.size() == kBuffer) flush();
  }
}

void FileWriter::flush() {
  std::size_t done = 0;
  while (done < buffer_.size()) {
    if (const int code = injected("write", path_)) refuse(path_, "write", code);
    const ssize_t n = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path_, "write", errno);
    done += static_cast<std::size_t>(n);
    note_progress();
  }
  buffer_.clear();
}

void FileWriter::finish() {
  flush();
  if (const int code = injected("fsync", path_)) refuse(path_, "sync", code);
  // Never retried: after a failed fsync the kernel may have dropped the dirty pages.
  if (fsync(descriptor_) != 0) refuse(path_, "sync", errno);
  const int code = close(descriptor_) == 0 ? 0 : errno;
  descriptor_ = -1;
  if (code != 0) refuse(path_, "close", code);
}

namespace {

// Where the bytes shall lie: a link stays, and the file that it names is replaced. A rename would
// put a file in the place of a device, such as /dev/stdout, for all programs.
std::string replaceable(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(ErrorCode::kIo, escaped(path, 4096), ": expected a file or a new name, got ",
         fs::is_directory(status) ? "a folder"
         : fs::is_fifo(status)    ? "a pipe"
         : fs::is_socket(status)  ? "a socket"
                                  : "a device");
  if (!fs::exists(status) || !fs::is_symlink(fs::symlink_status(path, error))) return path;
  const fs::path real = fs::canonical(path, error);
  return error ? path : real.string();
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path)
    : path_(replaceable(path)), temporary_(path_ + ".tmp-" + std::to_string(getpid())) {
  unlink(temporary_.c_str());  // left by a killed process that had our number
  writer_ = std::make_unique<FileWriter>(temporary_);
}

AtomicFile::~AtomicFile() {
  if (!writer_) return;
  writer_.reset();
  unlink(temporary_.c_str());
}

void AtomicFile::commit() {
  writer_->finish();
  rename_path(temporary_, path_);
  writer_.reset();
  sync_folder(parent_folder(path_));
}

void write_file_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.writer().write(text);
  file.commit();
}

void sync_folder(const std::string& folder) {
  if (const int code = injected("fsync", folder)) refuse(folder, "sync", code);
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) refuse(folder, "open", errno);
  const int code = fsync(descriptor) == 0 ? 0 : errno;
  close(descriptor);
  if (code != 0 && code != EINVAL) refuse(folder, "sync", code);  // EINVAL: no such call there
}

void make_folders(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<fs::path> missing;  // innermost first
  std::error_code error;
  for (fs::path at(folder); !at.empty() && !fs::is_directory(at, error); at = at.parent_path()) {
    if (at.has_filename()) missing.push_back(at);  // "a/" names a
    if (!at.has_relative_path()) break;
  }
  while (!missing.empty()) {
    const std::string at = missing.back().string();
    missing.pop_back();
    if (const int code = injected("mkdir", at)) refuse(at, "create the folder", code);
    const int code = mkdir(at.c_str(), 0777) == 0 ? 0 : errno;
    // Another process may have been quicker.
    if (code != 0 && (code != EEXIST || !fs::is_directory(at, error)))
      refuse(at, "create the folder", code);
    sync_folder(parent_folder(at));
  }
}

void rename_path(const std::string& from, const std::string& to) {
  if (const int code = injected("rename", to)) refuse(to, "rename to it", code);
  if (std::rename(from.c_str(), to.c_str()) != 0) refuse(to, "rename to it", errno);
}

bool exchange_paths(const std::string& from, const std::string& to) {
  int code = injected("exchange", to);
  if (code == 0 && renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0)
    return true;
  if (code == 0) code = errno;
  if (code == EINVAL || code == ENOSYS || code == EOPNOTSUPP) return false;
  refuse(to, "rename to it", code);
}

bool remove_path(const std::string& path) noexcept {
  try {
    if (injected("remove", path) != 0) return false;
    std::error_code error;
    std::filesystem::remove_all(path, error);
    return !error;
  } catch (...) {
    return false;
  }
}

namespace {

// The process that wrote NAME.tmp-PID or NAME.PID.tmp, and NAME; 0 if it is neither.
pid_t writer_of(std::string_view name, std::string* of) {
  constexpr std::string_view kTail = ".tmp", kHead = ".tmp-";
  std::string_view digits;
  if (name.ends_with(kTail)) {
    name.remove_suffix(kTail.size());
    const std::size_t point = name.rfind('.');
    if (point == name.npos || point == 0) return 0;
    digits = name.substr(point + 1);
    *of = name.substr(0, point);
  } else if (const std::size_t at = name.rfind(kHead); at != name.npos && at > 0) {
    digits = name.substr(at + kHead.size());
    *of = name.substr(0, at);
  }
  pid_t pid = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), pid);
  const bool whole = !digits.empty() && end == digits.data() + digits.size();
  return problem == std::errc() && whole && pid > 0 ? pid : 0;
}

}  // namespace

int remove_leftovers(const std::string& folder, const std::string& name,
                     OtherWriters others) noexcept {
  int removed = 0;
  try {
    namespace fs = std::filesystem;
    std::error_code error;
    std::vector<std::string> found;
    for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
         it.increment(error)) {
      std::string of;
      const pid_t pid = writer_of(it->path().filename().string(), &of);
      std::error_code ignored;
      if (pid == 0 || (!name.empty() && of != name) || !it->is_regular_file(ignored)) continue;
      const bool alive = others == OtherWriters::kPerhaps && pid != getpid() &&
                         (kill(pid, 0) == 0 || errno == EPERM);
      if (!alive) found.push_back(it->path().string());
    }
    for (const std::string& path : found) removed += remove_path(path);
  } catch (...) {  // rubbish that stays harms nobody
  }
  return removed;
}

std::string parent_folder(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::uint64_t free_bytes(const std::string& folder) {
  struct statvfs status {};
  if (statvfs(folder.c_str(), &status) != 0) refuse(folder, "ask for free space", errno);
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

}  // namespace retort
