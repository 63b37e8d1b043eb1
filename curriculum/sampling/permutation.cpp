#include "curriculum/sampling/permutation.h"

#include <numeric>
#include <unordered_map>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::curriculum {
namespace {

// Word i of the stream (seed, sample, epoch, purpose): four words a block.
class Words {
 public:
  Words(std::uint64_t seed, std::uint32_t sample, std::uint32_t epoch, std::uint32_t purpose)
      : seed_(seed), sample_(sample), epoch_(epoch), purpose_(purpose) {}
  std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox(seed_, index_++, sample_, epoch_, purpose_);
      used_ = 0;
    }
    return block_.v[used_++];
  }

 private:
  std::uint64_t seed_;
  std::uint32_t sample_, epoch_, purpose_, index_ = 0;
  Philox4 block_{};
  int used_ = 4;
};

}  // namespace

std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, std::uint32_t epoch,
                                      std::uint32_t purpose) {
  RETORT_CHECK(n >= 0 && n < (std::int64_t{1} << 32), "[permutation] expected 0 <= n < 2^32, got ",
               n);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  Words words(seed, 0, epoch, purpose);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[uniform_below(words.next(), static_cast<std::uint32_t>(i))]);
  return order;
}

std::vector<std::int64_t> draw_without_replacement(std::int64_t n, std::int64_t k,
                                                   std::uint64_t seed, std::uint64_t step,
                                                   std::uint32_t purpose) {
  RETORT_CHECK(k >= 0 && k <= n && n < (std::int64_t{1} << 32),
               "[draw_without_replacement] expected 0 <= k <= n < 2^32, got k = ", k, ", n = ", n);
  // A forward Fisher-Yates that keeps only the places it touched.
  Words words(seed, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32),
              purpose);
  std::unordered_map<std::int64_t, std::int64_t> moved;
  std::vector<std::int64_t> drawn(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i) {
    const std::int64_t j = i + uniform_below(words.next(), static_cast<std::uint32_t>(n - i));
    const auto at_j = moved.find(j), at_i = moved.find(i);
    const std::int64_t here = at_i == moved.end() ? i : at_i->second;
    drawn[static_cast<std::size_t>(i)] = at_j == moved.end() ? j : at_j->second;
    moved[j] = here;
  }
  return drawn;
}

}  // namespace retort::curriculum
