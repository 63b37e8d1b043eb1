#include "bench/cases/cases.h"

#include <algorithm>
#include <map>

namespace retort::bench {
namespace {

// A run with a budget ends somewhere in the list. On a GPU, which is lent for minutes, first come
// the goals, then the kernels by turns: the first case of each, the second of each. The divergences
// are one kernel six times, and whole steps are step_bench's: they come last.
void order_for_a_budget(std::vector<Case>& cases) {
  std::map<std::string, int> seen;
  std::vector<std::pair<int, Case>> ranked;
  for (Case& c : cases) {
    constexpr int kDivergences = 1 << 20, kSteps = kDivergences + 1;
    const bool divergence =
        c.name.rfind("distill_loss/", 0) == 0 && c.name.rfind("distill_loss/forward_kl", 0) != 0;
    const int rank = c.goal       ? -1
                     : c.step     ? kSteps
                     : divergence ? kDivergences
                                  : seen[c.name.substr(0, c.name.rfind('/'))]++;
    ranked.emplace_back(rank, std::move(c));
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < ranked.size(); ++i) cases[i] = std::move(ranked[i].second);
}

}  // namespace

Plan all_cases(Device device, bool smoke) {
  Plan plan;
  plan.device = device;
  plan.smoke = smoke;
  add_distill_loss_cases(plan);
  add_optimizer_cases(plan);
  add_step_statistics_cases(plan);
  add_step_cases(plan);
  add_copy_cases(plan);
  add_gemm_cases(plan);
  add_conv2d_cases(plan);
  add_batch_norm_cases(plan);
  add_attention_cases(plan);
  add_layer_norm_cases(plan);
  add_image_cases(plan);
  add_row_cases(plan);
  add_indexed_row_cases(plan);
  add_vocabulary_cases(plan);
  add_elementwise_cases(plan);
  if (device == Device::kCuda) order_for_a_budget(plan.cases);
  return plan;
}

}  // namespace retort::bench
