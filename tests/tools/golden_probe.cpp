#include "tests/tools/golden_probe.h"

#include <gnu/libc-version.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "engine/io/file.h"
#include "engine/runtime/device.h"
#include "engine/tensor/tensor.h"
#include "kernels/adamw/adamw.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/distill_loss/distill_loss.h"
#include "kernels/gemm/gemm.h"
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/random/random.h"
#include "kernels/sgd/sgd.h"
#include "kernels/softmax/softmax.h"

namespace retort::tools {
namespace {

class Probe {
 public:
  explicit Probe(Device device) : context_(context_of(device)) {}

  std::string result() const { return hasher_.hex().substr(0, 16); }

  Tensor normal(const Shape& shape, DType dtype = DType::kF32, double scale = 1) {
    const Tensor t = Tensor::empty(shape, dtype);
    kernels::random(context_, {.kind = kernels::Random::kNormal,
                               .y = t.raw(),
                               .n = shape.numel(),
                               .a = 0,
                               .b = scale,
                               .seed = ++seed_,
                               .dtype = dtype});
    return t;
  }

  void product(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, DType dtype) {
    const Tensor a = normal({ta ? k : m, ta ? m : k}, dtype);
    const Tensor b = normal({tb ? n : k, tb ? k : n}, dtype);
    const Tensor c = Tensor::zeros({m, n}, dtype), bias = normal({n}, dtype);
    kernels::GemmArgs args{c.raw(), a.raw(), b.raw(), m, n, k, a.dim(1), b.dim(1), n};
    args.transpose_a = ta;
    args.transpose_b = tb;
    args.dtype = dtype;
    args.bias = bias.raw();
    args.activation = n > 10 ? kernels::Activation::kRelu : kernels::Activation::kNone;
    kernels::gemm(context_, args);
    add(c);
  }

  void convolution(const kernels::Conv2dShape& s, DType dtype) {
    const Shape y_shape{s.batch, s.out_height(), s.out_width(), s.filters};
    const Shape w_shape{s.filters, s.filter_height, s.filter_width, s.channels};
    const Tensor x = normal({s.batch, s.height, s.width, s.channels}, dtype);
    const Tensor w = normal(w_shape, DType::kF32, 0.1), dy = normal(y_shape, dtype);
    const Tensor y = Tensor::zeros(y_shape, dtype), dx = Tensor::zeros(x.shape(), dtype);
    const Tensor dw = Tensor::zeros(w_shape, DType::kF32);
    const kernels::Conv2dChunks chunks = kernels::conv2d_statistics_chunks(s, Device::kCpu);
    const Tensor statistics = Tensor::zeros({chunks.count, 2, s.filters});
    kernels::conv2d(context_, {.y = y.raw(),
                               .x = x.raw(),
                               .weight = w.raw(),
                               .shape = s,
                               .dtype = dtype,
                               .weight_dtype = DType::kF32,
                               .statistics = statistics.raw()});
    kernels::conv2d_backward_data(context_, {dx.raw(), dy.raw(), w.raw(), s, dtype, DType::kF32});
    kernels::conv2d_backward_weight(context_, {dw.raw(), x.raw(), dy.raw(), s, dtype, DType::kF32});
    for (const Tensor& t : {y, statistics, dx, dw}) add(t);
    normalisation(y, chunks.rows, statistics);
  }

  void normalisation(const Tensor& x, std::int64_t statistics_rows, const Tensor& statistics) {
    const std::int64_t c = x.dim(-1), rows = x.numel() / c;
    const Tensor weight = normal({c}), bias = normal({c}), running = Tensor::full({2, c}, 1.0);
    const Tensor moments = Tensor::zeros({2, c}), gradients = Tensor::zeros({2, c});
    const Tensor y = Tensor::zeros(x.shape(), x.dtype()), dx = Tensor::zeros(x.shape(), x.dtype());
    const Tensor dy = normal(x.shape(), x.dtype());
    const auto second = [c](const Tensor& t) { return t.data<float>() + c; };
    for (const bool training : {true, false})
      for (const bool given : {false, true}) {
        if (given && !training) continue;
        kernels::batch_norm(context_, {.x = x.raw(),
                                       .residual = nullptr,
                                       .y = y.raw(),
                                       .weight = weight.raw(),
                                       .bias = bias.raw(),
                                       .running_mean = running.raw(),
                                       .running_var = second(running),
                                       .mean = moments.raw(),
                                       .rstd = second(moments),
                                       .rows = rows,
                                       .channels = c,
                                       .momentum = 0.1,
                                       .epsilon = 1e-5,
                                       .training = training,
                                       .relu = true,
                                       .dtype = x.dtype(),
                                       .statistics = given ? statistics.raw() : nullptr,
                                       .statistics_rows = given ? statistics_rows : 0});
        kernels::batch_norm_backward(context_, {.dy = dy.raw(),
                                                .x = x.raw(),
                                                .y = nullptr,
                                                .weight = weight.raw(),
                                                .bias = bias.raw(),
                                                .mean = moments.raw(),
                                                .rstd = second(moments),
                                                .dx = dx.raw(),
                                                .dresidual = nullptr,
                                                .dweight = gradients.raw(),
                                                .dbias = second(gradients),
                                                .rows = rows,
                                                .channels = c,
                                                .training = training,
                                                .relu = true,
                                                .dtype = x.dtype()});
        for (const Tensor& t : {y, running, moments, gradients, dx}) add(t);
      }
  }

  void loss(std::int64_t rows, std::int64_t classes, kernels::Divergence divergence, DType dtype) {
    const Tensor s = normal({rows, classes}, dtype, 3), t = normal({rows, classes}, dtype, 3);
    const Tensor ds = Tensor::zeros(s.shape(), dtype), total = Tensor::zeros({1});
    const Tensor lambda = Tensor::full({1}, 0.5), temperature = Tensor::full({1}, 4.0);
    const Tensor targets = Tensor::zeros({rows}, DType::kI32);
    const Tensor statistics = Tensor::zeros({kernels::kRowStatistics, rows});
    const Tensor argmax = Tensor::zeros({2, rows}, DType::kI32);
    const Tensor correct = Tensor::zeros({2, rows}, DType::kU8);
    for (std::int64_t i = 0; i < rows; ++i)
      targets.data<std::int32_t>()[i] = static_cast<std::int32_t>(i % classes);
    kernels::DistillLossArgs args;
    args.student = s.raw();
    args.teacher = t.raw();
    args.dstudent = ds.raw();
    args.student_pitch = args.teacher_pitch = args.dstudent_pitch = classes;
    args.targets = targets.data<std::int32_t>();
    args.lambda = lambda.data<float>();
    args.temperature = temperature.data<float>();
    args.total = total.raw();
    args.statistics = statistics.data<float>();
    args.argmax = argmax.data<std::int32_t>();
    args.correct = correct.data<std::uint8_t>();
    args.rows = rows;
    args.classes = classes;
    args.dtype = dtype;
    args.divergence = divergence;
    args.parameter = kernels::default_parameter(divergence);
    kernels::distill_loss(context_, args);
    for (const Tensor& x : {ds, total, statistics}) add(x);
  }

  void update(std::int64_t n) {
    const Tensor p = normal({n}), g = normal({n}), moments = Tensor::zeros({2, n});
    const Tensor rate = Tensor::full({1}, 0.01), clip = Tensor::full({1}, 1.0);
    const Tensor step = Tensor::full({1}, 3, DType::kI64), norm = Tensor::zeros({1});
    const kernels::GradientSegment all{g.raw(), n};
    kernels::grad_norm(context_, {.segments = {&all, 1},
                                  .norm = norm.data<float>(),
                                  .clip = clip.data<float>(),
                                  .max_norm = 1});
    kernels::SgdArgs sgd;
    sgd.parameter = p.raw();
    sgd.gradient = g.raw();
    sgd.momentum_buffer = moments.raw();
    sgd.n = n;
    sgd.learning_rate = rate.data<float>();
    sgd.step = step.data<std::int64_t>();
    sgd.clip = clip.data<float>();
    sgd.momentum = 0.9;
    sgd.weight_decay = 5e-4;
    sgd.nesterov = true;
    kernels::sgd(context_, sgd);
    add(p);
    kernels::AdamWArgs adamw;
    adamw.parameter = p.raw();
    adamw.gradient = g.raw();
    adamw.first_moment = moments.raw();
    adamw.second_moment = moments.data<float>() + n;
    moments.fill(0.25);
    adamw.n = n;
    adamw.learning_rate = rate.data<float>();
    adamw.step = step.data<std::int64_t>();
    adamw.clip = clip.data<float>();
    adamw.weight_decay = 0.01;
    kernels::adamw(context_, adamw);
    for (const Tensor& t : {p, moments, norm}) add(t);
  }

  void rows(std::int64_t n, std::int64_t classes) {
    const Tensor x = normal({n, classes}), y = Tensor::zeros(x.shape()), t = normal(x.shape());
    for (const bool log : {false, true}) {
      kernels::softmax(context_,
                       {y.raw(), x.raw(), n, classes, classes, classes, log, DType::kF32});
      add(y);
    }
  }

 private:
  void add(const Tensor& t) {
    hasher_.update(t.raw(), static_cast<std::size_t>(t.numel()) * size_of(t.dtype()));
  }

  const Context& context_;
  Hasher hasher_;
  std::uint64_t seed_ = 0;
};

}  // namespace

std::string rounding_of_this_machine() {
  Probe probe(Device::kCpu);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t batch : {4, 10}) {  // ResNet-8 on 32 x 32
      for (const auto& [size, in, out, stride] : {std::array{32, 3, 16, 1},
                                                  {32, 16, 16, 1},
                                                  {32, 16, 32, 2},
                                                  {16, 32, 32, 1},
                                                  {16, 32, 64, 2},
                                                  {8, 64, 64, 1}})
        probe.convolution({batch, size, size, in, out, 3, 3, stride, 1}, dtype);
      probe.convolution({batch, 32, 32, 16, 32, 1, 1, 2, 0}, dtype);
      probe.product(batch, 10, 64, false, true, dtype);  // forward, data and weight gradient
      probe.product(batch, 64, 10, false, false, dtype);
      probe.product(10, 64, batch, true, false, dtype);
      for (int d = 0; d < kernels::kDivergences; ++d)
        probe.loss(batch, 10, static_cast<kernels::Divergence>(d), dtype);
    }
  }
  for (const std::int64_t batch : {16, 32, 200}) {  // the MLPs of parity
    for (const auto& [out, in] : {std::array{16, 12}, {32, 12}, {2, 16}, {2, 32}, {4, 16}}) {
      probe.product(batch, out, in, false, true, DType::kF32);
      probe.product(batch, in, out, false, false, DType::kF32);
      probe.product(out, in, batch, true, false, DType::kF32);
    }
    probe.loss(batch, 2, kernels::Divergence::kForwardKl, DType::kF32);
    probe.rows(batch, 2);
    probe.rows(batch, 10);
  }
  for (const std::int64_t n : {33, 5003}) probe.update(n);
  return probe.result();
}

std::string machine_of_the_emulated_device() {
#ifdef NDEBUG
  const std::string flags = "release";
#else
  const std::string flags = "dev";
#endif
  return hash_bytes(std::string(gnu_get_libc_version()) + "|" + __VERSION__ + "|" + flags)
      .substr(0, 16);
}

std::string this_machine() {
  std::string features;
  std::ifstream cpu("/proc/cpuinfo");
  for (std::string line; features.empty() && std::getline(cpu, line);)
    if (line.starts_with("flags")) features = line;
  for (const int cache : {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE})
    features += "|" + std::to_string(sysconf(cache));
  return hash_bytes(features + "|" + machine_of_the_emulated_device()).substr(0, 16);
}

std::string rounding_of_the_emulated_device() {
  Probe probe(Device::kCuda);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    probe.product(16, 12, 32, false, true, dtype);
    for (int d = 0; d < kernels::kDivergences; ++d)
      probe.loss(8, 10, static_cast<kernels::Divergence>(d), dtype);
  }
  probe.rows(16, 10);
  for (const std::int64_t n : {33, 5003}) probe.update(n);
  return probe.result();
}

}  // namespace retort::tools
