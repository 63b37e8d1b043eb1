// What lies between the convolutions of an image network besides batch norm: pooling and the
// parameter-free shortcut; and the kernel that makes a batch from stored images.
#include <limits>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"
#include "kernels/image_batch/image_batch.h"
#include "kernels/pool/pool.h"
#include "kernels/shortcut/shortcut.h"

namespace retort::bench {
namespace {

double size(DType dtype, std::int64_t elements) {
  return static_cast<double>(elements) * static_cast<double>(size_of(dtype));
}

// ------------------------------------------------------------------------------ pooling

struct PoolCase {
  kernels::PoolSizes sizes;
  bool max, backward;
};

Work make_pool(const PoolCase& p, const Case& c) {
  const kernels::PoolSizes& s = p.sizes;
  const Shape in{s.batch, s.height, s.width, s.channels},
      out{s.batch, s.out_height, s.out_width, s.channels};
  const Tensor x = normal(in, c.seed, c.dtype, c.device), y = Tensor::empty(out, c.dtype, c.device),
               winner = Tensor::empty(out, DType::kU8, c.device),
               dy = normal(out, c.seed + 1, c.dtype, c.device),
               dx = Tensor::empty(in, c.dtype, c.device);
  if (p.max)
    kernels::max_pool(context_of(c.device),
                      {x.raw(), y.raw(), winner.data<std::uint8_t>(), s, c.dtype});
  Work w;
  w.run = [=] {
    const Context& context = kernel_context(c.device);
    auto* const won = winner.data<std::uint8_t>();
    if (p.max && !p.backward) kernels::max_pool(context, {x.raw(), y.raw(), won, s, c.dtype});
    if (p.max && p.backward)
      kernels::max_pool_backward(context, {dy.raw(), won, dx.raw(), s, c.dtype});
    if (!p.max && !p.backward) kernels::average_pool(context, {x.raw(), y.raw(), s, c.dtype});
    if (!p.max && p.backward)
      kernels::average_pool_backward(context, {dy.raw(), dx.raw(), s, c.dtype});
  };
  const Tensor result = p.backward ? dx : y;
  const bool chooses = p.max && !p.backward;
  w.outputs = [=] {
    return chooses ? std::vector<Tensor>{y, winner} : std::vector<Tensor>{result};
  };
  w.error = [=] {  // images 0 and B - 1 whole; infinite for a wrong winner
    const auto vx = Host(x), vdy = Host(dy), got = Host(result);
    const std::vector<std::uint8_t> won = winner.to_vector<std::uint8_t>();
    Error64 e;
    for (const std::int64_t n : sampled(s.batch, 2)) {
      std::vector<double> want(static_cast<std::size_t>(result.numel() / s.batch), 0.0);
      const auto in_at = [&](std::int64_t h, std::int64_t v, std::int64_t k) {
        return static_cast<std::size_t>((h * s.width + v) * s.channels + k);
      };
      for (std::int64_t q = 0; q < s.out_height; ++q)
        for (std::int64_t r = 0; r < s.out_width; ++r)
          for (std::int64_t k = 0; k < s.channels; ++k) {
            const auto o = static_cast<std::size_t>((q * s.out_width + r) * s.channels + k);
            const double upstream =
                vdy[static_cast<std::size_t>(n) * static_cast<std::size_t>(dy.numel() / s.batch) +
                    o];
            double most = -1e300, sum = 0;
            std::size_t where = 0;
            int best = 0;
            for (int i = 0; i < s.kernel_h; ++i)
              for (int j = 0; j < s.kernel_w; ++j) {
                const std::int64_t h = q * s.stride - s.padding + i,
                                   v = r * s.stride - s.padding + j;
                if (h < 0 || h >= s.height || v < 0 || v >= s.width) continue;
                const double value =
                    vx[static_cast<std::size_t>(n) * static_cast<std::size_t>(x.numel() / s.batch) +
                       in_at(h, v, k)];
                sum += value;
                if (value > most) most = value, where = in_at(h, v, k), best = i * s.kernel_w + j;
                if (!p.max && p.backward)
                  want[in_at(h, v, k)] += upstream / (s.kernel_h * s.kernel_w);
              }
            if (!p.backward) want[o] = p.max ? most : sum / (s.kernel_h * s.kernel_w);
            if (p.max && p.backward) want[where] += upstream;
            const std::size_t outputs = static_cast<std::size_t>(y.numel() / s.batch);
            if (chooses && won[static_cast<std::size_t>(n) * outputs + o] != best)
              return std::numeric_limits<double>::infinity();
          }
      for (std::size_t i = 0; i < want.size(); ++i)
        e.add(got[static_cast<std::size_t>(n) * want.size() + i], want[i]);
    }
    return e.value();
  };
  return w;
}

void add_pools(Plan& plan, DType dtype) {
  const std::int64_t batch = plan.pick<std::int64_t>(2, 128, 1024);
  const std::int64_t side = plan.pick<std::int64_t>(6, 32, 32),
                     channels = plan.pick<std::int64_t>(3, 64, 64);
  const kernels::PoolSizes window{batch, side, side, channels, side / 2, side / 2, 3, 3, 2, 1};
  const int whole = plan.smoke ? 4 : 8;
  const kernels::PoolSizes global{batch, whole, whole, channels, 1, 1, whole, whole, 1, 0};
  for (const bool backward : {false, true}) {
    const std::string end = std::string(backward ? "_backward/" : "/");
    const auto add = [&](const char* name, const kernels::PoolSizes& s, bool max) {
      const std::int64_t in = s.batch * s.height * s.width * s.channels,
                         out = s.batch * s.out_height * s.out_width * s.channels;
      plan.add(name + end + shape_name(s.batch, s.height, s.channels), dtype,
               size(dtype, in + out) + (max ? static_cast<double>(out) : 0),
               static_cast<double>(max && backward ? out : out * s.kernel_h * s.kernel_w),
               [p = PoolCase{s, max, backward}](const Case& c) { return make_pool(p, c); });
    };
    add("max_pool_3x3_s2", window, true);
    add("average_pool_3x3_s2", window, false);
    add("global_average_pool", global, false);
  }
}

// ------------------------------------------------------------------------------ shortcut

Work make_shortcut(std::int64_t batch, std::int64_t side, std::int64_t channels, bool backward,
                   const Case& c) {
  const std::int64_t half = side / 2, wide = 2 * channels, before = channels / 2;
  const Shape in{batch, side, side, channels}, out{batch, half, half, wide};
  const Tensor from = normal(backward ? out : in, c.seed, c.dtype, c.device),
               to = Tensor::empty(backward ? in : out, c.dtype, c.device);
  Work w;
  w.run = [=] {
    const Context& context = kernel_context(c.device);
    if (backward)
      kernels::shortcut_backward(
          context, {from.raw(), to.raw(), batch, side, side, channels, wide, 2, c.dtype});
    else
      kernels::shortcut(context,
                        {from.raw(), to.raw(), batch, side, side, channels, wide, 2, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{to}; };
  w.error = [=] {
    const auto a = Host(from), b = Host(to);
    const auto place = [](const Shape& s, std::int64_t n, std::int64_t h, std::int64_t v,
                          std::int64_t k) {
      return static_cast<std::size_t>(((n * s[1] + h) * s[2] + v) * s[3] + k);
    };
    Error64 e;
    for (const std::int64_t i : sampled(to.numel(), 20000)) {
      const Shape& s = to.shape();
      const std::int64_t k = i % s[3], v = i / s[3] % s[2], h = i / (s[3] * s[2]) % s[1],
                         n = i / (s[3] * s[2] * s[1]);
      double want = 0;
      if (backward) {
        if (h % 2 == 0 && v % 2 == 0) want = a[place(out, n, h / 2, v / 2, before + k)];
      } else if (k >= before && k < before + channels) {
        want = a[place(in, n, 2 * h, 2 * v, k - before)];
      }
      e.add(b[static_cast<std::size_t>(i)], want);
    }
    return e.value();
  };
  return w;
}

void add_shortcuts(Plan& plan, DType dtype) {
  const std::int64_t batch = plan.pick<std::int64_t>(2, 128, 1024),
                     side = plan.pick<std::int64_t>(4, 32, 32),
                     channels = plan.pick<std::int64_t>(2, 16, 16);
  const std::int64_t in = batch * side * side * channels;
  for (const bool backward : {false, true})
    // A quarter of the input counts; of the gradient of the padding nothing.
    plan.add(std::string(backward ? "shortcut_a_backward/" : "shortcut_a/") +
                 shape_name(batch, side, channels),
             dtype, size(dtype, in / 4 + (backward ? in : in / 2)), 0,
             [=](const Case& c) { return make_shortcut(batch, side, channels, backward, c); });
}

// ------------------------------------------------------------------------------ batch of images

Work make_image_batch(std::int64_t batch, std::int64_t count, std::int64_t side, bool teacher,
                      const Case& c) {
  constexpr std::int64_t kChannels = 3, kValues = 256;
  const std::int64_t pixels = kChannels * side * side;
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(count * pixels));
  for (std::size_t i = 0; i < stored.size(); ++i)
    stored[i] = static_cast<std::uint8_t>(
        philox(c.seed, static_cast<std::uint32_t>(i / 4), 0, 0, path_hash("pixels")).v[i % 4]);
  std::vector<std::int32_t> label(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < label.size(); ++i) label[i] = static_cast<std::int32_t>(i % 10);
  std::vector<std::int64_t> entry;
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto sample =
        static_cast<std::uint32_t>((b * 7919 + static_cast<std::int64_t>(c.seed)) % count);
    const std::uint64_t key = kernels::crop_flip_key(c.seed, 0, sample, 4).bits;
    entry.push_back(static_cast<std::int64_t>(key << 32 | sample));
  }
  std::vector<float> value;
  for (std::int64_t i = 0; i < kChannels * kValues; ++i)
    value.push_back(static_cast<float>(i % kValues) / 255.0f - 0.5f);
  // The teacher's table is another, so that one output in the other's place shows.
  const auto second_of = [](float x) { return static_cast<double>(0.5f * x + 1); };
  std::vector<float> second_value;
  for (const float x : value) second_value.push_back(static_cast<float>(second_of(x)));
  const Tensor images = Tensor::from(stored, {count, kChannels, side, side}, c.device),
               labels = Tensor::from(label, {count}, c.device),
               entries = Tensor::from(entry, {batch}, c.device),
               table = Tensor::from(value, {kChannels, kValues}, c.device),
               second_table = Tensor::from(second_value, {kChannels, kValues}, c.device),
               output = Tensor::empty({batch, side, side, kChannels}, c.dtype, c.device),
               second = teacher ? Tensor::empty({batch, side, side, kChannels}, c.dtype, c.device)
                                : Tensor(),
               targets = Tensor::empty({batch}, DType::kI32, c.device);
  Work w;
  w.run = [=] {
    kernels::ImageBatchArgs a{};
    a.images = images.data<std::uint8_t>(), a.labels = labels.data<std::int32_t>();
    a.entries = entries.data<std::int64_t>(), a.table = table.data<float>();
    a.output = output.raw(), a.targets = targets.data<std::int32_t>();
    if (teacher) a.teacher_table = second_table.data<float>(), a.teacher_output = second.raw();
    a.batch = batch, a.count = count, a.channels = kChannels, a.height = a.width = side;
    a.dtype = c.dtype;
    kernels::image_batch(kernel_context(c.device), a);
  };
  w.outputs = [=] {
    std::vector<Tensor> all{output, targets};
    if (teacher) all.push_back(second);
    return all;
  };
  w.error = [=] {
    const auto got = Host(output), got_second = teacher ? Host(second) : Host();
    Error64 e;
    const std::vector<std::int32_t> classes = targets.to_vector<std::int32_t>();
    for (std::size_t b = 0; b < classes.size(); ++b)
      if (classes[b] != label[static_cast<std::size_t>(entry[b] & 0xffffffff)])
        return std::numeric_limits<double>::infinity();
    for (const std::int64_t i : sampled(output.numel(), 20000)) {
      const std::int64_t k = i % kChannels, v = i / kChannels % side,
                         h = i / (kChannels * side) % side, b = i / pixels,
                         at = entry[static_cast<std::size_t>(b)];
      const kernels::AugmentKey key{static_cast<std::uint32_t>(at >> 32)};
      const std::int64_t sample = at & 0xffffffff, row = h + key.dy(),
                         column = (key.flip() ? side - 1 - v : v) + key.dx();
      const bool inside = row >= 0 && row < side && column >= 0 && column < side;
      const std::size_t pixel = inside
                                    ? stored[static_cast<std::size_t>(
                                          ((sample * kChannels + k) * side + row) * side + column)]
                                    : 0;
      const std::size_t place = static_cast<std::size_t>(k * kValues) + pixel;
      e.add(got[static_cast<std::size_t>(i)], static_cast<double>(value[place]));
      if (teacher) e.add(got_second[static_cast<std::size_t>(i)], second_of(value[place]));
    }
    return e.value();
  };
  return w;
}

void add_image_batches(Plan& plan, DType dtype) {
  const std::int64_t batch = plan.pick<std::int64_t>(3, 128, 1024),
                     count = plan.pick<std::int64_t>(7, 10000, 50000),
                     side = plan.pick<std::int64_t>(5, 32, 32);
  for (const bool teacher : {false, true}) {
    const std::int64_t pixels = batch * 3 * side * side;
    plan.add(std::string(teacher ? "image_batch_two/" : "image_batch/") + shape_name(batch, side),
             dtype, static_cast<double>(pixels) + (teacher ? 2 : 1) * size(dtype, pixels), 0,
             [=](const Case& c) { return make_image_batch(batch, count, side, teacher, c); });
  }
}

}  // namespace

void add_image_cases(Plan& plan) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    add_pools(plan, dtype);
    add_shortcuts(plan, dtype);
    add_image_batches(plan, dtype);
  }
}

}  // namespace retort::bench
