#include "nn/text/utf8.h"

#include <cstring>

namespace retort::nn {

std::size_t utf8_fault(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    std::uint64_t eight;
    if (i + 8 <= text.size() &&
        (std::memcpy(&eight, text.data() + i, 8), (eight & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    const std::uint32_t bytes = utf8_at(text, i).bytes;
    if (bytes == 0) return i;
    i += bytes;
  }
  return std::string_view::npos;
}

}  // namespace retort::nn
