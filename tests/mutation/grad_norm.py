"""Bugs to plant in the gradient norm's kernels. Texts must occur exactly once in their file."""
PROBE = 'tests/mutation/grad_norm_probe.cpp'
KERNEL = 'grad_norm/grad_norm.cuh'
MUTANTS = [
    # what the last block to be done reads
    ('no fence before the count', KERNEL, '    __threadfence();  // the partial', '    // the partial', ('plain', 'tsan')),
    ('a fence of the block before the count', KERNEL, '__threadfence();  // the partial', '__threadfence_block();  // the partial',
     ('plain', 'tsan')),
    ('no fence after the count', KERNEL, 'gridDim.x - 1;\n    __threadfence();', 'gridDim.x - 1;', ('plain', 'tsan')),
    ('no barrier after the count', KERNEL, '  __syncthreads();\n  if (is_last[0] == 0)', '  if (is_last[0] == 0)', ('plain', 'tsan')),
    ('the last but one finishes', KERNEL, '== gridDim.x - 1', '== gridDim.x - 2'),
    ('the ticket keeps its count', KERNEL, '  if (threadIdx.x == 0) *out.ticket = 0;\n', ''),
    # sizes and places
    ('the rest of a chunk is left out', KERNEL, 'done = n / kPack * kPack;', 'done = n;'),
    ('a chunk of a segment that has ended', KERNEL, 'left < kNormChunk ? left : kNormChunk', 'kNormChunk', ('plain', 'asan')),
    ('the segment before', KERNEL, '<= blockIdx.x', '< blockIdx.x'),
    ('16-byte loads at any address', KERNEL, 'reinterpret_cast<std::uintptr_t>(x) % 16 == 0', 'true', ('plain', 'asan')),
    ('the first launch of many segments finishes', KERNEL, 'filled > 0 && filled <= kNormSegments ?', 'filled > 0 ?'),
]
