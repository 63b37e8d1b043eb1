// Everything of the curriculum room.
#pragma once
#include "curriculum/ordering/order.h"
#include "curriculum/pacing/pacing.h"
#include "curriculum/sampling/permutation.h"
#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/reliance.h"
#include "curriculum/scoring/score.h"
