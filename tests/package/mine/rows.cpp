#include "mine/rows.h"

#include <algorithm>

#include "curriculum/pacing/pacing.h"
#include "curriculum/scoring/score.h"
#include "distill/losses/divergence.h"
#include "mine/alpha.h"
#include "mine/blobs.h"
#include "mine/logit_mse.h"
#include "mine/skip_net.h"
#include "nn/extension.h"

namespace mine {

std::optional<double> worst_class(const retort::distill::RowRecords& rows) {
  std::vector<double> right(static_cast<std::size_t>(rows.classes)), all(right);
  for (std::size_t i = 0; i < rows.rows(); ++i) {
    const auto target = static_cast<std::size_t>(rows.targets[i]);
    ++all[target];
    right[target] += rows.predictions[i] == rows.targets[i];
  }
  double worst = 1;
  for (std::size_t c = 0; c < all.size(); ++c)
    if (all[c] > 0) worst = std::min(worst, right[c] / all[c]);
  return worst;
}

std::vector<float> odds(const retort::curriculum::SampleStatistics& statistics) {
  std::vector<float> all;
  for (const float p : statistics.max_prob) all.push_back(p / (1 - p));
  return all;
}

double halves(std::int64_t step, std::int64_t total_steps) {
  return 2 * step < total_steps ? 0.5 : 1;
}

void add_rows() {
  retort::nn::model_kinds().add(skip_net_kind());
  retort::nn::data_kinds().add(blobs_kind());
  retort::distill::term_kinds().add(logit_mse_kind());
  // With a .cu file of divergence_cuda<Alpha>() in the library: divergence_kind<Alpha>(that).
  retort::distill::divergence_kinds().add(retort::distill::divergence_kind<Alpha>());
  retort::distill::register_metric({.name = "worst_class",
                                    .doc = "the smallest accuracy of a class",
                                    .unit = retort::distill::Unit::kShare,
                                    .better = retort::distill::Better::kHigher,
                                    .of = worst_class});
  retort::curriculum::score_kinds().add(
      {.names = {"odds"}, .doc = "p / (1 - p) of the largest probability, > 0.", .of = odds});
  retort::curriculum::pacing_kinds().add(
      {.names = {"halves"},
       .doc = "1/2 in the first half of the run, then 1",
       .of_run = true,
       .fraction = [](const retort::nn::Options&, std::int64_t step, std::int64_t total) {
         return halves(step, total);
       }});
}

}  // namespace mine

RETORT_EXTENSION { mine::add_rows(); }
