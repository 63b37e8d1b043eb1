#include "kernels/common/parallel.h"
#include "kernels/image_batch/image_batch.h"

namespace retort::kernels {

CudaOp<ImageBatchArgs> image_batch_cuda = nullptr;

namespace {

// Writes one plane of one sample, its elements `channels` apart.
template <class T>
void plane(const std::uint8_t* image, const float* table, T* out, AugmentKey key,
           const ImageBatchArgs& a) {
  for (std::int64_t h = 0; h < a.height; ++h) {
    const std::int64_t from = h + key.dy();
    const bool outside = from < 0 || from >= a.height;
    const std::uint8_t* const row = outside ? nullptr : image + from * a.width;
    T* to = out + h * a.width * a.channels;
    for (std::int64_t w = 0; w < a.width; ++w, to += a.channels) {
      const std::int64_t x = (key.flip() ? a.width - 1 - w : w) + key.dx();
      const std::uint8_t pixel = outside || x < 0 || x >= a.width ? std::uint8_t{0} : row[x];
      *to = from_float<T>(table[pixel]);
    }
  }
}

}  // namespace

void image_batch_cpu(const Context&, const ImageBatchArgs& a) {
  dispatch_float(a.dtype, "image_batch", [&]<class T>() {
    const std::int64_t pixels = a.height * a.width, size = pixels * a.channels;
    parallel_for(a.batch, 1 + 16384 / size, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        const std::uint64_t entry = image_batch_entry(a, b);
        const auto sample = static_cast<std::int64_t>(entry & 0xffffffffu);
        const AugmentKey key{static_cast<std::uint32_t>(entry >> 32)};
        if (a.targets != nullptr) a.targets[b] = a.labels[sample];
        for (std::int64_t c = 0; c < a.channels; ++c) {
          const std::uint8_t* const image = a.images + sample * size + c * pixels;
          plane(image, a.table + c * 256, static_cast<T*>(a.output) + b * size + c, key, a);
          if (a.teacher_table != nullptr)
            plane(image, a.teacher_table + c * 256,
                  static_cast<T*>(a.teacher_output) + b * size + c, key, a);
        }
      }
    });
  });
}

}  // namespace retort::kernels
