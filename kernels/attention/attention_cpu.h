// One head of one sequence in f32 or bf16, by vectors, on the calling thread. Private to the CPU
// version of attention.
#pragma once
#include "kernels/attention/attention.h"

namespace retort::kernels {

/// Takes thread_space.
void attention_head(const AttentionArgs& args, std::int64_t sequence, std::int64_t head);
void attention_backward_head(const AttentionBackwardArgs& args, std::int64_t sequence,
                             std::int64_t head);

}  // namespace retort::kernels
