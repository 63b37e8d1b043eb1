// Everything of the distill room.
#pragma once
#include "distill/experiments/parity.h"
#include "distill/losses/distillation_loss.h"
#include "distill/losses/projection.h"
#include "distill/metrics/degree_one.h"
#include "distill/metrics/evaluation.h"
#include "distill/schedules/stage.h"
#include "distill/schedules/staged.h"
#include "distill/step.h"
#include "distill/student/initialize.h"
#include "distill/teacher/logit_cache.h"
#include "distill/teacher/preflight.h"
#include "distill/teacher/teacher.h"
