#include "nn/optim/batch_slices.h"

#include <algorithm>

#include "engine/runtime/device.h"
#include "kernels/slice_sum/slice_sum.h"

namespace retort::nn {
namespace {

constexpr double kNotReached = -1;

}  // namespace

BatchSlices::BatchSlices(ParameterArena& arena, std::int64_t slices)
    : arena_(arena),
      sum_(slices, slices, arena.values().numel(), arena.values().device()),
      momentum_(arena.statistics().size(), kNotReached) {
  RETORT_CHECK(arena.values().dtype() == DType::kF32,
               "[optimizer] expected f32 parameters for a batch in slices, got ",
               name_of(arena.values().dtype()));
}

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
  if (!has_samples && !momentum_.empty()) statistics_of(arena_.sums_in_place()).fill(0);
  sum_.add(s, 1, arena_.sums());
  arena_.zero_gradients();
  ++added_;
  if (has_samples) ++with_samples_;
}

Tensor BatchSlices::finish() {
  RETORT_CHECK(added_ == count(), "[optimizer] expected all ", count(),
               " slices of a batch before an update, got ", added_);
  total_ = sum_.finish();
  return total_.slice(0, arena_.numel());
}

void BatchSlices::update_statistics(const std::int32_t* skip) {
  const std::vector<ParameterArena::Statistic>& all = arena_.statistics();
  const Tensor& values = arena_.values();
  // One launch for neighbours that were reached: of all, as a rule.
  for (std::size_t first = 0, next; first < all.size(); first = next) {
    next = first + 1;
    if (momentum_[first] == kNotReached) continue;
    while (next < all.size() && momentum_[next] == momentum_[first]) ++next;
    const std::int64_t begin = all[first].offset, end = all[next - 1].end;
    kernels::running_average(
        context_of(values.device()),
        {values.data<float>() + begin, total_.data<float>() + begin, end - begin,
         std::max<std::int64_t>(1, with_samples_), momentum_[first], skip});
    values.slice(begin, end).round_bf16_copy();
  }
  clear();
}

void BatchSlices::clear() {
  sum_.clear();
  std::fill(momentum_.begin(), momentum_.end(), kNotReached);
  added_ = with_samples_ = 0;
}

}  // namespace retort::nn
