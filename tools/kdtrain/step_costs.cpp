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
  if (ranks_ != nullptr) {
    line->set("ranks", static_cast<std::int64_t>(ranks_->size()));
    line->set("share_exchange", rounded(std::min(1.0, exchange_s_ / elapsed), 1e-4));
  }
  timer_.clear();
  samples_ = 0;
  start();
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
