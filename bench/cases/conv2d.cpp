// Convolutions and their two gradients, at the layers of ResNet-18 and ResNet-152 on 32 x 32
// images.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/runtime/device.h"
#include "kernels/conv2d/conv2d.h"

namespace retort::bench {
namespace {

using kernels::Conv2dShape;

enum class Pass { kForward, kData, kWeight };
constexpr const char* kPassNames[] = {"conv2d", "conv2d_backward_data", "conv2d_backward_weight"};

struct Images {
  Tensor x, weight, y;  // of one pass, one is the result
};

std::size_t index(const Shape& s, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  return static_cast<std::size_t>(((a * s[1] + b) * s[2] + c) * s[3] + d);
}

// Coordinates of element i of a four-dimensional tensor.
struct Place {
  std::int64_t a, b, c, d;
  Place(const Shape& s, std::int64_t i)
      : a(i / (s[1] * s[2] * s[3])), b(i / (s[2] * s[3]) % s[1]), c(i / s[3] % s[2]), d(i % s[3]) {}
};

// One element of the pass's result in double, by the formulas of kernels/conv2d/conv2d.h.
double element(const Conv2dShape& s, Pass pass, const Images& t, const Host& x, const Host& w,
               const Host& y, std::int64_t i) {
  double sum = 0;
  if (pass == Pass::kForward) {
    const Place at(t.y.shape(), i);  // n, p, q, k
    for (std::int64_t r = 0; r < s.filter_height; ++r)
      for (std::int64_t q = 0; q < s.filter_width; ++q) {
        const std::int64_t h = at.b * s.stride - s.padding + r, v = at.c * s.stride - s.padding + q;
        if (h < 0 || h >= s.height || v < 0 || v >= s.width) continue;
        for (std::int64_t c = 0; c < s.channels; ++c)
          sum += x[index(t.x.shape(), at.a, h, v, c)] * w[index(t.weight.shape(), at.d, r, q, c)];
      }
  } else if (pass == Pass::kData) {
    const Place at(t.x.shape(), i);  // n, h, w, c
    for (std::int64_t r = 0; r < s.filter_height; ++r)
      for (std::int64_t q = 0; q < s.filter_width; ++q) {
        const std::int64_t up = at.b + s.padding - r, left = at.c + s.padding - q;
        if (up < 0 || left < 0 || up % s.stride != 0 || left % s.stride != 0) continue;
        if (up / s.stride >= s.out_height() || left / s.stride >= s.out_width()) continue;
        for (std::int64_t k = 0; k < s.filters; ++k)
          sum += y[index(t.y.shape(), at.a, up / s.stride, left / s.stride, k)] *
                 w[index(t.weight.shape(), k, r, q, at.d)];
      }
  } else {
    const Place at(t.weight.shape(), i);  // k, r, s, c
    for (std::int64_t n = 0; n < s.batch; ++n)
      for (std::int64_t p = 0; p < s.out_height(); ++p)
        for (std::int64_t q = 0; q < s.out_width(); ++q) {
          const std::int64_t h = p * s.stride - s.padding + at.b,
                             v = q * s.stride - s.padding + at.c;
          if (h < 0 || h >= s.height || v < 0 || v >= s.width) continue;
          sum += x[index(t.x.shape(), n, h, v, at.d)] * y[index(t.y.shape(), n, p, q, at.a)];
        }
  }
  return sum;
}

Work make(const Conv2dShape& s, Pass pass, const Case& c) {
  Images t;
  const DType dtype = c.dtype;  // weights stay f32, as in training with bf16 activations
  const auto tensor = [&](const Shape& shape, DType type, std::uint64_t seed, bool result,
                          double scale) {
    return result ? Tensor::empty(shape, type, c.device)
                  : normal(shape, c.seed + seed, type, c.device, scale);
  };
  const double fan = static_cast<double>(s.filter_height * s.filter_width * s.channels);
  t.x = tensor({s.batch, s.height, s.width, s.channels}, dtype, 0, pass == Pass::kData, 1);
  t.weight = tensor({s.filters, s.filter_height, s.filter_width, s.channels}, DType::kF32, 1,
                    pass == Pass::kWeight, std::sqrt(2 / fan));
  t.y = tensor({s.batch, s.out_height(), s.out_width(), s.filters}, dtype, 2,
               pass == Pass::kForward, 1);
  Work w;
  w.run = [=] {
    const Context& context = kernel_context(c.device);
    if (pass == Pass::kForward)
      kernels::conv2d(context, {t.y.raw(), t.x.raw(), t.weight.raw(), s, dtype, DType::kF32});
    else if (pass == Pass::kData)
      kernels::conv2d_backward_data(context,
                                    {t.x.raw(), t.y.raw(), t.weight.raw(), s, dtype, DType::kF32});
    else
      kernels::conv2d_backward_weight(
          context, {t.weight.raw(), t.x.raw(), t.y.raw(), s, dtype, DType::kF32});
  };
  const Tensor result = pass == Pass::kForward ? t.y : pass == Pass::kData ? t.x : t.weight;
  w.outputs = [=] { return std::vector<Tensor>{result}; };
  w.error = [=] {  // 100 elements; of a weight gradient 20, each a sum over all images
    const auto x = Host(t.x), y = Host(t.y), got = Host(result);
    Host weight(t.weight);
    if (dtype == DType::kBF16 && pass != Pass::kWeight)  // rounded first, as the contract says
      weight = Host(t.weight.to(DType::kBF16));
    Error64 e;
    for (const std::int64_t i : sampled(result.numel(), pass == Pass::kWeight ? 20 : 100))
      e.add(got[static_cast<std::size_t>(i)], element(s, pass, t, x, weight, y, i));
    return e.value();
  };
  w.digest = [=] { return std::vector<double>{norm_of(result)}; };
  w.exports = [=] {
    NamedTensors all;
    if (pass != Pass::kData) all.emplace_back("x", t.x.to(Device::kCpu).to(DType::kF32));
    if (pass != Pass::kWeight) all.emplace_back("weight", t.weight.to(Device::kCpu));
    if (pass != Pass::kForward) all.emplace_back("dy", t.y.to(Device::kCpu).to(DType::kF32));
    return all;
  };
  return w;
}

void add(Plan& plan, const Conv2dShape& s, DType dtype) {
  // input side, channels - filters, filter side, stride
  const std::string shape = shape_name(s.batch) + "x" + shape_name(s.height) + "x" +
                            shape_name(s.channels) + "_" + shape_name(s.filters) + "_k" +
                            shape_name(s.filter_height) + "s" + shape_name(s.stride);
  for (const Pass pass : {Pass::kForward, Pass::kData, Pass::kWeight}) {
    if (pass == Pass::kData && s.channels == 3) continue;  // images need no gradient
    Case c;
    c.name = std::string(kPassNames[static_cast<int>(pass)]) + "/" + shape;
    c.dtype = dtype;
    c.matrix = true;
    c.flops = s.flops();
    c.bytes =
        static_cast<double>(s.x_elements() + s.y_elements()) * static_cast<double>(size_of(dtype)) +
        4 * static_cast<double>(s.weight_elements());
    c.working_set = c.bytes;
    c.make = [s, pass](const Case& made) { return make(s, pass, made); };
    plan.add(std::move(c));
  }
}

}  // namespace

void add_conv2d_cases(Plan& plan) {
  std::vector<Conv2dShape> shapes{{2, 5, 5, 3, 4, 3, 3, 1, 1}, {2, 6, 6, 4, 6, 1, 1, 2, 0}};
  if (!plan.smoke) {
    const std::int64_t n = plan.device == Device::kCpu ? 128 : 1024;
    shapes = {{n, 32, 32, 3, 64, 3, 3, 1, 1},     // stem
              {n, 32, 32, 16, 16, 3, 3, 1, 1},    // ResNet-20
              {n, 32, 32, 64, 64, 3, 3, 1, 1},    // stages of ResNet-18
              {n, 16, 16, 128, 128, 3, 3, 1, 1},  //
              {n, 8, 8, 256, 256, 3, 3, 1, 1},    //
              {n, 4, 4, 512, 512, 3, 3, 1, 1},    //
              {n, 32, 32, 64, 128, 3, 3, 2, 1},   // between stages
              {n, 32, 32, 64, 128, 1, 1, 2, 0},   // its shortcut
              {n, 8, 8, 1024, 256, 1, 1, 1, 0},   // bottleneck of ResNet-152
              {n, 8, 8, 256, 1024, 1, 1, 1, 0}};
  }
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Conv2dShape& s : shapes) add(plan, s, dtype);
}

}  // namespace retort::bench
