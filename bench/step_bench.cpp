// Whole training steps as kdtrain runs them: batches from a resident image dataset, teacher,
// student forward and backward, clip, update; eager, as one CUDA graph, and with the next batch's
// teacher on a second stream. One JSON line a case and mode, the format of
// bench/peers/steps_cuda.py.
//
//   step_bench [--device auto|cpu|cuda] [--json FILE] [--batch N] [--seconds S] [--smoke]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "distill/graphed_step.h"
#include "engine/io/json.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/common/philox.h"
#include "nn/data/image_dataset.h"
#include "nn/models/registry.h"

namespace retort::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string device = "auto", json;
  std::int64_t batch = 1024;
  double seconds = 4;  // of timed steps per case and mode
  bool smoke = false;
};

struct Case {
  std::string name, teacher, student;  // teacher empty: labels alone
};

// CIFAR's shape and size: noise, since no step looks at what it learns.
std::shared_ptr<nn::ImageDataset> images(std::int64_t count) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count) * 3072);
  for (std::size_t i = 0; i < pixels.size(); i += 16) {
    const Philox4 r = philox(1, static_cast<std::uint32_t>(i / 16), 0, 0, path_hash("step_bench"));
    std::memcpy(&pixels[i], r.v, 16);
  }
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(static_cast<std::int32_t>(i % 10));
  return std::make_shared<nn::ImageDataset>(Tensor::from(pixels, {count, 3, 32, 32}), labels, 10,
                                            "noise");
}

// One case in one mode, ready to step.
class Training {
 public:
  Training(const Case& c, const std::shared_ptr<nn::ImageDataset>& data, Device device,
           std::int64_t batch, const distill::GraphOptions& options)
      : device_(device), student_(nn::make_model({.arch = c.student, .seed = 1})) {
    student_->to(device);
    if (!c.teacher.empty()) {
      std::shared_ptr<nn::Model> model = nn::make_model({.arch = c.teacher, .seed = 2});
      model->to(device);
      teacher_ = std::make_shared<distill::Teacher>(std::move(model));
    }
    nn::SgdConfig sgd;
    sgd.learning_rate = 0.1;
    sgd.momentum = 0.9;
    sgd.weight_decay = 5e-4;
    sgd.clip_norm = 1;
    sgd.bf16_copy = device == Device::kCuda;
    optimizer_ = std::make_unique<nn::Sgd>(*student_, sgd);
    const nn::Reading reading{DType::kBF16, {{"normalize", "cifar"}}};  // one tensor for both
    feed_ = data->source({.device = device,
                          .seed = 3,
                          .treatment = {{"augment", "crop_flip"}},
                          .readings = {reading, reading}})
                ->device_feed();
    steps_per_epoch_ = data->size() / batch;
    plan_ = [batch, steps = steps_per_epoch_](std::int64_t step) {
      std::vector<std::int64_t> samples;
      for (std::int64_t i = 0; i < batch; ++i) samples.push_back(step % steps * batch + i);
      return samples;
    };
    if (teacher_) {
      settings_.temperature = {4.0f};
    } else {
      settings_.lambda = {0.0f};
    }
    step_ = std::make_unique<distill::GraphedStep>(std::vector<distill::RunTeacher>{{teacher_}},
                                                   distill::soft_targets(), *student_, *optimizer_,
                                                   meter_, options);
  }

  void step() {
    const nn::FeedBatch at = feed_->place(plan_, steps_per_epoch_, done_);
    const auto next = feed_->place(done_ + 1);
    step_->step(*feed_, at, settings_, 0.1, next ? &*next : nullptr);
    ++done_;
  }
  // Milliseconds a step: n of them between two waits for the device.
  double time(int n) {
    synchronize(device_);
    const auto begin = Clock::now();
    for (int i = 0; i < n; ++i) step();
    synchronize(device_);
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count() / n;
  }
  const distill::GraphedStep& graphed() const { return *step_; }
  double loss() { return meter_.take().back().loss(); }

 private:
  Device device_;
  std::shared_ptr<nn::Model> student_;
  std::shared_ptr<const distill::Teacher> teacher_;
  std::unique_ptr<nn::Optimizer> optimizer_;
  std::unique_ptr<nn::DeviceFeed> feed_;
  nn::BatchPlan plan_;
  std::int64_t steps_per_epoch_ = 1, done_ = 0;
  distill::StepSettings settings_;
  distill::StepMeter meter_;
  std::unique_ptr<distill::GraphedStep> step_;
};

Json measure(const Case& c, const char* mode, const distill::GraphOptions& options,
             const std::shared_ptr<nn::ImageDataset>& data, Device device, const Arguments& a) {
  Training training(c, data, device, a.batch, options);
  const std::uint64_t launches = device == Device::kCuda ? cuda_runtime.launches() : 0;
  training.step();
  const std::uint64_t per_step = device == Device::kCuda ? cuda_runtime.launches() - launches : 0;
  for (int i = 0; i < 4; ++i) training.step();  // choices of algorithms, memory, capture
  const double guess = training.time(a.smoke ? 1 : 3);
  const int each = a.smoke ? 1 : std::max(1, static_cast<int>(1e3 * a.seconds / 5 / guess));
  std::vector<double> samples;
  for (int i = 0; i < (a.smoke ? 2 : 5); ++i) samples.push_back(training.time(each));
  std::vector<double> sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[sorted.size() / 2];
  Json out = Json::object();
  out.set("case", c.name).set("who", "retort").set("mode", mode).set("batch", a.batch);
  out.set("dtype", "bf16").set("ms", median);
  out.set("images_per_s", static_cast<double>(a.batch) / median * 1e3);
  out.set("ms_least", sorted.front()).set("ms_most", sorted.back());
  out.set("replayed", training.graphed().reason().empty());
  out.set("reason", training.graphed().reason());
  out.set("own_launches_of_an_eager_step", static_cast<std::int64_t>(per_step));
  out.set("peak_bytes", static_cast<std::int64_t>(memory_statistics(device).peak_bytes));
  out.set("loss", training.loss());
  return out;
}

int run(const Arguments& a) {
  const Device device = parse_device(a.device);
  std::vector<Case> cases{{"resnet18_train", "", "resnet18_cifar"},
                          {"resnet152_to_resnet18_kd", "resnet152_cifar", "resnet18_cifar"}};
  if (a.smoke) cases = {{"resnet8_train", "", "resnet8"}, {"resnet8_kd", "resnet8", "resnet8"}};
  // Opened before anything is measured; flushed line by line: what a run that is cut off leaves.
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      a.json.empty() ? nullptr : std::fopen(a.json.c_str(), "w"), std::fclose);
  RETORT_CHECK_AS(kIo, file || a.json.empty(), "cannot write ", a.json);
  bool written = true;
  const auto data = images(std::max<std::int64_t>(a.batch * 6, a.smoke ? 12 : 50000));
  for (const Case& c : cases) {
    struct Mode {
      const char* name;
      distill::GraphOptions options;
    };
    std::vector<Mode> modes{{"eager", {.graph = false}}};
    if (device == Device::kCuda) {
      modes.push_back({"graph", {}});
      if (!c.teacher.empty()) modes.push_back({"graph, overlap", {.overlap = true}});
    }
    for (const Mode& mode : modes) {
      reset_peak_memory(device);
      const std::string line = measure(c, mode.name, mode.options, data, device, a).dump();
      release_cached_memory(device);
      std::printf("%s\n", line.c_str());
      std::fflush(stdout);
      if (file)
        written = written && std::fprintf(file.get(), "%s\n", line.c_str()) > 0 &&
                  std::fflush(file.get()) == 0;
    }
  }
  if (written) return 0;
  std::fprintf(stderr, "step_bench: cannot write %s\n", a.json.c_str());
  return 4;
}

}  // namespace
}  // namespace retort::bench

int main(int argc, char** argv) {
  using namespace retort;
  bench::Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const char* const value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (flag == "--smoke") {
      a.smoke = true;
      a.batch = 2;
    } else if (value != nullptr && flag == "--device") {
      a.device = argv[++i];
    } else if (value != nullptr && flag == "--json") {
      a.json = argv[++i];
    } else if (value != nullptr && flag == "--batch") {
      a.batch = std::atoll(argv[++i]);
    } else if (value != nullptr && flag == "--seconds") {
      a.seconds = std::atof(argv[++i]);
    } else {
      std::fprintf(stderr,
                   "usage: step_bench [--device auto|cpu|cuda] [--json FILE] [--batch N] "
                   "[--seconds S] [--smoke]\n");
      return 2;
    }
  }
  if (a.batch < 1 || !(a.seconds > 0)) {
    std::fprintf(stderr, "step_bench: expected a batch of at least 1 and seconds above 0\n");
    return 2;
  }
  try {
    return bench::run(a);
  } catch (const Error& error) {
    std::fprintf(stderr, "step_bench: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
