#include "nn/data/packed_file.h"

#include <lzma.h>

#include <filesystem>

#include "engine/io/file.h"
#include "kernels/common/check.h"

namespace retort::nn {
namespace {

// liblzma may use this much for one decoder: the largest preset needs 65 MiB.
constexpr std::uint64_t kDecoderMemory = std::uint64_t{256} << 20;
constexpr std::size_t kBlock = std::size_t{1} << 18;

const char* reason(lzma_ret code) {
  switch (code) {
    case LZMA_FORMAT_ERROR: return "it is not an xz archive";
    case LZMA_DATA_ERROR: return "the archive is damaged";
    case LZMA_OPTIONS_ERROR: return "the archive uses options that this liblzma lacks";
    case LZMA_MEMLIMIT_ERROR: return "unpacking would need more than 256 MiB";
    case LZMA_BUF_ERROR: return "the archive ends too early";
    default: return "liblzma refused it";
  }
}

struct Decoder {
  lzma_stream stream = LZMA_STREAM_INIT;
  ~Decoder() { lzma_end(&stream); }
};

bool is_there(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

bool packed_exists(const std::string& path) { return is_there(path) || is_there(path + ".xz"); }

std::string find_packed(const std::string& path) {
  if (is_there(path)) return path;
  if (is_there(path + ".xz")) return path + ".xz";
  fail(ErrorCode::kIo, escaped(path, 4096), ": no such file, nor with .xz appended");
}

std::string unpack_xz(std::string_view archive, const std::string& name, std::uint64_t max_bytes) {
  Decoder decoder;
  lzma_stream& s = decoder.stream;
  RETORT_CHECK_AS(kMemory, lzma_stream_decoder(&s, kDecoderMemory, LZMA_CONCATENATED) == LZMA_OK,
                  escaped(name, 4096), ": no memory for liblzma");
  s.next_in = reinterpret_cast<const std::uint8_t*>(archive.data());
  s.avail_in = archive.size();
  std::string content;
  for (lzma_ret code = LZMA_OK; code != LZMA_STREAM_END;) {
    // Grows with what really comes out, so a small hostile file cannot ask for much.
    const std::size_t before = content.size();
    content.resize(before + kBlock);
    s.next_out = reinterpret_cast<std::uint8_t*>(content.data() + before);
    s.avail_out = kBlock;
    code = lzma_code(&s, LZMA_FINISH);
    content.resize(before + kBlock - s.avail_out);
    RETORT_CHECK_AS(kBadInput, code == LZMA_OK || code == LZMA_STREAM_END, escaped(name, 4096),
                    ": cannot unpack at offset ", s.total_in, " of ", archive.size(), ": ",
                    reason(code));
    RETORT_CHECK_AS(kBadInput, content.size() <= max_bytes, escaped(name, 4096),
                    ": expected at most ", max_bytes, " bytes when unpacked");
  }
  return content;
}

std::string read_packed(const std::string& path, std::uint64_t max_bytes) {
  const std::string found = find_packed(path);
  std::string content = read_file(found, max_bytes);
  if (!found.ends_with(".xz")) return content;
  return unpack_xz(content, found, max_bytes);
}

}  // namespace retort::nn
