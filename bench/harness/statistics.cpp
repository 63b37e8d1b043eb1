#include "bench/harness/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/philox.h"

namespace retort::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A stream of uniform integers for the bootstrap.
class Draw {
 public:
  std::size_t below(std::size_t n) {
    if (used_ == 4) {
      block_ = philox(20, next_++, 0, 0, path_hash("bootstrap"));
      used_ = 0;
    }
    return uniform_below(block_.v[used_++], static_cast<std::uint32_t>(n));
  }

 private:
  Philox4 block_{};
  std::uint32_t next_ = 0;
  int used_ = 4;
};

double median_of_resample(const Blocks& blocks, Draw& draw, std::vector<double>& room) {
  room.clear();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block& block = blocks[blocks.size() == 1 ? 0 : draw.below(blocks.size())];
    for (std::size_t k = 0; k < block.size(); ++k) room.push_back(block[draw.below(block.size())]);
  }
  const auto middle = room.begin() + static_cast<std::ptrdiff_t>(room.size() / 2);
  std::nth_element(room.begin(), middle, room.end());
  if (room.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(room.begin(), middle)) / 2;
}

Blocks with_samples(Blocks blocks) {
  std::erase_if(blocks, [](const Block& block) { return block.empty(); });
  return blocks;
}

}  // namespace

std::vector<double> joined(const Blocks& blocks) {
  std::vector<double> all;
  for (const Block& block : blocks) all.insert(all.end(), block.begin(), block.end());
  return all;
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return kNan;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  if (below + 1 >= values.size()) return values.back();
  const double share = at - static_cast<double>(below);
  return values[below] + share * (values[below + 1] - values[below]);
}

double median_absolute_deviation(const std::vector<double>& values) {
  const double middle = median(values);
  std::vector<double> distance;
  distance.reserve(values.size());
  for (const double v : values) distance.push_back(std::abs(v - middle));
  return median(distance);
}

Ratio bootstrap_ratio(const Blocks& a, const Blocks& b, double confidence, int resamples) {
  Ratio r{median(joined(b)) / median(joined(a)), kNan, kNan};
  if (!std::isfinite(r.value)) return r;
  const Blocks from_a = with_samples(a), from_b = with_samples(b);
  Draw draw;
  std::vector<double> ratios, room;
  for (int i = 0; i < resamples; ++i) {
    const double below = median_of_resample(from_a, draw, room);
    ratios.push_back(median_of_resample(from_b, draw, room) / below);
  }
  r.low = quantile(ratios, (1 - confidence) / 2);
  r.high = quantile(ratios, (1 + confidence) / 2);
  return r;
}

}  // namespace retort::bench
