#include "tools/kdtrain/step_costs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace retort::tools {
namespace {

using distill::Phase;

// In the order of the flow.
constexpr Phase kOrder[] = {Phase::kData, Phase::kTeacher,  Phase::kStudent,
                            Phase::kLoss, Phase::kBackward, Phase::kUpdate};

double rounded(double value, double unit) { return std::round(value / unit) * unit; }

}  // namespace

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / 1048576.0; }

void StepCosts::start() {
  begin_ = Clock::now();
  exchange_s_ = 0;
  if (ranks_ != nullptr) seconds_ = ranks_->seconds();
}

void StepCosts::add(std::int64_t samples) {
  samples_ += samples;
  if (ranks_ != nullptr)
    exchange_s_ += ranks_->seconds() - std::exchange(seconds_, ranks_->seconds());
}

void StepCosts::leave_out(Clock::time_point begin) {
  begin_ += Clock::now() - begin;
  if (ranks_ != nullptr) seconds_ = ranks_->seconds();
}

void StepCosts::log(Json* line) {
  const double elapsed = std::max(seconds_since(begin_), 1e-9);
  const double rate = std::round(static_cast<double>(samples_) / elapsed);
  line->set("samples_per_s", rate);
  char text[64];
  std::snprintf(text, sizeof text, "%.0f samples/s", rate);
  text_ = text;
  if (timer_.on()) {
    const char* separator = ": ";
    for (const Phase phase : kOrder) {
      const double share = std::min(1.0, timer_.seconds(phase) / elapsed);
      line->set(std::string("share_") + name_of(phase), rounded(share, 1e-4));
      if (timer_.seconds(phase) == 0) continue;  // no teacher
      std::snprintf(text, sizeof text, "%s%s %.*f", separator, name_of(phase),
                    share < 0.0995 ? 1 : 0, 100 * share);
      text_ += text;
      separator = ", ";
    }
    text_ += " %";
  }
  own_s_ = std::max(0.0, elapsed - exchange_s_);
  if (ranks_ != nullptr) {
    line->set("ranks", static_cast<std::int64_t>(ranks_->size()));
    line->set("share_exchange", rounded(std::min(1.0, exchange_s_ / elapsed), 1e-4));
  }
  timer_.clear();
  samples_ = 0;
  start();
}

std::optional<std::pair<int, std::string>> SlowRank::look(const std::vector<double>& seconds) {
  constexpr double kRatio = 1.5, kSeconds = 1, kWindow = 60;
  sums_.resize(seconds.size());
  for (std::size_t r = 0; r < seconds.size(); ++r) sums_[r] += seconds[r];
  std::vector<double> sorted = sums_;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[(sorted.size() - 1) / 2], most = sorted.back();
  if (most < kRatio * median || most - median < kSeconds) {
    if (median > kWindow) sums_.assign(sums_.size(), 0);  // a rank may become slow later
    return std::nullopt;
  }
  const int rank = static_cast<int>(std::find(sums_.begin(), sums_.end(), most) - sums_.begin());
  sums_.assign(sums_.size(), 0);  // from here on anew: it may be another's turn
  if (!told_.insert(rank).second) return std::nullopt;
  char text[80];
  std::snprintf(text, sizeof text, "computes %.1f times as long as the median of the ranks",
                most / std::max(median, 1e-3));
  return std::pair(rank, std::string(text));
}

void log_memory(Json* line, const MemoryStatistics& memory) {
  line->set("memory_mib", rounded(mebibytes(memory.peak_bytes), 1e-3));
  for (int i = 0; i < kMemoryRoles; ++i)
    line->set(std::string("memory_") + name_of(static_cast<MemoryRole>(i)) + "_mib",
              rounded(mebibytes(memory.peak_by_role[static_cast<std::size_t>(i)]), 1e-3));
}

std::string memory_text(const MemoryStatistics& memory) {
  char text[64];
  std::snprintf(text, sizeof text, "peak %.1f MiB (", mebibytes(memory.peak_bytes));
  std::string out = text;
  for (int i = 0; i < kMemoryRoles; ++i) {
    std::snprintf(text, sizeof text, "%s%s %.1f", i ? ", " : "",
                  name_of(static_cast<MemoryRole>(i)),
                  mebibytes(memory.peak_by_role[static_cast<std::size_t>(i)]));
    out += text;
  }
  return out + ")";
}

}  // namespace retort::tools
