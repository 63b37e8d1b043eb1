#include "nn/data/dataset.h"

#include <charconv>
#include <cstdio>

namespace retort::nn {

Augment parse_augment(const std::string& text) {
  if (text == "none") return Augment::kNone;
  if (text == "crop_flip") return Augment::kCropFlip;
  fail(ErrorCode::kUsage, "[data] expected augment none or crop_flip, got '", text, "'");
}

const char* name_of(Augment augment) { return augment == Augment::kNone ? "none" : "crop_flip"; }

void Dataset::check_samples(std::span<const std::int64_t> samples) const {
  for (const std::int64_t i : samples)
    RETORT_CHECK(i >= 0 && i < size(), "[data] expected a sample in [0, ", size(), "), got ", i);
}

std::vector<std::int64_t> parse_index_ranges(const std::string& text, std::int64_t size) {
  std::string bare;
  for (const char c : text)
    if (c != ' ') bare += c;
  std::vector<std::int64_t> out;
  std::vector<bool> taken(static_cast<std::size_t>(size));
  const auto number = [&](const std::string& part, std::int64_t otherwise) {
    if (part.empty()) return otherwise;
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    RETORT_CHECK(
        error == std::errc() && end == part.data() + part.size() && value >= 0 && value <= size,
        "[data] expected index ranges such as 0:5000,7000 within 0:", size, ", got '", text, "'");
    return value;
  };
  if (bare.empty()) bare = ":";
  for (std::size_t at = 0; at <= bare.size();) {
    std::size_t comma = bare.find(',', at);
    if (comma == std::string::npos) comma = bare.size();
    const std::string part = bare.substr(at, comma - at);
    at = comma + 1;
    RETORT_CHECK(!part.empty(), "[data] expected index ranges such as 0:5000,7000, got '", text,
                 "'");
    const std::size_t colon = part.find(':');
    const std::int64_t begin = number(part.substr(0, colon), 0);
    const std::int64_t end =
        colon == std::string::npos ? begin + 1 : number(part.substr(colon + 1), size);
    RETORT_CHECK(begin < end && end <= size, "[data] expected begin < end <= ", size, " in '", part,
                 "'");
    for (std::int64_t i = begin; i < end; ++i) {
      RETORT_CHECK(!taken[static_cast<std::size_t>(i)], "[data] index ", i, " is in '", text,
                   "' twice");
      taken[static_cast<std::size_t>(i)] = true;
      out.push_back(i);
    }
  }
  return out;
}

std::string hex(std::uint64_t hash) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace retort::nn
