#include "nn/data/packed_file.h"

#include <lzma.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "engine/io/file.h"
#include "kernels/common/check.h"
#include "nn/data/packed_lines.h"

namespace retort::nn {
namespace {

// liblzma may use this much for one decoder: the largest preset needs 65 MiB.
constexpr std::uint64_t kDecoderMemory = std::uint64_t{256} << 20;
// And for an index: of a million blocks and more.
[[maybe_unused]] constexpr std::uint64_t kIndexMemory = std::uint64_t{64} << 20;
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

constexpr const char* kEndings[] = {"", ".xz", ".gz", ".zst"};

bool packed_exists(const std::string& path) {
  return std::any_of(std::begin(kEndings), std::end(kEndings),
                     [&](const char* ending) { return is_there(path + ending); });
}

std::string find_packed(const std::string& path) {
  for (const char* ending : kEndings)
    if (is_there(path + ending)) return path + ending;
  fail(ErrorCode::kIo, escaped(path, 4096), ": no such file, nor with .xz, .gz or .zst appended");
}

namespace {

// What the archive's own index says it unpacks to; none if the index cannot be read, which the
// decoder will find out with a better place.
std::optional<std::uint64_t> claimed_bytes(std::string_view archive) {
#if LZMA_VERSION >= 50040002  // 5.4.0 brought the decoder of indices
  lzma_index* index = nullptr;
  {
    Decoder decoder;
    lzma_stream& s = decoder.stream;
    if (lzma_file_info_decoder(&s, &index, kIndexMemory, archive.size()) != LZMA_OK)
      return std::nullopt;
    lzma_ret code = LZMA_SEEK_NEEDED;
    while (code == LZMA_SEEK_NEEDED) {
      s.next_in = reinterpret_cast<const std::uint8_t*>(archive.data()) + s.seek_pos;
      s.avail_in = archive.size() - s.seek_pos;
      code = lzma_code(&s, LZMA_RUN);
    }
    if (code != LZMA_STREAM_END) return std::nullopt;  // lzma_end frees the index
  }
  const std::uint64_t bytes = lzma_index_uncompressed_size(index);
  lzma_index_end(index, nullptr);
  return bytes;
#else
  return archive.empty() ? std::nullopt : std::optional<std::uint64_t>();
#endif
}

}  // namespace

std::string unpack_xz(std::string_view archive, const std::string& name, std::uint64_t max_bytes) {
  const std::optional<std::uint64_t> claimed = claimed_bytes(archive);
  RETORT_CHECK_AS(kBadInput, !claimed || *claimed <= max_bytes, escaped(name, 4096),
                  ": expected at most ", max_bytes, " bytes when unpacked, and it holds ",
                  *claimed);
  const std::uint64_t most = claimed.value_or(max_bytes);
  Decoder decoder;
  lzma_stream& s = decoder.stream;
  RETORT_CHECK_AS(kMemory, lzma_stream_decoder(&s, kDecoderMemory, LZMA_CONCATENATED) == LZMA_OK,
                  escaped(name, 4096), ": no memory for liblzma");
  s.next_in = reinterpret_cast<const std::uint8_t*>(archive.data());
  s.avail_in = archive.size();
  std::string content;
  for (lzma_ret code = LZMA_OK; code != LZMA_STREAM_END;) {
    give_up_if_stopped(name);
    // Grows with what really comes out, so a small hostile file cannot ask for much, and to no more
    // than what may come out and one byte that tells of more. The last growth is the largest: a
    // string that grows by less than twice grows by twice.
    const std::size_t before = content.size();
    const std::size_t block = std::min<std::uint64_t>(kBlock, most + 1 - before);
    const std::size_t doubled = 2 * before + block;
    if (content.capacity() < before + block)
      content.reserve(doubled >= (most + 1) / 2 ? most + 1 : doubled);
    content.resize(before + block);
    s.next_out = reinterpret_cast<std::uint8_t*>(content.data() + before);
    s.avail_out = block;
    code = lzma_code(&s, LZMA_FINISH);
    content.resize(before + block - s.avail_out);
    RETORT_CHECK_AS(kMemory, code != LZMA_MEM_ERROR, escaped(name, 4096),
                    ": no memory for liblzma");
    RETORT_CHECK_AS(kBadInput, code == LZMA_OK || code == LZMA_STREAM_END, escaped(name, 4096),
                    ": cannot unpack at offset ", s.total_in, " of ", archive.size(), ": ",
                    reason(code));
    RETORT_CHECK_AS(kBadInput, content.size() <= max_bytes, escaped(name, 4096),
                    ": expected at most ", max_bytes, " bytes when unpacked");
    RETORT_CHECK_AS(kBadInput, content.size() <= most, escaped(name, 4096),
                    ": the archive is damaged: more than the ", most, " bytes that it promises");
  }
  return content;
}

std::string read_packed(const std::string& path, std::uint64_t max_bytes) {
  const std::string found = find_packed(path);
  if (found.ends_with(".gz") || found.ends_with(".zst")) {
    PackedReader reader(found, max_bytes);
    std::string all;
    std::vector<char> block(kBlock);
    while (const std::size_t n = reader.read(block.data(), block.size()))
      all.append(block.data(), n);
    return all;
  }
  std::string content = read_file(found, max_bytes);
  if (!found.ends_with(".xz")) return content;
  return unpack_xz(content, found, max_bytes);
}

}  // namespace retort::nn
