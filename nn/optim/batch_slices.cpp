#include "nn/optim/batch_slices.h"

#include <algorithm>

#include "engine/distributed/communicator.h"
#include "engine/runtime/device.h"
#include "kernels/slice_sum/slice_sum.h"

namespace retort::nn {
namespace {

constexpr double kNotReached = -1;

RankExchange::Range slices_of(std::int64_t slices, const Communicator* ranks) {
  if (ranks == nullptr || ranks->size() == 1) return {0, slices};
  RankExchange::check_ranks(slices, ranks->size());
  return RankExchange::slices_of(slices, ranks->size(), ranks->rank());
}

}  // namespace

BatchSlices::BatchSlices(ParameterArena& arena, std::int64_t slices, Communicator* ranks)
    : arena_(arena),
      mine_(slices_of(slices, ranks)),
      sum_(slices, mine_.size(), arena.values().numel(), arena.values().device()),
      kept_{0, arena.values().numel()},
      momentum_(arena.statistics().size(), kNotReached) {
  RETORT_CHECK(arena.values().dtype() == DType::kF32,
               "[optimizer] expected f32 parameters for a batch in slices, got ",
               name_of(arena.values().dtype()));
  if (ranks == nullptr || ranks->size() == 1) return;
  RETORT_CHECK(arena.values().device() == Device::kCpu,
               "[optimizer] expected parameters on cpu for a batch that ", ranks->size(),
               " ranks share, got ", name_of(arena.values().device()));
  exchange_ = std::make_unique<RankExchange>(*ranks, slices, arena.values().numel());
  kept_ = exchange_->own();
}

RankExchange::Range BatchSlices::own() const { return kept_.within(0, arena_.numel()); }

Tensor BatchSlices::statistics_of(const Tensor& flat) const {
  return flat.slice(arena_.numel(), flat.numel());
}

StatisticsScope::Send BatchSlices::begin_pass(std::int64_t part) {
  // Cleared first: 0 times what a slice before left is no 0 where that is no number.
  if (part == 0 && !momentum_.empty()) statistics_of(arena_.sums_in_place()).fill(0);
  return [this, part](const Tensor& running, double momentum) {
    return place_of(running, momentum, part);
  };
}

StatisticsPlace BatchSlices::place_of(const Tensor& running, double momentum, std::int64_t part) {
  const std::vector<ParameterArena::Statistic>& all = arena_.statistics();
  if (running.storage() != arena_.values().storage()) return {running, momentum};
  const auto at = std::lower_bound(
      all.begin(), all.end(), running.storage_offset(),
      [](const ParameterArena::Statistic& s, std::int64_t offset) { return s.offset < offset; });
  RETORT_ASSERT(at != all.end() && at->offset == running.storage_offset());
  momentum_[static_cast<std::size_t>(at - all.begin())] = momentum;
  const Tensor place = Tensor::wrap(arena_.sums_in_place().storage(), at->offset, running.shape(),
                                    running.dtype(), running.row_pitch());
  return {place, 1.0 / static_cast<double>(part + 1)};
}

void BatchSlices::add(std::int64_t s, bool has_samples) {
  RETORT_CHECK(s >= first() && s < last(), "[slice_sum] expected slices ", first(), " to ", last(),
               " here, got slice ", s);
  if (!has_samples && !momentum_.empty()) statistics_of(arena_.sums_in_place()).fill(0);
  sum_.add(s, 1, arena_.sums());
  arena_.zero_gradients();
  ++added_;
  if (has_samples) ++with_samples_;
}

Tensor BatchSlices::finish() {
  RETORT_CHECK(added_ == mine_.size(), "[optimizer] expected all ", mine_.size(),
               " slices of a batch that are this rank's before an update, got ", added_);
  total_ = sum_.finish();
  if (exchange_) {
    total_ = exchange_->sum(total_);
    if (!momentum_.empty()) tell_what_was_reached();
  }
  return total_.slice(0, own().size());
}

// A rank knows of its own slices alone, and may own statistics that only others' have reached.
void BatchSlices::tell_what_was_reached() {
  std::vector<double> mine = momentum_;
  mine.push_back(static_cast<double>(with_samples_));
  const std::vector<double> all = exchange_->gather(mine);
  with_samples_ = 0;
  for (auto of_rank = all.begin(); of_rank != all.end();) {
    for (double& momentum : momentum_) {
      if (*of_rank != kNotReached) momentum = *of_rank;  // the last slice says it, as on one rank
      ++of_rank;
    }
    with_samples_ += static_cast<std::int64_t>(*of_rank++);
  }
}

void BatchSlices::update_statistics(const std::int32_t* skip) {
  const std::vector<ParameterArena::Statistic>& all = arena_.statistics();
  const Tensor& values = arena_.values();
  // One launch for neighbours that were reached: of all, as a rule.
  for (std::size_t first = 0, next; first < all.size(); first = next) {
    next = first + 1;
    if (momentum_[first] == kNotReached) continue;
    while (next < all.size() && momentum_[next] == momentum_[first]) ++next;
    const auto [begin, end] = kept_.within(all[first].offset, all[next - 1].end);
    if (begin == end) continue;  // another rank's
    kernels::running_average(
        context_of(values.device()),
        {values.data<float>() + begin, total_.data<float>() + (begin - kept_.begin), end - begin,
         std::max<std::int64_t>(1, with_samples_), momentum_[first], skip});
    values.slice(begin, end).round_bf16_copy();
  }
  clear();
}

void BatchSlices::share() {
  if (!exchange_) return;
  exchange_->share(arena_.values());
  arena_.values().round_bf16_copy();
}

void BatchSlices::clear() {
  sum_.clear();
  std::fill(momentum_.begin(), momentum_.end(), kNotReached);
  added_ = with_samples_ = 0;
}

}  // namespace retort::nn
