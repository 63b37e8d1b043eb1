// The gradient norm's kernels on the emulator, against sums in double: a plain program, built with a
// fault planted by tests/mutation/mutate.py and by itself as a test. The one kernel in which the last
// block to be done reads what the others wrote: its fences are ThreadSanitizer's to see.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/grad_norm/grad_norm.cuh"
#include "kernels/simt/emu.h"

namespace retort::kernels {
namespace {

void expect(bool ok, const char* what, std::size_t segments, bool ticket) {
  if (ok) return;
  std::printf("FAIL %s: %zu segments, ticket %d\n", what, segments, ticket);
  std::exit(1);
}

struct HostScratch final : Scratch {
  std::vector<std::unique_ptr<double[]>> blocks;
  void* get(std::size_t bytes) override {
    blocks.push_back(std::make_unique<double[]>(bytes / sizeof(double)));
    std::fill_n(blocks.back().get(), bytes / sizeof(double), std::nan(""));
    return blocks.back().get();
  }
};

// Segments end to end, the first one `offset` floats behind a multiple of 16 bytes; each memory
// block ends with its segments.
void probe(const std::vector<std::int64_t>& sizes, std::int64_t offset, bool with_ticket) {
  std::int64_t total = offset;
  for (const std::int64_t n : sizes) total += n;
  std::vector<float> values(static_cast<std::size_t>(total));
  double squares = 0;
  for (std::int64_t i = 0; i < total; ++i) {
    values[static_cast<std::size_t>(i)] = static_cast<float>(i % 13 - 6) * 0.25f;
    if (i >= offset) squares += std::pow(values[static_cast<std::size_t>(i)], 2);
  }
  std::vector<GradientSegment> segments;
  const float* at = values.data() + offset;
  for (const std::int64_t n : sizes) segments.push_back({at, n}), at += n;
  std::uint32_t ticket = 0;
  for (const auto schedule : {simt::emu::Schedule::forward, simt::emu::Schedule::reverse}) {
    simt::emu::config().schedule = schedule;
    float norm = -1, clip = -1;
    std::int32_t not_finite = -1;
    HostScratch scratch;
    const Context context{Device::kCuda, nullptr, nullptr, &scratch, false};
    GradNormArgs a;
    a.segments = segments;
    a.norm = &norm, a.clip = &clip, a.not_finite = &not_finite;
    a.max_norm = 1;
    if (with_ticket) a.ticket = &ticket;
    grad_norm_launch(context, a);
    const double want = std::sqrt(squares);
    expect(std::abs(norm - want) <= 1e-6 * want, "norm", sizes.size(), with_ticket);
    expect(std::abs(clip * (want + 1e-6) - 1) <= 1e-6, "clip", sizes.size(), with_ticket);
    expect(not_finite == 0 && ticket == 0, "flag or ticket", sizes.size(), with_ticket);
  }
}

}  // namespace
}  // namespace retort::kernels

int main() {
  using retort::kernels::probe;
  for (const bool ticket : {true, false}) {
    probe({16384, 1, 16385, 40003, 7}, 0, ticket);
    probe({30000, 3}, 1, ticket);
    probe(std::vector<std::int64_t>(70, 5), 0, ticket);  // more segments than one launch takes
  }
  std::puts("all right");
}
