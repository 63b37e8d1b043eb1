// The table of contents: one function per op family, each in its own file. It adds its cases for
// the plan's device.
#pragma once
#include "bench/harness/case.h"

namespace retort::bench {

void add_distill_loss_cases(Plan& plan);
void add_optimizer_cases(Plan& plan);  // sgd, adamw, grad_norm
void add_step_cases(Plan& plan);       // whole steps of models

/// All of them, for one device.
Plan all_cases(Device device, bool smoke);

}  // namespace retort::bench
