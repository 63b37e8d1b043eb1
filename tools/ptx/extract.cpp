// extract OBJECT PREFIX: writes the PTX that nvcc left in OBJECT to PREFIX.sm_80.ptx and
// PREFIX.sm_90a.ptx, so that whoever reads it need not compile again.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "tools/ptx/runtime.h"

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: %s OBJECT PREFIX\n", arguments[0]), 2;
  std::ifstream in(arguments[1], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  constexpr unsigned char kMagic[] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0};  // version 1, 16 bytes
  const std::size_t at =
      bytes.find(std::string(reinterpret_cast<const char*>(kMagic), sizeof kMagic));
  std::uint64_t size = 0;
  if (at < bytes.size() && at + 16 <= bytes.size()) std::memcpy(&size, &bytes[at + 8], 8);
  if (!size || size > bytes.size() - at - 16)
    return std::fprintf(stderr, "%s: no fat binary in it\n", arguments[1]), 1;
  retort::ptx::Image image;
  retort::ptx::read_fatbin(reinterpret_cast<const unsigned char*>(&bytes[at]), image);
  for (const int k : {0, 1}) {
    std::ofstream out(std::string(arguments[2]) + (k ? ".sm_90a.ptx" : ".sm_80.ptx"));
    if (!(out << image.text[k] << std::flush) || image.text[k].empty())
      return std::fprintf(stderr, "%s: no PTX of both architectures\n", arguments[1]), 1;
  }
}
