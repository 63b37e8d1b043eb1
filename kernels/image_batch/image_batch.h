// Makes a batch of network inputs from stored 8-bit images: gather, crop and flip, normalise.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"
#include "kernels/common/philox.h"

namespace retort::kernels {

/// What was done to one sample, packed: bit 0 flip, bits 8-15 dy, bits 16-23 dx (signed bytes).
/// 0 is the image as stored. Equal keys of one sample mean equal pixels, so outputs computed from
/// them may be cached by (sample, key).
struct AugmentKey {
  std::uint32_t bits = 0;

  static RETORT_HD AugmentKey pack(bool flip, int dy, int dx) {
    return {(flip ? 1u : 0u) | (static_cast<std::uint32_t>(dy) & 0xffu) << 8 |
            (static_cast<std::uint32_t>(dx) & 0xffu) << 16};
  }
  RETORT_HD bool flip() const { return (bits & 1u) != 0; }
  RETORT_HD int dy() const { return static_cast<std::int8_t>(bits >> 8 & 0xffu); }
  RETORT_HD int dx() const { return static_cast<std::int8_t>(bits >> 16 & 0xffu); }
};

/// Crop of the image padded by `pad` on each side, at a uniform place, and a flip with probability
/// 1/2: a pure function of (seed, epoch, sample). 0 <= pad <= 127.
RETORT_HD AugmentKey crop_flip_key(std::uint64_t seed, std::uint32_t epoch, std::uint32_t sample,
                                   int pad) {
  constexpr std::uint32_t kPath = path_hash("augment");
  const Philox4 r = philox(seed, 0, sample, epoch, kPath);
  const std::uint32_t places = static_cast<std::uint32_t>(2 * pad + 1);
  return AugmentKey::pack(r.v[0] >> 31 != 0, static_cast<int>(uniform_below(r.v[1], places)) - pad,
                          static_cast<int>(uniform_below(r.v[2], places)) - pad);
}

/// For each entry b with s = sample, k = key, and u the pixel below (0 outside the image):
///
///   u = images[s, c, h + k.dy, (k.flip ? W - 1 - w : w) + k.dx]
///   output[b, h, w, c] = table[c, u]   teacher_output[b, h, w, c] = teacher_table[c, u]
///   targets[b] = labels[s]
///
/// Shapes    images (N, C, H, W) u8, planar as stored; labels (N); entries, targets (B);
///           outputs (B, H, W, C) of `dtype`; tables (C, 256): what each pixel value becomes,
///           so every device gives the same numbers.
/// Units     entries hold sample in the low and the key in the high 32 bits; read on the device.
///           Without entries, entry b is sample order[cursor.begin + b], and its key is
///           crop_flip_key(cursor.seed, cursor.epoch, sample, pad), or 0 for pad < 0: so a captured
///           launch makes another batch when the cursor has moved.
/// Cost      reads B * C * H * W bytes, writes as many elements per output.
/// Errors    Error on null pointers or sizes < 1. Samples outside [0, N) are the caller's to check.
struct ImageCursor {
  std::int64_t begin = 0;  // of the batch in the order
  std::int64_t epoch = 0;
  std::uint64_t seed = 0;
};
struct ImageBatchArgs {
  const std::uint8_t* images;
  const std::int32_t* labels;
  const std::int64_t* entries;  // null: from order and cursor
  const float* table;
  const float* teacher_table;  // null: no second output
  void* output;
  void* teacher_output;
  std::int32_t* targets;  // may be null
  std::int64_t batch;     // B
  std::int64_t count;     // N
  std::int64_t channels, height, width;
  DType dtype;
  const std::uint32_t* order = nullptr;
  const ImageCursor* cursor = nullptr;
  int pad = -1;
};

/// Entry b, packed as in ImageBatchArgs::entries.
RETORT_HD std::uint64_t image_batch_entry(const ImageBatchArgs& a, std::int64_t b) {
  if (a.entries != nullptr) return static_cast<std::uint64_t>(a.entries[b]);
  const std::uint32_t sample = a.order[a.cursor->begin + b];
  if (a.pad < 0) return sample;
  return std::uint64_t{crop_flip_key(a.cursor->seed, static_cast<std::uint32_t>(a.cursor->epoch),
                                     sample, a.pad)
                           .bits}
             << 32 |
         sample;
}

void image_batch_cpu(const Context& context, const ImageBatchArgs& args);
extern CudaOp<ImageBatchArgs> image_batch_cuda;

inline void image_batch(const Context& context, const ImageBatchArgs& a) {
  RETORT_CHECK(a.batch >= 0 && a.count >= 1 && a.channels >= 1 && a.height >= 1 && a.width >= 1,
               "[image_batch] expected sizes >= 1, got ", a.count, " images (", a.channels, ", ",
               a.height, ", ", a.width, ")");
  if (a.batch == 0) return;
  RETORT_CHECK(a.images && a.labels && (a.entries || (a.order && a.cursor)) && a.table &&
                   a.output && (a.teacher_table != nullptr) == (a.teacher_output != nullptr),
               "[image_batch] expected non-null pointers, and teacher table and output together");
  dispatch("image_batch", context, a, image_batch_cpu, image_batch_cuda);
}

}  // namespace retort::kernels
