// Damaged texts for the replays of fuzz targets (tests/fuzz): the same ones in every run.
#pragma once
#include <string>
#include <string_view>

#include "kernels/common/philox.h"

namespace retort::test {

/// `text` with one to four changes that (seed, round) decide: bytes left out, a piece of itself put
/// in, or a byte replaced by one of `tokens`.
inline std::string mutated(std::string text, std::uint64_t seed, std::uint32_t round,
                           std::string_view tokens) {
  for (std::uint32_t k = 0; k <= round % 4 && !text.empty(); ++k) {
    const Philox4 r = philox(seed, round, k, 0, 0);
    const std::size_t at = r.v[0] % text.size();
    if (r.v[1] % 3 == 0)
      text.erase(at, 1 + r.v[2] % 4);
    else if (r.v[1] % 3 == 1)
      text.insert(at, text.substr(r.v[2] % text.size(), r.v[3] % 30));
    else
      text[at] = tokens[r.v[2] % tokens.size()];
  }
  return text;
}

}  // namespace retort::test
