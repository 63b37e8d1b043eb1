// CUDA kernel of image_batch and its launch configuration.
#pragma once
#include "kernels/image_batch/image_batch.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;

// One thread per output pixel (b, h, w), all channels: a warp reads runs of each plane and writes
// one run of the output. The tables stay in the first cache.
// Shared: none. Launch: block 256, grid-stride.
template <class T>
__global__ void __launch_bounds__(256) image_batch_thread_per_pixel_kernel(ImageBatchArgs a) {
  const std::int64_t pixels = a.height * a.width, total = a.batch * pixels;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 1
  for (std::int64_t o = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; o < total; o += step) {
    const std::int64_t b = o / pixels, h = o % pixels / a.width, w = o % a.width;
    const std::uint64_t entry = image_batch_entry(a, b);
    const std::int64_t sample = static_cast<std::int64_t>(entry & 0xffffffffu);
    const AugmentKey key{static_cast<std::uint32_t>(entry >> 32)};
    const std::int64_t y = h + key.dy(), x = (key.flip() ? a.width - 1 - w : w) + key.dx();
    const bool inside = y >= 0 && y < a.height && x >= 0 && x < a.width;
    const std::int64_t at = sample * a.channels * pixels + y * a.width + x;
    for (std::int64_t c = 0; c < a.channels; ++c) {
      const int pixel = inside ? a.images[at + c * pixels] : 0;
      static_cast<T*>(a.output)[o * a.channels + c] = from_float<T>(a.table[c * 256 + pixel]);
      if (a.teacher_table != nullptr)
        static_cast<T*>(a.teacher_output)[o * a.channels + c] =
            from_float<T>(a.teacher_table[c * 256 + pixel]);
    }
    if (h == 0 && w == 0 && a.targets != nullptr) a.targets[b] = a.labels[sample];
  }
}

}  // namespace SIMT_NS

inline void image_batch_launch(const Context& context, const ImageBatchArgs& args) {
  using namespace SIMT_NS;
  const std::int64_t blocks = (args.batch * args.height * args.width + 255) / 256;
  dispatch_float(args.dtype, "image_batch", [&]<class T>() {
    simt::launch({"image_batch", dim3(static_cast<unsigned>(blocks < 65536 ? blocks : 65536)),
                  dim3(256), 0, static_cast<cudaStream_t>(context.stream)},
                 image_batch_thread_per_pixel_kernel<T>, args);
  });
}

}  // namespace retort::kernels
