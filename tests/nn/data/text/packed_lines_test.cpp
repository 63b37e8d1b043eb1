#include "nn/data/packed_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "nn/data/packed_file.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using nn::PackedLines;
using ::testing::HasSubstr;

std::string xz(const std::string& content) {
  std::string out(lzma_stream_buffer_bound(content.size()), '\0');
  std::size_t used = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(
                1, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const std::uint8_t*>(content.data()),
                content.size(), reinterpret_cast<std::uint8_t*>(out.data()), &used, out.size()),
            LZMA_OK);
  out.resize(used);
  return out;
}

std::string gzip(const std::string& content) {
  z_stream s{};
  EXPECT_EQ(deflateInit2(&s, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&s, content.size()) + 32, '\0');
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  s.avail_in = static_cast<uInt>(content.size());
  s.next_out = reinterpret_cast<Bytef*>(out.data());
  s.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&s, Z_FINISH), Z_STREAM_END);
  out.resize(s.total_out);
  deflateEnd(&s);
  return out;
}

std::string zst(const std::string& content) {
  std::string out(ZSTD_compressBound(content.size()), '\0');
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as the command zstd does
  out.resize(ZSTD_compress2(context, out.data(), out.size(), content.data(), content.size()));
  ZSTD_freeCCtx(context);
  return out;
}

struct Packing {
  const char* ending;
  std::string (*pack)(const std::string&);
};
const Packing kPackings[] = {
    {"", [](const std::string& s) { return s; }}, {".xz", xz}, {".gz", gzip}, {".zst", zst}};

std::vector<std::string> all_lines(const std::string& path) {
  PackedLines lines(path);
  std::vector<std::string> all;
  for (std::string_view line; lines.next(&line);) {
    all.emplace_back(line);
    EXPECT_EQ(lines.line(), all.size());
  }
  return all;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput) << e.what();
    return e.what();
  }
  return "";
}

// Lines across the borders of blocks, empty ones, two kinds of ends, none behind the last.
std::vector<std::string> wanted() {
  std::vector<std::string> lines{"first", "", "caf\xc3\xa9"};
  for (std::size_t i = 0; i < 40; ++i)
    lines.push_back(std::string(i * 613, static_cast<char>('a' + i % 26)));
  lines.emplace_back("the last");
  return lines;
}

TEST(PackedLines, however_they_are_packed_lines_are_the_same) {
  const TemporaryFolder folder;
  std::string content = "\xef\xbb\xbf";
  const auto lines = wanted();
  for (std::size_t i = 0; i < lines.size(); ++i)
    content += lines[i] + (i + 1 == lines.size() ? "" : i % 3 == 0 ? "\r\n" : "\n");
  for (const Packing& packing : kPackings) {
    const std::string path = folder / (std::string("x.txt") + packing.ending);
    // Two parts one after the other are one content, cut inside a line.
    spill(path, packing.pack(content.substr(0, 4000)) + packing.pack(content.substr(4000)));
    EXPECT_EQ(all_lines(path), lines) << packing.ending;
    EXPECT_EQ(nn::read_packed(path, 1 << 20), content) << packing.ending;
  }
}

TEST(PackedLines, a_file_is_found_by_any_ending) {
  for (const Packing& packing : kPackings) {
    const TemporaryFolder folder;
    spill(folder / (std::string("x.txt") + packing.ending), packing.pack("one\n"));
    EXPECT_TRUE(nn::packed_exists(folder / "x.txt"));
    EXPECT_EQ(nn::read_packed(folder / "x.txt", 100), "one\n") << packing.ending;
  }
}

TEST(PackedLines, archives_that_are_cut_or_damaged_are_named_with_the_place) {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 20000; ++i) content += std::to_string(i * 7919 % 65537) + "\n";
  for (const Packing& packing : kPackings) {
    if (*packing.ending == '\0') continue;
    const std::string path = folder / (std::string("x") + packing.ending);
    const std::string packed = packing.pack(content);
    spill(path, packed.substr(0, packed.size() / 2));
    EXPECT_THAT(message_of([&] { all_lines(path); }), HasSubstr("the archive ends too early"))
        << packing.ending;
    std::string damaged = packed;
    for (std::size_t i = 0; i < 8; ++i) damaged[damaged.size() / 2 + i] ^= 0x55;
    spill(path, damaged);
    EXPECT_THAT(message_of([&] { all_lines(path); }), HasSubstr("cannot unpack at offset "))
        << packing.ending;
    spill(path, "this is not an archive of any kind");
    EXPECT_THAT(message_of([&] { all_lines(path); }), HasSubstr("cannot unpack")) << packing.ending;
  }
}

TEST(PackedLines, what_unpacks_to_more_than_its_reader_takes_is_refused_on_the_way) {
  const TemporaryFolder folder;
  for (const Packing& packing : kPackings) {
    const std::string path = folder / (std::string("bomb") + packing.ending);
    spill(path, packing.pack(std::string(1 << 20, 'x')));
    EXPECT_THAT(message_of([&] { nn::read_packed(path, (1 << 20) - 1); }),
                HasSubstr("expected at most 1048575 bytes"))
        << packing.ending;
    EXPECT_EQ(nn::read_packed(path, 1 << 20).size(), std::size_t{1} << 20);
  }
}

TEST(PackedLines, what_is_no_text_is_named_by_line_and_byte) {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  spill(path, "good\nbad \xff here\n");
  EXPECT_THAT(message_of([&] { all_lines(path); }),
              HasSubstr("x:2: byte 10 of the file: expected UTF-8 text, got an invalid byte"));
  spill(path, std::string("good\r\nb\0d\n", 10));
  EXPECT_THAT(message_of([&] { all_lines(path); }), HasSubstr("x:2: byte 8 of the file: "));
}

}  // namespace
}  // namespace retort::test
