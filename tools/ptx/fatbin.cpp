// From the fat binaries that nvcc embeds to modules.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <sstream>

#include <zstd.h>

#include "tools/ptx/runtime.h"

namespace retort::ptx {

int architecture() {
  static const int known = [] {
    const char* const text = std::getenv("RETORT_PTX_ARCH");
    const std::string name = text ? text : "90";
    if (name != "80" && name != "90")
      throw Fault("RETORT_PTX_ARCH: expected 80 or 90, got " + name);
    return name == "80" ? 80 : 90;
  }();
  return known;
}

namespace {

// As it stands, or a zstd frame (what nvcc 13 makes of it) with what fills it up behind it.
std::string text_of(const unsigned char* p, std::size_t size) {
  std::string text(reinterpret_cast<const char*>(p), size);
  const std::size_t frame = ZSTD_findFrameCompressedSize(p, size);
  if (!ZSTD_isError(frame)) {
    constexpr unsigned long long kMost = 1ull << 30;
    const unsigned long long length = ZSTD_getFrameContentSize(p, frame);
    text.resize(length <= kMost ? length : 0);
    if (ZSTD_decompress(text.data(), text.size(), p, frame) != text.size()) text.clear();
  }
  while (!text.empty() && text.back() == '\0') text.pop_back();
  if (text.find(".version") == std::string::npos) {
    std::fprintf(stderr, "ptx: PTX compressed by an unknown method; build with --no-compress\n");
    std::abort();
  }
  return text;
}

}  // namespace

void read_fatbin(const unsigned char* p, Image& image) {
  const auto u16_at = [&](std::size_t k) {
    u16 v;
    std::memcpy(&v, p + k, 2);
    return v;
  };
  const auto u32_at = [&](std::size_t k) {
    u32 v;
    std::memcpy(&v, p + k, 4);
    return v;
  };
  const auto u64_at = [&](std::size_t k) {
    u64 v;
    std::memcpy(&v, p + k, 8);
    return v;
  };
  if (u32_at(0) != 0xba55ed50) {
    std::fprintf(stderr, "ptx: not a fat binary\n");
    std::abort();
  }
  std::size_t at = u16_at(6);
  const std::size_t end = at + u64_at(8);
  while (at < end) {
    const u32 kind = u16_at(at), header = u32_at(at + 4);
    const u64 size = u64_at(at + 8);
    if (kind == 1) {
      std::string text = text_of(p + at + header, size);
      if (text.find("\n.target sm_80\n") != std::string::npos) image.text[0] = std::move(text);
      // sm_90's is there for chips to come
      else if (text.find("\n.target sm_90a\n") != std::string::npos)
        image.text[1] = std::move(text);
    }
    at += header + size;
  }
}

namespace {
// RETORT_PTX_EDIT=REGEX=>REPLACEMENT, line by line: how tests plant bugs behind the compiler's
// back.
std::string edited(const std::string& text, const std::string& edit) {
  const std::size_t arrow = edit.find("=>");
  const std::regex from(edit.substr(0, arrow));
  const std::string to = edit.substr(arrow + 2);
  std::istringstream in(text);
  std::string out, line;
  std::size_t count = 0;
  while (std::getline(in, line)) {
    if (std::regex_search(line, from)) line = std::regex_replace(line, from, to), ++count;
    out += line + "\n";
  }
  std::fprintf(stderr, "ptx: %zu lines edited\n", count);
  return out;
}

}  // namespace

void parse_image(Image& image) {
  if (image.module) return;
  std::string& text = image.text[architecture() == 80 ? 0 : 1];
  if (const char* const edit = std::getenv("RETORT_PTX_EDIT")) text = edited(text, edit);
  image.module = parse(text);
}

Function& function_of(Kernel& k) {
  parse_image(*k.image);
  const auto it = k.image->module->functions.find(k.name);
  if (it == k.image->module->functions.end()) throw Fault("ptx: no kernel " + k.name);
  return *it->second;
}
}  // namespace retort::ptx
