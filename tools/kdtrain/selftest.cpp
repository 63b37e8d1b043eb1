// Every op of a training step, forward and backward in f32 on each device here, against the CPU in
// double.
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "distill/losses/distillation_loss.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/mse.h"
#include "engine/ops/pool.h"
#include "engine/ops/reduce.h"
#include "engine/ops/shortcut.h"
#include "engine/ops/softmax.h"
#include "engine/runtime/device.h"
#include "kernels/common/philox.h"
#include "tools/kdtrain/command_line.h"

namespace retort::tools {
namespace {

struct Case {
  const char* name;
  std::vector<Shape> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> f;
};

// Values near a standard normal, exact in f32, the same for every device and dtype.
Tensor draw(const Shape& shape, std::uint32_t stream, DType dtype, Device device) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Philox4 r = philox(7, static_cast<std::uint32_t>(i), stream, 0, path_hash("selftest"));
    float sum = -2;  // of four uniforms, less their mean: standard deviation 0.58
    for (const std::uint32_t v : r.v) sum += uniform01(v);
    values[i] = 1.7f * sum;
  }
  return Tensor::from(values, shape).to(dtype).to(device);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back(
      {"linear", {{33, 20}, {7, 20}, {7}}, [](const auto& x) { return linear(x[0], x[1], x[2]); }});
  for (const auto& [name, kernel, stride, padding] : {std::tuple{"conv2d 1x1", 1, 1, 0},
                                                      {"conv2d 3x3", 3, 1, 1},
                                                      {"conv2d 3x3 /2", 3, 2, 1},
                                                      {"conv2d 7x7 /2", 7, 2, 3}})
    all.push_back({name,
                   {{2, 11, 11, 5}, {6, kernel, kernel, 5}},
                   [stride = stride, padding = padding](const auto& x) {
                     return conv2d(x[0], x[1], Conv2dOptions{stride, padding});
                   }});
  all.push_back({"batch_norm", {{3, 4, 4, 6}, {6}, {6}, {3, 4, 4, 6}}, [](const auto& x) {
                   const Tensor mean = Tensor::zeros({6}, x[0].dtype(), x[0].device());
                   const Tensor var = Tensor::full({6}, 1, x[0].dtype(), x[0].device());
                   BatchNormOptions options;
                   options.relu = true;
                   return batch_norm(x[0], x[1], x[2], mean, var, options, x[3]);
                 }});
  all.push_back(
      {"max_pool2d", {{2, 9, 9, 4}}, [](const auto& x) { return max_pool2d(x[0], 3, 2, 1); }});
  all.push_back({"global_average_pool", {{3, 5, 5, 7}}, [](const auto& x) {
                   return global_average_pool(x[0]);
                 }});
  all.push_back(
      {"shortcut_a", {{2, 6, 6, 4}}, [](const auto& x) { return shortcut_a(x[0], 2, 8); }});
  all.push_back({"relu", {{17, 9}}, [](const auto& x) { return relu(x[0]); }});
  all.push_back({"log_softmax", {{13, 101}}, [](const auto& x) { return log_softmax(x[0]); }});
  all.push_back(
      {"mse", {{8, 12}, {8, 12}}, [](const auto& x) { return mse(x[0], x[1].detach()); }});
  all.push_back({"distillation_loss", {{21, 100}, {21, 100}}, [](const auto& x) {
                   std::vector<std::int32_t> targets(21);
                   for (std::size_t i = 0; i < 21; ++i)
                     targets[i] = static_cast<std::int32_t>(i * 4);
                   distill::DistillationLossArgs args;
                   args.student_logits = x[0];
                   args.teacher_logits = x[1].detach();
                   args.targets = Tensor::from(targets, {21}, x[0].device());
                   args.lambda = Tensor::scalar(0.5, DType::kF32, x[0].device());
                   args.temperature = Tensor::scalar(4.0, DType::kF32, x[0].device());
                   return distill::distillation_loss(args).total;
                 }});
  return all;
}

// Result and gradients, one after the other, on the host. The upstream gradient is not constant.
std::vector<double> values_of(const Case& c, DType dtype, Device device) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    inputs.push_back(draw(c.inputs[i], static_cast<std::uint32_t>(i), dtype, device));
    inputs.back().set_requires_grad(true);
  }
  const Tensor y = c.f(inputs);
  y.backward(draw(y.shape(), 99, y.dtype(), device));
  std::vector<double> all = y.template to_vector<double>();
  for (const Tensor& input : inputs) {
    if (!input.grad().defined()) continue;
    const std::vector<double> gradient = input.grad().template to_vector<double>();
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

}  // namespace

int selftest_command(const CommandLine& line) {
  std::vector<Device> devices{Device::kCpu};
  if (line.device != "cpu" && cuda_available()) devices.push_back(Device::kCuda);
  if (line.device == "cuda") parse_device("cuda");  // says why not
  constexpr double kBound = 2e-5;                   // f32 sums of at most a few hundred terms
  int failed = 0;
  for (const Case& c : cases()) {
    const std::vector<double> want = values_of(c, DType::kF64, Device::kCpu);
    double largest = 1e-3;
    for (const double w : want) largest = std::max(largest, std::abs(w));
    for (const Device device : devices) {
      std::string verdict;
      double error = 0;
      try {
        const std::vector<double> got = values_of(c, DType::kF32, device);
        if (got.size() != want.size()) verdict = "FAILED: another number of gradients";
        for (std::size_t i = 0; i < got.size() && verdict.empty(); ++i) {
          if (!std::isfinite(got[i])) verdict = "FAILED: not finite";
          error = std::max(error, std::abs(got[i] - want[i]) / largest);
        }
        if (verdict.empty()) verdict = error <= kBound ? "ok" : "FAILED";
      } catch (const Error& e) {
        verdict = std::string("FAILED: ") + e.what();
      }
      failed += verdict != "ok";
      std::printf("%-20s %-4s  error %8.1e  %s\n", c.name, name_of(device), error, verdict.c_str());
    }
  }
  if (devices.size() == 1)
    std::printf("CUDA not checked: %s\n",
                line.device == "cpu" ? "--device cpu" : cuda_unavailable_reason().c_str());
  std::printf(failed == 0 ? "all correct\n" : "%d FAILED\n", failed);
  return failed == 0 ? 0 : static_cast<int>(ErrorCode::kNumerics);
}

}  // namespace retort::tools
