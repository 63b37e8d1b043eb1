"""Bugs to plant in the convolution kernels. Texts must occur exactly once in their file."""
PROBE = 'tests/mutation/conv2d_probe.cpp'
TILE, IMAGES, WEIGHT, LAUNCH = ('conv2d/conv2d_tile.cuh', 'conv2d/conv2d_images.cuh', 'conv2d/conv2d_weight.cuh',
                                'conv2d/conv2d.cuh')
ORDER = '    __syncthreads();  // tile t has arrived, and tile t - 1 has been read by all\n'
MUTANTS = [
    # barriers
    ('images: no barrier before a tile is read', IMAGES, ORDER, ''),
    ('weight: no barrier before a tile is read', WEIGHT, ORDER, ''),
    ('images: no barrier before the result overlays', IMAGES, '  cp_async_wait<0>();\n  __syncthreads();\n',
     '  cp_async_wait<0>();\n'),
    ('images: no barrier before the result is stored', IMAGES,
     's_out[row * kPitch + column] = from_float<T>(sum); });\n  __syncthreads();',
     's_out[row * kPitch + column] = from_float<T>(sum); });'),
    # the pipeline
    ('images: waits for one tile too few', IMAGES, 'cp_async_wait<kConvStages - 2>()',
     'cp_async_wait<kConvStages - 1>()'),
    ('weight: waits for one tile too few', WEIGHT, 'cp_async_wait<kConvStages - 2>()',
     'cp_async_wait<kConvStages - 1>()'),
    ('images: loads into the tile being read', IMAGES, 'load(t + kConvStages - 1);', 'load(t + kConvStages);'),
    ('images: no commit in the loop', IMAGES,
     'load(t + kConvStages - 1);\n    cp_async_commit();', 'load(t + kConvStages - 1);'),
    # shared memory
    ('no swizzle of 4-chunk rows (right, but slow)', TILE, 'row >> 1 & 3 : row & 7', '0 : row & 7'),
    ('no swizzle of 8-chunk rows (right, but slow)', TILE, 'row >> 1 & 3 : row & 7', 'row >> 1 & 3 : 0'),
    ('swizzle by the wrong bits', TILE, 'row >> 1 & 3 : row & 7', 'row & 3 : row & 7'),
    ('images: shared memory one stage too small', LAUNCH, 'kConvStages * (128 + kColumns) * 64',
     '(kConvStages - 1) * (128 + kColumns) * 64'),
    # fragments
    ('b fragments swapped', TILE, 'mma_bf16_16x8x16(acc[i][j], a[i], b[0], b[1]);',
     'mma_bf16_16x8x16(acc[i][j], a[i], b[1], b[0]);'),
    ('weight: a loaded without .trans', TILE, 'ldmatrix_x4_trans(a[i],', 'ldmatrix_x4(a[i],'),
    ('rows of a fragment off by 8', TILE, 'lane / 4 + (e >> 1) * 8', 'lane / 4 + (1 - (e >> 1)) * 8'),
    # masks
    ('images: padding read at the bottom', IMAGES,
     'const bool inside = k < depth && static_cast<unsigned>(y) < unsigned(p.source_h) &&',
     'const bool inside = k < depth && static_cast<unsigned>(y) <= unsigned(p.source_h) &&'),
    ('images: left edge not checked', IMAGES,
     'const bool inside = static_cast<unsigned>(y) < unsigned(p.source_h) &&\n'
     '                              static_cast<unsigned>(x) < unsigned(p.source_w);',
     'const bool inside = static_cast<unsigned>(y) < unsigned(p.source_h) &&\n'
     '                              x < p.source_w;'),
    ('images: a row past the end is read', IMAGES, 'top[l] = row < rows ?', 'top[l] = row <= rows ?',
     ('plain', 'asan', 'tsan')),
    ('images: one pixel too many is stored', IMAGES, 's_pixel[tid] = row < rows ?', 's_pixel[tid] = row <= rows ?',
     ('plain', 'asan', 'tsan')),
    ('images: columns past the end are loaded', IMAGES, 'k < depth && column0 + column < p.columns;',
     'k < depth;', ('asan', 'plain')),
    ('images: stores past the last column', IMAGES, 'e < kE && column0 + column + e < p.columns', 'e < kE'),
    ('weight: pixels of the next slice are added', WEIGHT,
     'const bool inside = pixel < end && filter < p.filters;', 'const bool inside = filter < p.filters;',
     ('plain', 'asan')),
    ('weight: stores past the last filter', WEIGHT, 'if (filter0 + row < p.filters && column0', 'if (column0'),
    ('vector loads whatever the channels', LAUNCH, 'const bool vector = source_c % kE == 0 && aligned16(source);',
     'const bool vector = aligned16(source);'),
    # indices and scales
    ('images: tap walks backwards in both passes', IMAGES, 'return {out, filter, 0, stride, -padding, 1};',
     'return {out, filter, 0, stride, -padding, -1};'),
    ('images: phase forgets the padding', IMAGES, 'const int first = (phase + padding) % stride;',
     'const int first = phase % stride;'),
    ('images: carry stops after one tap', IMAGES, 'while (channel >= p.source_c && tap_h < h.taps) {',
     'if (channel >= p.source_c && tap_h < h.taps) {'),
    ('weight: stride taken for 1', WEIGHT, 'const int top = i * p.stride - p.padding', 'const int top = i - p.padding'),
    ('weight: a slice is left out of the sum', WEIGHT, 'for (int k = 0; k < slices; ++k) sum',
     'for (int k = 1; k < slices; ++k) sum'),
    ('weight: slices share one block of partial sums', WEIGHT, 'p.parts + std::int64_t{blockIdx.z} *',
     'p.parts + std::int64_t{0} *'),
    ('pack: taps not stepped by the stride', IMAGES, 'h.first_tap + tap / w.taps * by',
     'h.first_tap + tap / w.taps'),
    ('pack: all phases into one', IMAGES, 'p.to[phase * n + i]', 'p.to[i]'),
]
