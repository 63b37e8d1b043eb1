#include <cstring>

#include "kernels/common/parallel.h"
#include "kernels/shortcut/shortcut.h"

namespace retort::kernels {

CudaOp<ShortcutArgs> shortcut_cuda = nullptr;
CudaOp<ShortcutBackwardArgs> shortcut_backward_cuda = nullptr;

namespace {
// Image rows per chunk, about 128 KiB.
std::int64_t row_grain(std::size_t row_bytes) {
  return static_cast<std::int64_t>(131072 / row_bytes) + 1;
}
}  // namespace

// Only bytes move: a zero is all bits zero in every dtype.
void shortcut_cpu(const Context&, const ShortcutArgs& a) {
  const std::size_t size = size_of(a.dtype);
  const auto bytes = [size](std::int64_t n) { return static_cast<std::size_t>(n) * size; };
  const std::int64_t out_h = (a.height + a.stride - 1) / a.stride;
  const std::int64_t out_w = (a.width + a.stride - 1) / a.stride;
  const std::size_t before = bytes((a.out_channels - a.channels) / 2), copied = bytes(a.channels);
  const std::size_t pixel = bytes(a.out_channels), after = pixel - before - copied;
  parallel_for(a.batch * out_h, row_grain(pixel * static_cast<std::size_t>(out_w)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t row = begin; row < end; ++row) {
                   const std::int64_t n = row / out_h, h = row % out_h * a.stride;
                   char* to = static_cast<char*>(a.y) + bytes(row * out_w * a.out_channels);
                   for (std::int64_t q = 0; q < out_w; ++q, to += pixel) {
                     std::memset(to, 0, before);
                     std::memcpy(
                         to + before,
                         static_cast<const char*>(a.x) +
                             bytes(((n * a.height + h) * a.width + q * a.stride) * a.channels),
                         copied);
                     std::memset(to + before + copied, 0, after);
                   }
                 }
               });
}

void shortcut_backward_cpu(const Context&, const ShortcutBackwardArgs& a) {
  const std::size_t size = size_of(a.dtype);
  const auto bytes = [size](std::int64_t n) { return static_cast<std::size_t>(n) * size; };
  const std::int64_t out_h = (a.height + a.stride - 1) / a.stride;
  const std::int64_t out_w = (a.width + a.stride - 1) / a.stride;
  const std::int64_t before = (a.out_channels - a.channels) / 2;
  const std::size_t pixel = bytes(a.channels);
  parallel_for(a.batch * a.height, row_grain(pixel * static_cast<std::size_t>(a.width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t row = begin; row < end; ++row) {
                   const std::int64_t n = row / a.height, h = row % a.height;
                   char* const to = static_cast<char*>(a.dx) + bytes(row * a.width * a.channels);
                   if (a.stride > 1) std::memset(to, 0, pixel * static_cast<std::size_t>(a.width));
                   if (h % a.stride != 0) continue;
                   const std::int64_t from = (n * out_h + h / a.stride) * out_w;
                   for (std::int64_t q = 0; q < out_w; ++q)
                     std::memcpy(to + bytes(q * a.stride * a.channels),
                                 static_cast<const char*>(a.dy) +
                                     bytes((from + q) * a.out_channels + before),
                                 pixel);
                 }
               });
}

}  // namespace retort::kernels
