#include "bench/cases/cases.h"

namespace retort::bench {

Plan all_cases(Device device, bool smoke) {
  Plan plan;
  plan.device = device;
  plan.smoke = smoke;
  add_distill_loss_cases(plan);
  add_optimizer_cases(plan);
  add_step_cases(plan);
  return plan;
}

}  // namespace retort::bench
