// Everything of the curriculum room.
#pragma once
#include "curriculum/options.h"
#include "curriculum/ordering/order.h"
#include "curriculum/ordering/order_file.h"
#include "curriculum/pacing/pacing.h"
#include "curriculum/sampling/permutation.h"
#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/cutoff.h"
#include "curriculum/schedules/reliance.h"
#include "curriculum/scoring/nan_policy.h"
#include "curriculum/scoring/sample_statistics.h"
#include "curriculum/scoring/score.h"
