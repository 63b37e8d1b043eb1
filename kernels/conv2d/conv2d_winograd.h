// Sizes and layouts of the Winograd convolution: what its two files share. Internal to them.
//
// Note [Winograd layouts]
// A tile is 4x4 outputs, which read 6x6 inputs; transformed, both are 36 numbers per channel, and
// the sum over channels becomes 36 independent matrix products. All operands lie in panels of 16
// channels, so that vectors run over channels and no remainder is left:
//   V (36, C/16, tiles, 16)   transformed inputs
//   U (36, K/16, C, 16)       transformed filters
//   M (36, K/16, tiles, 16)   products, transformed back into outputs
//   W (36, K/16, tiles, 16)   transformed gradients of the outputs
// They are made for a few tiles at a time, which stay in a cache.
#pragma once
#include "kernels/conv2d/conv2d_providers.h"

namespace retort::kernels::conv {

constexpr std::int64_t kPanel = 16;  // channels
constexpr std::int64_t kOut = 4, kIn = 6, kPoints = kIn * kIn;
constexpr std::int64_t kTileStep = 8;  // tiles are multiplied in groups of this many

// From one of the 36 points to the next, in floats. One cache line more than the data: the 36
// lines that a transform writes at once would else fall into the same few sets of the cache.
constexpr std::int64_t point_stride(std::int64_t panels, std::int64_t rows) {
  return panels * rows * kPanel + kPanel;
}

// One pass over images: forward, or the gradient of the input seen as a convolution of dy.
struct Images {
  std::int64_t batch, in_h, in_w, in_c, out_h, out_w, out_c, padding;
  std::int64_t tiles_h, tiles_w;
  std::int64_t tiles() const { return tiles_h * tiles_w; }  // of one image
};

// Interpolation points 0, +-a, +-b, infinity.
constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;
// 1 / product of the differences to the other points.
constexpr float kN0 = 1 / (kA2 * kB2), kNa = 1 / (2 * kA2 * (kA2 - kB2)),
                kNb = 1 / (2 * kB2 * (kB2 - kA2));

// The pass over images that `pass` is: forward, or the gradient of the input seen as a convolution
// of dy; a weight gradient reads the images of the forward pass.
inline Images images_of(Pass pass, const Conv2dShape& s) {
  const bool backward = pass == Pass::kBackwardData;
  Images i;
  i.batch = s.batch;
  i.in_h = backward ? s.out_height() : s.height;
  i.in_w = backward ? s.out_width() : s.width;
  i.in_c = backward ? s.filters : s.channels;
  i.out_h = backward ? s.height : s.out_height();
  i.out_w = backward ? s.width : s.out_width();
  i.out_c = backward ? s.channels : s.filters;
  i.padding = backward ? 2 - s.padding : s.padding;
  i.tiles_h = ceil_div(i.out_h, kOut);
  i.tiles_w = ceil_div(i.out_w, kOut);
  return i;
}

// V and another operand for `tiles` tiles, in floats. The last group of tiles may be read past the
// last tile: into numbers that go nowhere.
inline std::size_t space_of(const Images& s, std::int64_t tiles) {
  return static_cast<std::size_t>(
      kPoints * (point_stride(s.in_c / kPanel, tiles) + point_stride(s.out_c / kPanel, tiles)));
}

std::size_t winograd_weight_workspace(const Conv2dShape& shape);

}  // namespace retort::kernels::conv
