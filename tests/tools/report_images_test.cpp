#include "tools/report/curriculum_images.h"

#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tests/support/temporary_folder.h"
#include "tools/report/png.h"

namespace retort::tools {
namespace {

TEST(ReportImages, published_check_values) {
  EXPECT_EQ(crc32_of("123456789"), 0xcbf43926u);
  EXPECT_EQ(adler32_of("Wikipedia"), 0x11e60398u);
  // RFC 4648, section 10.
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
  return value;
}

// The pixels again, with every length and check value looked at.
std::vector<std::uint8_t> pixels_of(const std::string& png, std::size_t width, std::size_t height) {
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  std::string data;
  std::vector<std::string> types;
  for (std::size_t at = 8; at < png.size();) {
    const std::size_t size = big_endian(png, at);
    const std::string type = png.substr(at + 4, 4);
    EXPECT_EQ(big_endian(png, at + 8 + size), crc32_of(png.substr(at + 4, 4 + size)));
    types.push_back(type);
    if (type == "IDAT") data = png.substr(at + 8, size);
    at += 12 + size;
  }
  EXPECT_EQ(types, (std::vector<std::string>{"IHDR", "IDAT", "IEND"}));
  EXPECT_EQ((256u * static_cast<unsigned char>(data[0]) + static_cast<unsigned char>(data[1])) % 31,
            0u);
  std::string lines;
  bool last = false;
  std::size_t at = 2;
  while (!last) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(data.at(at + i)); };
    last = byte(0) == 1;
    const std::size_t size = byte(1) + 256u * byte(2);
    EXPECT_EQ(size ^ 0xffffu, byte(3) + 256u * byte(4));
    lines += data.substr(at + 5, size);
    at += 5 + size;
  }
  EXPECT_EQ(big_endian(data, at), adler32_of(lines));
  EXPECT_EQ(at + 4, data.size());
  EXPECT_EQ(lines.size(), (3 * width + 1) * height);
  std::vector<std::uint8_t> rgb;
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (i % (3 * width + 1) != 0) rgb.push_back(static_cast<std::uint8_t>(lines[i]));
  return rgb;
}

TEST(ReportImages, a_png_holds_its_pixels) {
  std::vector<std::uint8_t> small{255, 0, 0, 0, 255, 0, 0, 0, 255, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_EQ(pixels_of(png_of(3, 2, small), 3, 2), small);
  std::vector<std::uint8_t> large(200 * 150 * 3);  // more than one block
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::uint8_t>(i * 7 % 251);
  EXPECT_EQ(pixels_of(png_of(200, 150, large), 200, 150), large);
  EXPECT_THROW(png_of(3, 3, small), Error);
  EXPECT_THROW(png_of(0, 2, {}), Error);
}

TEST(ReportImages, written_and_shown) {
  const test::TemporaryFolder folder;
  make_folders(folder.path() + "/curriculum");
  const std::vector<std::uint8_t> pixel{1, 2, 3};
  const auto file = std::filesystem::path(folder.path()) / "curriculum" / "a.images.json";
  EXPECT_EQ(curriculum_images_html(file), "");
  write_curriculum_images(folder.path(), "a", {{17, "<cat>", 9.5, true, 1, 1, pixel}},
                          {{4, "dog", -1, false, 1, 1, pixel}});
  const std::string html = curriculum_images_html(file);
  EXPECT_NE(html.find("image 17, score 9.5"), std::string::npos) << html;
  EXPECT_NE(html.find("base64," + base64(png_of(1, 1, pixel)) + "\">&lt;cat&gt;</li>"),
            std::string::npos);
  EXPECT_GT(html.find("<s>dog</s>"), html.find("Hardest"));
  write_file_atomically(file.string(), "{\"easiest\":[{\"png\":\"\\\"><b>\"}]}");
  EXPECT_THROW(curriculum_images_html(file), Error) << "nothing but base64 gets into the page";
}

}  // namespace
}  // namespace retort::tools
