// Convolutions, with what inference and training do beside them, and their two gradients, at the
// layers of ResNet-18 and ResNet-152 on 32 x 32 images.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/bias.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/device.h"
#include "kernels/conv2d/conv2d_composed.h"

namespace retort::bench {
namespace {

using kernels::Conv2dAlgorithm;
using kernels::Conv2dShape;

enum class Pass { kForward, kData, kWeight };

// Which kernel is timed: a pass, what the forward pass does beside it, and who does it.
struct Variant {
  const char* name;
  Pass pass;
  bool bias = false, residual = false;  // y = relu(sum + bias [+ residual]), as in inference
  bool statistics = false;              // of y, for the batch norm that follows
  Conv2dAlgorithm algorithm = Conv2dAlgorithm::kAuto;
};
constexpr Variant kPasses[] = {{"conv2d", Pass::kForward},
                               {"conv2d_backward_data", Pass::kData},
                               {"conv2d_backward_weight", Pass::kWeight}};
constexpr Variant kExtras[] = {{"conv2d_bias_relu", Pass::kForward, true},
                               {"conv2d_bias_add_relu", Pass::kForward, true, true},
                               {"conv2d_statistics", Pass::kForward, false, false, true}};

struct Images {
  Tensor x, weight, y;  // of one pass, one is the result
  Tensor bias, residual, statistics;
};

// One element of the pass's result in double.
double element(const Conv2dShape& s, Pass pass, const Host& x, const Host& w, const Host& y,
               std::size_t i) {
  switch (pass) {
    case Pass::kForward: return kernels::conv2d_composed(s, x, w, i).value;
    case Pass::kData: return kernels::conv2d_backward_data_composed(s, y, w, i).value;
    case Pass::kWeight: break;
  }
  return kernels::conv2d_backward_weight_composed(s, x, y, i).value;
}

Images make_images(const Conv2dShape& s, const Variant& v, const Case& c) {
  Images t;
  const auto tensor = [&](const Shape& shape, DType type, std::uint64_t seed, bool result,
                          double scale) {
    return result ? Tensor::empty(shape, type, c.device)
                  : normal(shape, c.seed + seed, type, c.device, scale);
  };
  const double fan = static_cast<double>(s.filter_height * s.filter_width * s.channels);
  const Shape out{s.batch, s.out_height(), s.out_width(), s.filters};
  t.x = tensor({s.batch, s.height, s.width, s.channels}, c.dtype, 0, v.pass == Pass::kData, 1);
  // Weights stay f32, as in training with bf16 activations.
  t.weight = tensor({s.filters, s.filter_height, s.filter_width, s.channels}, DType::kF32, 1,
                    v.pass == Pass::kWeight, std::sqrt(2 / fan));
  t.y = tensor(out, c.dtype, 2, v.pass == Pass::kForward, 1);
  if (v.bias) t.bias = normal({s.filters}, c.seed + 3, DType::kF32, c.device);
  if (v.residual) t.residual = normal(out, c.seed + 4, c.dtype, c.device);
  if (v.statistics)
    t.statistics =
        Tensor::empty({kernels::conv2d_statistics_chunks(s, c.device).count, 2, s.filters},
                      DType::kF32, c.device);
  return t;
}

void run(const Conv2dShape& s, const Variant& v, const Images& t, const Case& c) {
  const Context& context = kernel_context(c.device);
  if (v.pass == Pass::kForward) {
    kernels::Conv2dArgs a{t.y.raw(), t.x.raw(), t.weight.raw(), s, c.dtype, DType::kF32};
    if (v.bias) a.epilogue.bias = t.bias.raw();
    if (v.residual) a.epilogue.residual = t.residual.raw();
    a.epilogue.relu = v.bias;
    if (v.statistics) a.statistics = t.statistics.raw();
    a.algorithm = v.algorithm;
    kernels::conv2d(context, a);
  } else if (v.pass == Pass::kData) {
    kernels::conv2d_backward_data(
        context, {t.x.raw(), t.y.raw(), t.weight.raw(), s, c.dtype, DType::kF32, v.algorithm});
  } else {
    kernels::conv2d_backward_weight(
        context, {t.weight.raw(), t.x.raw(), t.y.raw(), s, c.dtype, DType::kF32, v.algorithm});
  }
}

// Mean and centred sum of squares of 3 chunks and 4 filters, of y as it is stored.
double statistics_error(const Conv2dShape& s, const Images& t, Device device) {
  const kernels::Conv2dChunks chunks = kernels::conv2d_statistics_chunks(s, device);
  const Host y(t.y), got(t.statistics);
  const std::int64_t rows = t.y.numel() / s.filters;
  Error64 means, squares;
  for (const std::int64_t i : sampled(chunks.count, 3))
    for (const std::int64_t k : sampled(s.filters, 4)) {
      const std::int64_t begin = i * chunks.rows, end = std::min(rows, begin + chunks.rows);
      const auto value = [&](std::int64_t r) {
        return y[static_cast<std::size_t>(r * s.filters + k)];
      };
      const auto [mean, square] = kernels::moments_composed(begin, end, value);
      means.add(got[static_cast<std::size_t>(2 * i * s.filters + k)], mean);
      squares.add(got[static_cast<std::size_t>((2 * i + 1) * s.filters + k)], square);
    }
  return worse(means.value(), squares.value());
}

// 100 elements of the result; of a weight gradient 20, each a sum over all images.
double error_of(const Conv2dShape& s, const Variant& v, const Images& t, const Case& c) {
  const Tensor result = v.pass == Pass::kForward ? t.y : v.pass == Pass::kData ? t.x : t.weight;
  const auto x = Host(t.x), y = Host(t.y), got = Host(result),
             bias = v.bias ? Host(t.bias) : Host(),
             residual = v.residual ? Host(t.residual) : Host();
  Host weight(t.weight);
  if (c.dtype == DType::kBF16 && v.pass != Pass::kWeight)  // rounded first, as the contract says
    weight = Host(t.weight.to(DType::kBF16));
  Error64 e;
  for (const std::int64_t i : sampled(result.numel(), v.pass == Pass::kWeight ? 20 : 100)) {
    const auto k = static_cast<std::size_t>(i);
    const double sum = element(s, v.pass, x, weight, y, k);
    const double b = v.bias ? bias[k % static_cast<std::size_t>(s.filters)] : 0;
    const double r = v.residual ? residual[k] : 0;
    e.add(got[k], kernels::conv2d_epilogue_composed({sum, 0}, b, r, v.bias).value);
  }
  return v.statistics ? worse(e.value(), statistics_error(s, t, c.device)) : e.value();
}

Work make(const Conv2dShape& s, const Variant& v, const Case& c) {
  const Images t = make_images(s, v, c);
  const Tensor result = v.pass == Pass::kForward ? t.y : v.pass == Pass::kData ? t.x : t.weight;
  Work w;
  w.run = [=] { run(s, v, t, c); };
  if (v.bias)
    w.composed = [=] {
      const NoGrad no_grad;
      const Conv2dOptions options{static_cast<int>(s.stride), static_cast<int>(s.padding)};
      Tensor y = add_bias(conv2d(t.x, t.weight, options), t.bias.to(c.dtype));
      if (v.residual) y = add(y, t.residual);
      static_cast<void>(relu(y));
    };
  w.outputs = [=] {
    return v.statistics ? std::vector<Tensor>{result, t.statistics} : std::vector<Tensor>{result};
  };
  w.error = [=] { return error_of(s, v, t, c); };
  if (v.bias || v.statistics || v.algorithm != Conv2dAlgorithm::kAuto) return w;
  w.digest = [=] { return std::vector<double>{norm_of(result)}; };
  w.exports = [=] {
    NamedTensors all;
    if (v.pass != Pass::kData) all.emplace_back("x", t.x.to(Device::kCpu).to(DType::kF32));
    if (v.pass != Pass::kWeight) all.emplace_back("weight", t.weight.to(Device::kCpu));
    if (v.pass != Pass::kForward) all.emplace_back("dy", t.y.to(Device::kCpu).to(DType::kF32));
    return all;
  };
  return w;
}

void add(Plan& plan, const Conv2dShape& s, const Variant& v, DType dtype) {
  Case c;
  // input side, channels - filters, filter side, stride
  c.name = std::string(v.name) + "/" + shape_name(s.batch) + "x" + shape_name(s.height) + "x" +
           shape_name(s.channels) + "_" + shape_name(s.filters) + "_k" +
           shape_name(s.filter_height) + "s" + shape_name(s.stride);
  c.dtype = dtype;
  c.matrix = true;
  c.flops = s.flops();
  const std::int64_t moved = s.x_elements() + (v.residual ? 2 : 1) * s.y_elements();
  c.bytes = static_cast<double>(moved) * static_cast<double>(size_of(dtype)) +
            4 * static_cast<double>(s.weight_elements() + (v.bias ? s.filters : 0));
  if (v.statistics)
    c.bytes += 8 * static_cast<double>(kernels::conv2d_statistics_chunks(s, plan.device).count *
                                       s.filters);
  c.working_set = c.bytes;
  c.make = [s, v](const Case& made) { return make(s, v, made); };
  plan.add(std::move(c));
}

// The hand-written kernels of CUDA by name; the cases without one take what was measured to be
// best, cuDNN among them.
void add_algorithms(Plan& plan, const Conv2dShape& s) {
  constexpr Variant kOwn[] = {
      {"conv2d_mma", Pass::kForward, false, false, false, Conv2dAlgorithm::kMma},
      {"conv2d_backward_data_mma", Pass::kData, false, false, false, Conv2dAlgorithm::kMma},
      {"conv2d_backward_weight_mma", Pass::kWeight, false, false, false, Conv2dAlgorithm::kMma},
      {"conv2d_wgmma", Pass::kForward, false, false, false, Conv2dAlgorithm::kWgmma},
      {"conv2d_backward_data_wgmma", Pass::kData, false, false, false, Conv2dAlgorithm::kWgmma},
      {"conv2d_backward_weight_wgmma", Pass::kWeight, false, false, false,
       Conv2dAlgorithm::kWgmma}};
  const bool hopper =
      !cuda_available() || cuda_device_info().emulated || cuda_device_info().capability == 90;
  for (const Variant& v : kOwn)
    if (v.algorithm == Conv2dAlgorithm::kMma || hopper) add(plan, s, v, DType::kBF16);
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
    for (const Conv2dShape& s : shapes) {
      for (const Variant& v : kPasses)
        if (v.pass != Pass::kData || s.channels != 3) add(plan, s, v, dtype);  // images need none
      if (plan.smoke || s.channels == 16 || s.channels == 64 || s.channels == 1024)
        for (const Variant& v : kExtras) add(plan, s, v, dtype);
    }
  if (plan.device != Device::kCuda) return;
  if (plan.smoke) shapes = {{1, 3, 3, 64, 64, 1, 1, 1, 0}};
  for (const Conv2dShape& s : shapes)
    if (s.channels % 64 == 0 && s.stride == 1) add_algorithms(plan, s);
}

}  // namespace retort::bench
