#include "nn/data/packed_lines.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <span>
#include <vector>

#include "nn/text/utf8.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kXzMemory = std::uint64_t{256} << 20;
constexpr int kZstdWindow = 27;  // 2^27 bytes
constexpr std::size_t kReadBytes = std::size_t{1} << 16;

}  // namespace

// Gives unpacked bytes; knows how far it is in the file.
class PackedReader::Decoder {
 public:
  explicit Decoder(const std::string& path) : file_(path) {}
  virtual ~Decoder() = default;
  virtual std::size_t read(char* to, std::size_t bytes) = 0;

 protected:
  // The next packed bytes, none at the file's end.
  std::span<const char> more() {
    give_up_if_stopped(file_.path());
    const auto n =
        static_cast<std::size_t>(std::min<std::uint64_t>(block_.size(), file_.size() - at_));
    if (n > 0) file_.read_at(at_, std::as_writable_bytes(std::span(block_).first(n)));
    at_ += n;
    return std::span<const char>(block_).first(n);
  }
  bool at_end() const { return at_ == file_.size(); }
  // `left` bytes of what was read are not used yet.
  [[noreturn]] void refuse(std::size_t left, const char* what) const {
    fail(ErrorCode::kBadInput, escaped(file_.path(), 4096), ": cannot unpack at offset ",
         at_ - left, " of ", file_.size(), ": ", what);
  }
  const FileReader& file() const { return file_; }

 private:
  FileReader file_;
  std::uint64_t at_ = 0;
  std::vector<char> block_ = std::vector<char>(kReadBytes);
};

class PackedReader::Plain : public Decoder {
 public:
  using Decoder::Decoder;
  std::size_t read(char* to, std::size_t bytes) override {
    if (left_.empty()) left_ = more();
    const std::size_t n = std::min(bytes, left_.size());
    std::copy_n(left_.begin(), n, to);
    left_ = left_.subspan(n);
    return n;
  }

 private:
  std::span<const char> left_;
};

class PackedReader::Xz : public Decoder {
 public:
  explicit Xz(const std::string& path) : Decoder(path) {
    RETORT_CHECK_AS(kMemory, lzma_stream_decoder(&stream_, kXzMemory, LZMA_CONCATENATED) == LZMA_OK,
                    escaped(path, 4096), ": no memory for liblzma");
  }
  ~Xz() override { lzma_end(&stream_); }

  std::size_t read(char* to, std::size_t bytes) override {
    stream_.next_out = reinterpret_cast<std::uint8_t*>(to);
    stream_.avail_out = bytes;
    while (!done_ && stream_.avail_out == bytes) {
      if (stream_.avail_in == 0) {
        const auto block = more();
        stream_.next_in = reinterpret_cast<const std::uint8_t*>(block.data());
        stream_.avail_in = block.size();
      }
      const lzma_ret code = lzma_code(&stream_, at_end() ? LZMA_FINISH : LZMA_RUN);
      done_ = code == LZMA_STREAM_END;
      RETORT_CHECK_AS(kMemory, code != LZMA_MEM_ERROR, escaped(file().path(), 4096),
                      ": no memory for liblzma");
      if (code != LZMA_OK && !done_) refuse(stream_.avail_in, reason(code));
    }
    return bytes - stream_.avail_out;
  }

 private:
  static const char* reason(lzma_ret code) {
    switch (code) {
      case LZMA_FORMAT_ERROR: return "it is not an xz archive";
      case LZMA_MEMLIMIT_ERROR: return "unpacking would need more than 256 MiB";
      case LZMA_BUF_ERROR: return "the archive ends too early";
      case LZMA_OPTIONS_ERROR: return "the archive uses options that this liblzma lacks";
      default: return "the archive is damaged";
    }
  }
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool done_ = false;
};

class PackedReader::Gzip : public Decoder {
 public:
  explicit Gzip(const std::string& path) : Decoder(path) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    RETORT_CHECK_AS(kMemory, inflateInit2(&stream_, kGzipOnly) == Z_OK, escaped(path, 4096),
                    ": no memory for zlib");
  }
  ~Gzip() override { inflateEnd(&stream_); }

  std::size_t read(char* to, std::size_t bytes) override {
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(bytes);
    while (!done_ && stream_.avail_out == bytes) {
      if (stream_.avail_in == 0) {
        const auto block = more();
        // zlib does not write there.
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(block.data()));
        stream_.avail_in = static_cast<uInt>(block.size());
        if (block.empty()) {  // right behind a member only
          if (!between_) refuse(0, "the archive ends too early");
          done_ = true;
          break;
        }
      }
      between_ = false;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      RETORT_CHECK_AS(kMemory, code != Z_MEM_ERROR, escaped(file().path(), 4096),
                      ": no memory for zlib");
      if (code == Z_STREAM_END) {  // another member may follow
        between_ = true;
        inflateReset(&stream_);
      } else if (code != Z_OK) {
        refuse(stream_.avail_in, "the archive is damaged");
      }
    }
    return bytes - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool done_ = false, between_ = false;
};

class PackedReader::Zstd : public Decoder {
 public:
  explicit Zstd(const std::string& path) : Decoder(path), stream_(ZSTD_createDStream()) {
    RETORT_CHECK_AS(kMemory, stream_ != nullptr, escaped(path, 4096), ": no memory for zstd");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, kZstdWindow);
  }
  ~Zstd() override { ZSTD_freeDStream(stream_); }

  std::size_t read(char* to, std::size_t bytes) override {
    ZSTD_outBuffer out{to, bytes, 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size) {
        const auto block = more();
        in_ = {block.data(), block.size(), 0};
        if (block.empty()) {
          if (wanted_ != 0) refuse(0, "the archive ends too early");
          break;
        }
      }
      wanted_ = ZSTD_decompressStream(stream_, &out, &in_);
      if (ZSTD_isError(wanted_)) refuse(in_.size - in_.pos, ZSTD_getErrorName(wanted_));
    }
    return out.pos;
  }

 private:
  ZSTD_DStream* stream_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  std::size_t wanted_ = 1;  // 0: right behind a frame
};

PackedReader::PackedReader(const std::string& path, std::uint64_t max_bytes)
    : path_(path), max_bytes_(max_bytes) {
  if (path.ends_with(".xz"))
    decoder_ = std::make_unique<Xz>(path);
  else if (path.ends_with(".gz"))
    decoder_ = std::make_unique<Gzip>(path);
  else if (path.ends_with(".zst"))
    decoder_ = std::make_unique<Zstd>(path);
  else
    decoder_ = std::make_unique<Plain>(path);
}

PackedReader::~PackedReader() = default;

std::size_t PackedReader::read(char* to, std::size_t bytes) {
  const std::size_t n = decoder_->read(to, bytes);
  given_ += n;
  RETORT_CHECK_AS(kBadInput, given_ <= max_bytes_, escaped(path_, 4096), ": expected at most ",
                  max_bytes_, " bytes when unpacked");
  return n;
}

PackedLines::PackedLines(const std::string& path, std::uint64_t max_bytes)
    : reader_(path, max_bytes) {
  while (!ended_ && buffer_.size() < 3) fill();
  if (buffer_.starts_with("\xef\xbb\xbf")) begin_ = next_at_ = 3;
}

// One block more behind what is not given yet.
bool PackedLines::fill() {
  buffer_.erase(0, begin_);
  begin_ = 0;
  const std::size_t before = buffer_.size();
  buffer_.resize(before + kReadBytes);
  const std::size_t n = reader_.read(buffer_.data() + before, kReadBytes);
  buffer_.resize(before + n);
  ended_ = n == 0;
  return !ended_;
}

bool PackedLines::next(std::string_view* line) {
  std::size_t searched = begin_, end = std::string::npos;
  while ((end = buffer_.find('\n', searched)) == std::string::npos) {
    const std::size_t waiting = buffer_.size() - begin_;
    if (waiting > kMostLine) {
      ++line_, offset_ = next_at_;
      refuse(0, "expected a line of at most ", kMostLine, " bytes");
    }
    if (!fill()) break;
    searched = waiting;
  }
  if (end == std::string::npos) {
    if (begin_ == buffer_.size()) return false;
    end = buffer_.size();
  }
  ++line_;
  offset_ = next_at_;
  std::string_view text(buffer_.data() + begin_, end - begin_);
  begin_ = std::min(end + 1, buffer_.size());
  next_at_ = offset_ + text.size() + 1;
  if (text.ends_with('\r')) text.remove_suffix(1);
  const std::size_t fault = utf8_fault(text), zero = text.find('\0');
  if (fault != std::string_view::npos) refuse(fault, "expected UTF-8 text, got an invalid byte");
  if (zero != std::string_view::npos) refuse(zero, "expected UTF-8 text, got U+0000");
  *line = text;
  return true;
}

}  // namespace retort::nn
