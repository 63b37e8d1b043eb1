// Profiles the fused distillation loss (forward and backward in one call) on every device there is:
// time, bytes by formula, GB/s, share of the copy bandwidth measured in the same run, error against
// the definition in double, and the same loss as a chain of plain ops beside it.
//
//   distill_bench [--device auto|cpu|cuda] [--json FILE] [--logits N] [--smoke] [google-benchmark
//   options]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/runtime/device.h"
#include "engine/tensor/tensor.h"
#include "kernels/common/parallel.h"
#include "kernels/common/philox.h"
#include "kernels/distill_loss/distill_loss.h"

namespace retort::bench {
namespace {

struct Options {
  std::string device = "auto", json;
  std::int64_t logits = 0;  // per tensor; 0: 2^24 on the CPU, 2^28 on CUDA
  bool smoke = false;
};

struct Shape2 {
  std::int64_t rows, classes;
};

struct Result {
  std::string name, device, dtype;
  Shape2 shape{};
  double tau = 0;
  double ms = 0, min_ms = 0;       // median and least
  double bytes = 0, gb_per_s = 0;  // by formula: both logits read, gradient written
  double copy_gb_per_s = 0;        // read and written, same run
  double gradient_error = 0;       // largest |g - g64| / max |g64| over the rows looked at
  double loss_error = 0;           // largest relative error of CE and KD
  double chain_ms = 0;             // the same by plain ops; 0: not run
};
std::vector<Result>& results() {
  static std::vector<Result> list;
  return list;
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Runs f once per iteration and returns the median; waits for the device each time.
template <class F>
std::vector<double> timed(benchmark::State& state, Device device, F&& f) {
  std::vector<double> ms;
  f();
  synchronize(device);
  for (auto _ : state) {
    const double begin = now_ms();
    f();
    synchronize(device);
    ms.push_back(now_ms() - begin);
    state.SetIterationTime(ms.back() / 1e3);
  }
  std::sort(ms.begin(), ms.end());
  return ms;
}

Tensor random_logits(const Shape2& shape, std::uint64_t seed, DType dtype, Device device) {
  // Of 16 different rows: drawing every logit would take longer than the measurement.
  const std::int64_t distinct = std::min<std::int64_t>(shape.rows, 16);
  std::vector<float> rows(static_cast<std::size_t>(distinct * shape.classes));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Philox4 r = philox(seed, static_cast<std::uint32_t>(i), 0, 0, path_hash("bench"));
    rows[i] = 3 *
              (uniform01(r.v[0]) + uniform01(r.v[1]) + uniform01(r.v[2]) + uniform01(r.v[3]) - 2) *
              1.7320508f;
  }
  const Tensor host = Tensor::empty({shape.rows, shape.classes}, DType::kF32);
  float* const to = host.data<float>();
  for (std::int64_t r = 0; r < shape.rows; ++r)
    std::memcpy(to + r * shape.classes, rows.data() + r % distinct * shape.classes,
                static_cast<std::size_t>(shape.classes) * sizeof(float));
  return host.to(dtype).to(device);
}

struct Problem {
  Shape2 shape;
  DType dtype;
  Device device;
  Tensor student, teacher, gradient, targets, lambda, tau, z, total, statistics, argmax, correct;

  Problem(Shape2 s, DType type, Device where, double temperature)
      : shape(s),
        dtype(type),
        device(where),
        student(random_logits(s, 1, type, where)),
        teacher(random_logits(s, 2, type, where)),
        gradient(Tensor::empty({s.rows, s.classes}, type, where)) {
    std::vector<std::int32_t> y(static_cast<std::size_t>(s.rows));
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] = static_cast<std::int32_t>(
          uniform_below(philox(3, static_cast<std::uint32_t>(i), 0, 0, 0).v[0],
                        static_cast<std::uint32_t>(s.classes)));
    targets = Tensor::from(y, {s.rows}, where);
    lambda = Tensor::scalar(0.5, DType::kF32, where);
    tau = Tensor::scalar(temperature, DType::kF32, where);
    z = Tensor::scalar(static_cast<double>(s.rows), DType::kF32, where);
    total = Tensor::empty({}, type == DType::kF64 ? type : DType::kF32, where);
    statistics = Tensor::empty({kernels::kRowStatistics, s.rows}, DType::kF32, where);
    argmax = Tensor::empty({2, s.rows}, DType::kI32, where);
    correct = Tensor::empty({2, s.rows}, DType::kU8, where);
  }

  void run() const {
    kernels::DistillLossArgs a;
    a.student = student.raw(), a.teacher = teacher.raw(), a.dstudent = gradient.raw();
    a.student_pitch = a.teacher_pitch = a.dstudent_pitch = shape.classes;
    a.targets = targets.data<std::int32_t>();
    a.lambda = lambda.data<float>();
    a.temperature = tau.data<float>();
    a.normalizer = z.data<float>();
    a.total = total.raw();
    a.statistics = statistics.data<float>();
    a.argmax = argmax.data<std::int32_t>();
    a.correct = correct.data<std::uint8_t>();
    a.rows = shape.rows, a.classes = shape.classes, a.dtype = dtype;
    kernels::distill_loss(context_of(device), a);
  }

  /// Errors of the first rows against the definition in double.
  void compare(Result& r) const {
    const std::int64_t rows =
        std::min(shape.rows, std::max<std::int64_t>(2, 20000 / shape.classes));
    const auto first = [rows](const Tensor& t) { return t.slice(0, rows).to(Device::kCpu); };
    Problem exact({rows, shape.classes}, DType::kF64, Device::kCpu, tau.item());
    exact.student = first(student).to(DType::kF64);
    exact.teacher = first(teacher).to(DType::kF64);
    exact.targets = first(targets);
    exact.z = z.to(Device::kCpu);
    exact.run();
    run();
    const std::vector<double> got = first(gradient).to_vector<double>(),
                              want = exact.gradient.to_vector<double>();
    const auto v = static_cast<std::size_t>(shape.classes);
    for (std::size_t i = 0; i < want.size(); i += v) {
      double most = 0, error = 0;
      for (std::size_t k = i; k < i + v; ++k) {
        most = std::max(most, std::abs(want[k]));
        error = std::max(error, std::abs(got[k] - want[k]));
      }
      r.gradient_error = std::max(r.gradient_error, error / most);
    }
    for (const int k : {kernels::kStatCe, kernels::kStatKd}) {
      const std::vector<double> a = first(statistics.slice(k, k + 1).view({shape.rows}))
                                        .to_vector<double>(),
                                b = exact.statistics.slice(k, k + 1).to_vector<double>();
      for (std::size_t i = 0; i < b.size(); ++i)
        r.loss_error =
            std::max(r.loss_error, std::abs(a[i] - b[i]) / std::max(1e-3, std::abs(b[i])));
    }
  }
};

/// The loss as users write it: a chain of plain ops and its backward.
struct Chain {
  Tensor student, teacher, one_hot;
  double tau, n;
  explicit Chain(const Problem& p)
      : student(p.student.detach()),
        teacher(p.teacher),
        tau(p.tau.item()),
        n(static_cast<double>(p.shape.rows)) {
    student.set_requires_grad(true);
    const Tensor host = Tensor::zeros({p.shape.rows, p.shape.classes}, DType::kF32);
    const std::vector<std::int32_t> y = p.targets.to_vector<std::int32_t>();
    for (std::size_t i = 0; i < y.size(); ++i)
      host.data<float>()[static_cast<std::int64_t>(i) * p.shape.classes + y[i]] = 1;
    one_hot = host.to(p.dtype).to(p.device);
  }
  void run() const {
    const Tensor log_p = log_softmax(scale(teacher, 1 / tau));
    const Tensor log_q = log_softmax(scale(student, 1 / tau));
    const Tensor kd = sum(multiply(exp(log_p), subtract(log_p, log_q)));
    const Tensor ce = negate(sum(multiply(log_softmax(student), one_hot)));
    add(scale(ce, 0.5 / n), scale(kd, 0.5 * tau * tau / n)).backward();
    student.zero_grad();
  }
};

/// Bytes read and written per second by a plain copy of `bytes` bytes.
double copy_bandwidth(benchmark::State& state, Device device, std::int64_t bytes) {
  const Tensor from = Tensor::zeros({bytes}, DType::kU8, device),
               to = Tensor::empty({bytes}, DType::kU8, device);
  const std::vector<double> ms = timed(state, device, [&] {
    if (device == Device::kCuda) {
      to.copy_from(from);
      return;
    }
    auto* const a = to.data<std::uint8_t>();
    const auto* const b = from.data<std::uint8_t>();
    parallel_for(bytes, std::int64_t{1} << 21, [=](std::int64_t begin, std::int64_t end) {
      std::memcpy(a + begin, b + begin, static_cast<std::size_t>(end - begin));
    });
  });
  return 2 * static_cast<double>(bytes) / (ms[ms.size() / 2] * 1e6);
}

double& copy_of(Device device) {
  static double gb_per_s[2] = {};
  return gb_per_s[static_cast<int>(device)];
}

void configure(benchmark::internal::Benchmark* b, const Options& options) {
  b->UseManualTime()->Unit(benchmark::kMillisecond);
  if (options.smoke)
    b->Iterations(2);
  else
    b->MinTime(0.4);
}

void add_benchmarks(const Options& options, Device device) {
  const std::int64_t logits = options.smoke            ? 4096
                              : options.logits > 0     ? options.logits
                              : device == Device::kCpu ? std::int64_t{1} << 24
                                                       : std::int64_t{1} << 28;
  const std::string where = name_of(device);
  configure(benchmark::RegisterBenchmark((where + "/copy").c_str(),
                                         [=](benchmark::State& state) {
                                           copy_of(device) =
                                               copy_bandwidth(state, device, logits * 4);
                                           state.counters["GB/s"] = copy_of(device);
                                         }),
            options);
  std::vector<DType> dtypes{DType::kF32};
  if (device == Device::kCuda) dtypes.push_back(DType::kBF16);
  for (const DType dtype : dtypes)
    for (const std::int64_t classes : {10, 100, 1000, 30522, 128256}) {
      const Shape2 shape{std::clamp<std::int64_t>(logits / classes, 1, 65536), classes};
      const std::string shape_name =
          "/" + std::to_string(shape.rows) + "x" + std::to_string(classes) + "/" + name_of(dtype);
      for (const double tau : {2.0, 3.0}) {
        const std::string name =
            where + "/fused_kl_ce" + shape_name + (tau == 2 ? "/tau2" : "/tau3");
        const bool chain = tau == 2;
        configure(benchmark::RegisterBenchmark(
                      name.c_str(),
                      [=](benchmark::State& state) {
                        const Problem problem(shape, dtype, device, tau);
                        Result r;
                        r.name = "fused_kl_ce";
                        r.device = where;
                        r.dtype = name_of(dtype);
                        r.shape = shape;
                        r.tau = tau;
                        const std::vector<double> ms = timed(state, device, [&] { problem.run(); });
                        r.ms = ms[ms.size() / 2];
                        r.min_ms = ms[0];
                        r.bytes = 3.0 * static_cast<double>(shape.rows * classes) *
                                  static_cast<double>(size_of(dtype));
                        r.gb_per_s = r.bytes / (r.ms * 1e6);
                        r.copy_gb_per_s = copy_of(device);
                        problem.compare(r);
                        if (chain) {
                          const Chain plain(problem);
                          std::vector<double> times;
                          plain.run();
                          synchronize(device);
                          const double limit = now_ms() + 400;
                          for (int i = 0; i < 5 && (i < 1 || now_ms() < limit); ++i) {
                            const double begin = now_ms();
                            plain.run();
                            synchronize(device);
                            times.push_back(now_ms() - begin);
                          }
                          std::sort(times.begin(), times.end());
                          r.chain_ms = times[times.size() / 2];
                          state.counters["chain_ms"] = r.chain_ms;
                        }
                        state.counters["median_ms"] = r.ms;
                        state.counters["GB/s"] = r.gb_per_s;
                        state.counters["of_copy"] = r.gb_per_s / r.copy_gb_per_s;
                        state.counters["err_grad"] = r.gradient_error;
                        state.counters["err_loss"] = r.loss_error;
                        for (Result& old : results())
                          if (old.device == r.device && old.dtype == r.dtype && old.tau == r.tau &&
                              old.shape.classes == classes) {
                            old = r;
                            return;
                          }
                        results().push_back(r);
                      }),
                  options);
      }
    }
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + "\"";
}

bool write_json(const std::string& path, bool cuda) {
  std::ofstream out(path);
  out << "{\n  \"program\": \"distill_bench\",\n  \"processor\": " << quoted(processor_name())
      << ",\n  \"threads\": " << thread_count() << ",\n";
  if (cuda) out << "  \"gpu\": " << quoted(cuda_device_info().name) << ",\n";
  out << "  \"copy_gb_per_s\": {\"cpu\": " << copy_of(Device::kCpu)
      << ", \"cuda\": " << copy_of(Device::kCuda) << "},\n  \"results\": [";
  const char* separator = "\n";
  for (const Result& r : results()) {
    out << separator << "    {\"name\": " << quoted(r.name) << ", \"device\": " << quoted(r.device)
        << ", \"dtype\": " << quoted(r.dtype) << ", \"rows\": " << r.shape.rows
        << ", \"classes\": " << r.shape.classes << ", \"tau\": " << r.tau
        << ", \"median_ms\": " << r.ms << ", \"min_ms\": " << r.min_ms << ", \"bytes\": " << r.bytes
        << ", \"gb_per_s\": " << r.gb_per_s
        << ", \"share_of_copy\": " << (r.copy_gb_per_s > 0 ? r.gb_per_s / r.copy_gb_per_s : 0)
        << ", \"gradient_error\": " << r.gradient_error << ", \"loss_error\": " << r.loss_error;
    if (r.chain_ms > 0)
      out << ", \"chain_ms\": " << r.chain_ms << ", \"chain_over_fused\": " << r.chain_ms / r.ms;
    out << "}";
    separator = ",\n";
  }
  out << "\n  ]\n}\n";
  return static_cast<bool>(out.flush());
}

int run_main(int argc, char** argv) {
  Options options;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&]() -> std::string {
      RETORT_CHECK(i + 1 < argc, "distill_bench: ", arg, " needs a value");
      return argv[++i];
    };
    if (arg == "--device")
      options.device = value();
    else if (arg == "--json")
      options.json = value();
    else if (arg == "--logits")
      options.logits = std::atoll(value().c_str());
    else if (arg == "--smoke")
      options.smoke = true;
    else
      rest.push_back(argv[i]);
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  const bool cuda = options.device != "cpu" && cuda_available() &&
                    (options.smoke || !cuda_device_info().emulated);
  if (options.device == "cuda" && !cuda)
    fail(ErrorCode::kDevice, "distill_bench: no GPU here: ", cuda_unavailable_reason());
  if (options.device != "cuda") add_benchmarks(options, Device::kCpu);
  if (cuda) add_benchmarks(options, Device::kCuda);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  if (!options.json.empty() && !write_json(options.json, cuda))
    fail(ErrorCode::kIo, "distill_bench: cannot write ", options.json);
  return 0;
}

}  // namespace
}  // namespace retort::bench

int main(int argc, char** argv) {
  try {
    return retort::bench::run_main(argc, argv);
  } catch (const retort::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  }
}
