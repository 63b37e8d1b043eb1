// The text of remembered choices, and the cache folder that holds it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "kernels/conv2d/conv2d_choice.h"

namespace retort::kernels {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxBytes = std::size_t{1} << 20, kMaxChoices = 8192, kMaxFiles = 256;
constexpr std::string_view kFirst = "retort conv2d choices 1", kEnvironment = "environment ";
constexpr std::array<std::string_view, 3> kPasses{"forward", "backward_data", "backward_weight"};
constexpr std::array<std::string_view, 3> kExtras{"none", "statistics", "epilogue"};
constexpr std::array<std::string_view, 3> kProviders{"mma", "wgmma", "cudnn"};
constexpr std::array<DType, 3> kDTypes{DType::kF64, DType::kF32, DType::kBF16};

// The lines of a text; throws naming the line on what cannot be.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}
  std::string_view next() {
    ++number_;
    const std::size_t end = text_.find('\n');
    check(end != std::string_view::npos, "expected another line");
    const std::string_view line = text_.substr(0, end);
    check(line.size() <= 600, "expected a line of at most 600 bytes");
    for (const char c : line) check(c >= ' ' && c <= '~', "expected printable ASCII");
    text_.remove_prefix(end + 1);
    return line;
  }
  bool empty() const { return text_.empty(); }
  void check(bool ok, const char* what) const {
    RETORT_CHECK_AS(kBadInput, ok, "[conv2d choices] line ", number_, ": ", what);
  }

 private:
  std::string_view text_;
  int number_ = 0;
};

// The words of one line.
class Words {
 public:
  Words(const Lines& lines, std::string_view line) : lines_(lines), line_(line) {}
  std::string_view word() {
    const std::size_t end = std::min(line_.find(' '), line_.size());
    lines_.check(end > 0, "expected another word");
    const std::string_view w = line_.substr(0, end);
    line_.remove_prefix(std::min(end + 1, line_.size()));
    return w;
  }
  std::int64_t integer(std::int64_t least, std::int64_t most) {
    const std::string_view w = word();
    std::int64_t value = 0;
    const auto [end, problem] = std::from_chars(w.data(), w.data() + w.size(), value);
    lines_.check(
        problem == std::errc() && end == w.data() + w.size() && value >= least && value <= most,
        "expected a number in range");
    return value;
  }
  double real() {
    const std::string_view w = word();
    double value = 0;
    const auto [end, problem] = std::from_chars(w.data(), w.data() + w.size(), value);
    lines_.check(problem == std::errc() && end == w.data() + w.size() && std::isfinite(value) &&
                     value >= 0 && value < 1e12,
                 "expected a time");
    return value;
  }
  template <std::size_t N>
  int one_of(const std::array<std::string_view, N>& names) {
    const auto found = std::find(names.begin(), names.end(), word());
    lines_.check(found != names.end(), "expected a known word");
    return static_cast<int>(found - names.begin());
  }
  DType dtype() {
    const std::string_view w = word();
    for (const DType d : kDTypes)
      if (w == retort::name_of(d)) return d;
    lines_.check(false, "expected f64, f32 or bf16");
    return DType::kF32;
  }
  void end() { lines_.check(line_.empty(), "expected the end of the line"); }

 private:
  const Lines& lines_;
  std::string_view line_;
};

// FNV-1a: names files, proves nothing.
std::string short_hash(const std::string& text) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  std::string hex(16, '0');
  for (int i = 15; i >= 0; --i, h >>= 4)
    hex[static_cast<std::size_t>(i)] = "0123456789abcdef"[h & 15];
  return hex;
}

bool is_choice_file(std::string_view name) {
  if (name.size() != 7 + 16 + 4 || !name.starts_with("conv2d-") || !name.ends_with(".txt"))
    return false;
  return name.substr(7, 16).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// A regular file of at most kMaxBytes, or an Error that says what is wrong.
std::string read_small_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO does not block
  RETORT_CHECK_AS(kIo, fd >= 0, "cannot be opened");
  struct stat info {};
  std::string text;
  const bool small = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                     static_cast<std::size_t>(info.st_size) <= kMaxBytes;
  ssize_t got = small ? 1 : 0;
  std::array<char, 65536> buffer;
  while (small && text.size() <= kMaxBytes && (got = ::read(fd, buffer.data(), buffer.size())) > 0)
    text.append(buffer.data(), static_cast<std::size_t>(got));
  ::close(fd);
  RETORT_CHECK_AS(kBadInput, small && text.size() <= kMaxBytes,
                  "is no regular file of at most 1 MiB");
  RETORT_CHECK_AS(kIo, got == 0, "cannot be read");
  return text;
}

// "" or what went wrong.
std::string replace_file(const std::string& path, const std::string& text) {
  std::string temporary = path + ".XXXXXX";
  const int fd = ::mkstemp(temporary.data());
  if (fd < 0) return "cannot be made";
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  const bool whole = done == text.size() && ::fsync(fd) == 0;
  if (::close(fd) == 0 && whole && ::rename(temporary.c_str(), path.c_str()) == 0) return "";
  ::unlink(temporary.c_str());
  return "cannot be written";
}

}  // namespace

std::string write_conv2d_choices(const Conv2dChoiceFile& file) {
  std::string text = join(kFirst, "\n", kEnvironment, file.environment, "\n");
  for (const auto& [p, c] : file.choices) {
    const Conv2dShape& s = p.shape;
    text += join(kPasses[static_cast<std::size_t>(p.pass)], " ", s.batch, " ", s.height, " ",
                 s.width, " ", s.channels, " ", s.filters, " ", s.filter_height, " ",
                 s.filter_width, " ", s.stride, " ", s.padding, " ", retort::name_of(p.dtype), " ",
                 retort::name_of(p.weight_dtype), " ", p.tf32 ? 1 : 0, " ", p.aligned ? 1 : 0, " ",
                 kExtras[static_cast<std::size_t>(p.extra)], " ", c.provider, " ", c.algorithm, " ",
                 c.microseconds, "\n");
  }
  return text + join("end ", file.choices.size(), "\n");
}

Conv2dChoiceFile parse_conv2d_choices(const std::string& text) {
  RETORT_CHECK_AS(kBadInput, text.size() <= kMaxBytes, "[conv2d choices] expected at most ",
                  kMaxBytes, " bytes, got ", text.size());
  Lines lines(text);
  lines.check(lines.next() == kFirst, "expected the first line of a choice file, version 1");
  const std::string_view environment = lines.next();
  lines.check(environment.starts_with(kEnvironment), "expected the environment");
  Conv2dChoiceFile file;
  file.environment = environment.substr(kEnvironment.size());
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  for (;;) {
    const std::string_view line = lines.next();
    Words w(lines, line);
    if (line.starts_with("end ")) {
      w.word();
      const std::int64_t count = w.integer(0, kMost);
      lines.check(static_cast<std::size_t>(count) == file.choices.size(),
                  "expected the number of choices");
      w.end();
      lines.check(lines.empty(), "expected nothing behind the end");
      return file;
    }
    lines.check(file.choices.size() < kMaxChoices, "expected at most 8192 choices");
    Conv2dProblem p{};
    p.pass = static_cast<Conv2dPass>(w.one_of(kPasses));
    Conv2dShape& s = p.shape;
    for (std::int64_t* size : {&s.batch, &s.height, &s.width, &s.channels, &s.filters,
                               &s.filter_height, &s.filter_width, &s.stride})
      *size = w.integer(1, kMost);
    s.padding = w.integer(0, kMost);
    p.dtype = w.dtype();
    p.weight_dtype = w.dtype();
    p.tf32 = w.integer(0, 1) != 0;
    p.aligned = w.integer(0, 1) != 0;
    p.extra = static_cast<Conv2dExtra>(w.one_of(kExtras));
    Conv2dChoice c;
    c.provider = kProviders[static_cast<std::size_t>(w.one_of(kProviders))];
    c.algorithm = static_cast<int>(w.integer(0, 65535));
    c.microseconds = w.real();
    w.end();
    lines.check(file.choices.emplace(p, c).second, "expected each problem once");
  }
}

std::string conv2d_cache_folder() {
  const auto variable = [](const char* name) -> std::string {
    const char* const value = std::getenv(name);
    return value ? value : "";
  };
  if (const std::string own = variable("RETORT_CACHE"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CACHE_HOME"); xdg.starts_with('/'))
    return xdg + "/retort";
  if (const std::string home = variable("HOME"); home.starts_with('/'))
    return home + "/.cache/retort";
  return "";
}

std::vector<Conv2dChoiceFile> read_conv2d_cache(const std::string& folder,
                                                std::vector<std::string>* notes) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (is_choice_file(name) && names.size() < kMaxFiles) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  std::vector<Conv2dChoiceFile> files;
  for (const std::string& name : names) try {
      Conv2dChoiceFile file = parse_conv2d_choices(read_small_file(folder + "/" + name));
      RETORT_CHECK_AS(kBadInput, name == join("conv2d-", short_hash(file.environment), ".txt"),
                      "is named after another environment");
      files.push_back(std::move(file));
    } catch (const Error& e) {
      if (notes) notes->push_back(join(folder, "/", name, " was not used: ", e.what()));
    }
  return files;
}

std::string Conv2dChoices::file_path() const {
  return folder_ + "/conv2d-" + short_hash(environment_) + ".txt";
}

void Conv2dChoices::write_file() {
  const auto complain = [&](const std::string& what) {
    if (notes_.size() < 64) notes_.push_back(join(file_path(), " ", what));
  };
  std::error_code error;
  fs::create_directories(folder_, error);
  Conv2dChoiceFile file{environment_, measured_};
  if (fs::exists(file_path(), error)) try {
      Conv2dChoiceFile there = parse_conv2d_choices(read_small_file(file_path()));
      if (there.environment == environment_) file.choices.merge(there.choices);
    } catch (const Error&) {  // open() said so; it is replaced
    }
  if (file.choices.size() > kMaxChoices) return complain("is full");
  if (const std::string problem = replace_file(file_path(), write_conv2d_choices(file));
      !problem.empty())
    complain(problem);
}

}  // namespace retort::kernels
