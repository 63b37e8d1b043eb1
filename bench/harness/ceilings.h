// What the machine gives at best, measured in the same run as the cases.
#pragma once
#include "bench/harness/record.h"
#include "kernels/common/context.h"

namespace retort::bench {

/// About a second (CPU). `smoke`: toy sizes; the numbers then mean nothing.
Ceilings measure_ceilings(Device device, bool smoke);

/// The higher of each: a run measures before and after its cases, so that a busy moment does not
/// make a low roof.
Ceilings higher(const Ceilings& a, const Ceilings& b);

namespace detail {
/// GFLOP/s of independent fused multiply-adds in registers, in this thread; 0 where this processor
/// or build has no such instruction. `scale`: about a millisecond each.
double fma_f32_rate(int scale);
double dot_bf16_rate(int scale);
/// memcpy with stores that bypass the cache.
void streaming_copy(void* to, const void* from, std::size_t bytes);
}  // namespace detail

}  // namespace retort::bench
