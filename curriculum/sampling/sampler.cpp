#include "curriculum/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "curriculum/index.h"
#include "curriculum/sampling/permutation.h"
#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::curriculum {
namespace {

using Indices = std::vector<std::int64_t>;

// Deals `members`, already shuffled, to the parts.
void deal(const Indices& members, std::span<const double> ratios, std::vector<Indices>& parts) {
  const double total = std::accumulate(ratios.begin(), ratios.end(), 0.0);
  double sum = 0;
  std::size_t begin = 0;
  for (std::size_t p = 0; p < ratios.size(); ++p) {
    sum += ratios[p];
    const auto end = p + 1 == ratios.size()
                         ? members.size()
                         : static_cast<std::size_t>(
                               std::llround(static_cast<double>(members.size()) * sum / total));
    parts[p].insert(parts[p].end(), members.begin() + static_cast<std::ptrdiff_t>(begin),
                    members.begin() + static_cast<std::ptrdiff_t>(end));
    begin = end;
  }
}

void check_ratios(std::span<const double> ratios) {
  RETORT_CHECK(!ratios.empty(), "[split] expected at least one part");
  double total = 0;
  for (const double r : ratios) {
    RETORT_CHECK(r >= 0 && std::isfinite(r), "[split] expected ratios >= 0, got ", r);
    total += r;
  }
  RETORT_CHECK(total > 0, "[split] expected a positive sum of ratios");
}

}  // namespace

Sampler::Sampler(Indices order, const SamplerOptions& options) : options_(options) {
  RETORT_CHECK(options.batch_size >= 1, "[sampler] expected a batch of at least 1 sample, got ",
               options.batch_size);
  RETORT_CHECK(options.window_batches >= 0, "[sampler] expected window_batches >= 0, got ",
               options.window_batches);
  set_order(std::move(order));
}

void Sampler::set_order(Indices order) {
  const auto n = static_cast<std::int64_t>(order.size()), batch = options_.batch_size;
  RETORT_CHECK(n >= 1, "[sampler] expected at least one sample");
  RETORT_CHECK(batch <= n, "[sampler] expected a batch of at most the ", n, " samples, got ",
               batch);
  order_ = std::move(order);
  batches_ = options_.drop_last ? n / batch : (n + batch - 1) / batch;
  cached_epoch_ = -1;
  if (options_.batch_tokens == 0) return;
  check_sizes();
  std::int64_t tokens = 0;
  for (const std::int64_t i : order_) tokens += options_.sizes[at(i)];
  batches_ = token_batches(tokens, options_.batch_tokens);
}

void Sampler::check_sizes() const {
  RETORT_CHECK(
      options_.feeding != Feeding::kPaced && !options_.drop_last && options_.window_batches == 0,
      "[sampler] batches of tokens are cut from a whole order: expected no pacing, windows "
      "or drop_last");
  for (const std::int64_t i : order_) {
    RETORT_CHECK(i >= 0 && at(i) < options_.sizes.size(), "[sampler] expected the size of sample ",
                 i, ", got sizes of ", options_.sizes.size(), " samples");
    RETORT_CHECK(options_.sizes[at(i)] >= 1 && options_.sizes[at(i)] <= options_.batch_tokens,
                 "[sampler] expected 1 to ", options_.batch_tokens, " tokens a sample, got ",
                 options_.sizes[at(i)], " of sample ", i);
  }
}

std::int64_t token_batches(std::int64_t tokens, std::int64_t batch_tokens) {
  return (tokens + batch_tokens - 1) / batch_tokens;
}

Indices Sampler::by_tokens(std::int64_t step) const {
  const std::int64_t epoch = step / batches_;
  if (cached_epoch_ != epoch) {
    cached_ = order_;
    if (options_.feeding == Feeding::kShuffled) {
      const Indices ranks = permutation(size(), options_.seed, static_cast<std::uint32_t>(epoch),
                                        path_hash("curriculum.shuffled"));
      for (std::size_t r = 0; r < ranks.size(); ++r) cached_[r] = order_[at(ranks[r])];
    }
    begins_.assign(1, 0);
    std::int64_t tokens = 0;
    for (std::size_t r = 0; r < cached_.size(); ++r) {
      tokens += options_.sizes[at(cached_[r])];
      const std::int64_t batch = (tokens - 1) / options_.batch_tokens;
      if (batch == static_cast<std::int64_t>(begins_.size()))
        begins_.push_back(static_cast<std::int64_t>(r));
    }
    begins_.push_back(size());
    cached_epoch_ = epoch;
  }
  const std::size_t b = at(step % batches_);
  return {cached_.begin() + begins_[b], cached_.begin() + begins_[b + 1]};
}

Indices Sampler::batch(std::int64_t step) const {
  RETORT_CHECK(step >= 0, "[sampler] expected a step >= 0, got ", step);
  if (options_.batch_tokens > 0) return by_tokens(step);
  const std::int64_t n = size(), batch = options_.batch_size;
  Indices samples;
  if (options_.feeding == Feeding::kPaced) {
    const std::int64_t prefix = options_.pacing.prefix_size(step, n, batch);
    samples =
        draw_without_replacement(prefix, batch, options_.seed, static_cast<std::uint64_t>(step),
                                 path_hash("curriculum.paced_batch"));
    for (std::int64_t& s : samples) s = order_[at(s)];
    return samples;
  }
  const std::int64_t epoch = step / batches_, begin = step % batches_ * batch,
                     end = std::min(begin + batch, n);
  if (options_.feeding == Feeding::kShuffled) {
    if (cached_epoch_ != epoch) {
      cached_ = permutation(n, options_.seed, static_cast<std::uint32_t>(epoch),
                            path_hash("curriculum.shuffled"));
      cached_epoch_ = epoch;
    }
    for (std::int64_t r = begin; r < end; ++r) samples.push_back(order_[at(cached_[at(r)])]);
    return samples;
  }
  if (options_.window_batches == 0) {
    samples.assign(order_.begin() + begin, order_.begin() + end);
    return samples;
  }
  const std::int64_t width = options_.window_batches * batch, window = begin / width;
  const std::int64_t first = window * width, count = std::min(width, n - first);
  // The window number goes into the key's stream by the purpose word; the epoch has its own.
  const Indices mixed = permutation(
      count, options_.seed, static_cast<std::uint32_t>(epoch),
      path_hash("curriculum.window") + static_cast<std::uint32_t>(window) * 2654435761u);
  for (std::int64_t r = begin; r < end; ++r)
    samples.push_back(order_[at(first + mixed[at(r - first)])]);
  return samples;
}

std::vector<Indices> split(std::int64_t n, std::span<const double> ratios, std::uint64_t seed) {
  check_ratios(ratios);
  std::vector<Indices> parts(ratios.size());
  deal(permutation(n, seed, 0, path_hash("curriculum.split")), ratios, parts);
  for (Indices& part : parts) std::sort(part.begin(), part.end());
  return parts;
}

std::vector<Indices> stratified_split(std::span<const std::int32_t> labels,
                                      std::span<const double> ratios, std::uint64_t seed) {
  check_ratios(ratios);
  std::map<std::int32_t, Indices> by_class;
  const Indices shuffled =
      permutation(static_cast<std::int64_t>(labels.size()), seed, 1, path_hash("curriculum.split"));
  for (const std::int64_t i : shuffled) by_class[labels[at(i)]].push_back(i);
  std::vector<Indices> parts(ratios.size());
  for (const auto& [label, members] : by_class) deal(members, ratios, parts);
  for (Indices& part : parts) std::sort(part.begin(), part.end());
  return parts;
}

}  // namespace retort::curriculum
