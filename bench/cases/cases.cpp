#include "bench/cases/cases.h"

namespace retort::bench {

Plan all_cases(Device device, bool smoke) {
  Plan plan;
  plan.device = device;
  plan.smoke = smoke;
  // What a run on a budget should not miss comes first.
  add_distill_loss_cases(plan);
  add_optimizer_cases(plan);
  add_step_cases(plan);
  add_copy_cases(plan);
  add_gemm_cases(plan);
  add_conv2d_cases(plan);
  add_batch_norm_cases(plan);
  add_image_cases(plan);
  add_row_cases(plan);
  add_elementwise_cases(plan);
  return plan;
}

}  // namespace retort::bench
