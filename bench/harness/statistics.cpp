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

double mann_whitney_p(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.empty() || b.empty()) return 1;
  struct Item {
    double value;
    bool of_a;
  };
  std::vector<Item> all;
  for (const double v : a) all.push_back({v, true});
  for (const double v : b) all.push_back({v, false});
  std::sort(all.begin(), all.end(), [](const Item& x, const Item& y) { return x.value < y.value; });
  const double n = static_cast<double>(all.size()), na = static_cast<double>(a.size()),
               nb = static_cast<double>(b.size());
  double rank_sum = 0, ties = 0;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i;
    while (end < all.size() && all[end].value == all[i].value) ++end;
    const double t = static_cast<double>(end - i);
    const double rank = (static_cast<double>(i + 1) + static_cast<double>(end)) / 2;
    ties += t * t * t - t;
    for (; i < end; ++i)
      if (all[i].of_a) rank_sum += rank;
  }
  const double u = rank_sum - na * (na + 1) / 2, mean = na * nb / 2;
  const double variance = na * nb / 12 * ((n + 1) - ties / (n * (n - 1)));
  if (!(variance > 0)) return 1;
  const double z = std::max(0.0, std::abs(u - mean) - 0.5) / std::sqrt(variance);
  return std::erfc(z / std::sqrt(2.0));
}

Ratio bootstrap_ratio(const Blocks& a, const Blocks& b, double confidence, int resamples) {
  Ratio r{median(joined(b)) / median(joined(a)), kNan, kNan};
  if (!std::isfinite(r.value)) return r;
  Draw draw;
  std::vector<double> ratios, room;
  for (int i = 0; i < resamples; ++i) {
    const double below = median_of_resample(a, draw, room);
    ratios.push_back(median_of_resample(b, draw, room) / below);
  }
  r.low = quantile(ratios, (1 - confidence) / 2);
  r.high = quantile(ratios, (1 + confidence) / 2);
  return r;
}

}  // namespace retort::bench
