#include "mine/logit_mse.h"

#include "engine/ops/cast.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace mine {

using namespace retort::distill;
using retort::DType;
using retort::Tensor;

TermLoss LogitMse::operator()(const retort::nn::Outputs& student,
                              std::span<const retort::nn::Outputs> teachers,
                              const Rows& rows) const {
  RETORT_CHECK(teachers.size() == 1, "[logit_mse] expected one teacher, got ", teachers.size());
  const Tensor difference = subtract(cast(student.logits, DType::kF32),
                                     teachers[0].logits.detach().to(DType::kF32));  // (N, V)
  const Tensor total = scale(mean(square(difference)), rows.share);
  return {total, {{"loss_logit_mse", total.detach(), Per::kStep}}};
}

TermKind logit_mse_kind() {
  return {.names = {"logit_mse"},
          .doc = "mean squared difference of the logits",
          .make = [](const TermConfig&) -> std::shared_ptr<Term> {
            return std::make_shared<LogitMse>();
          }};
}

}  // namespace mine
