// Runs each convolution by the implementation that Note [Choice of the convolution's
// implementation] (kernels/conv2d/conv2d_choice.h) names. This is the one op that waits for the
// device, once per shape; while a stream is being captured nothing is measured.
#include "kernels/plugin/conv2d_choice.h"

#include <cstdlib>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>

#include "kernels/common/cuda_runtime.h"
#include "kernels/common/plugin.h"
#include "kernels/conv2d/conv2d_device.h"
#include "kernels/plugin/libraries.h"

namespace retort::kernels {

Conv2dLibrary conv2d_library_candidates = nullptr;

namespace {

constexpr int kRepeats = 5;  // timed runs of each candidate, after one that is not

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

Conv2dCall call_of(const Conv2dArgs& a) {
  return {Conv2dPass::kForward, a.shape, a.dtype, a.weight_dtype, a.x, a.weight, a.y};
}
Conv2dCall call_of(const Conv2dBackwardDataArgs& a) {
  return {Conv2dPass::kBackwardData, a.shape, a.dtype, a.weight_dtype, a.dy, a.weight, a.dx};
}
Conv2dCall call_of(const Conv2dBackwardWeightArgs& a) {
  return {Conv2dPass::kBackwardWeight, a.shape, a.dtype, a.weight_dtype, a.x, a.dy, a.dweight};
}
template <class Args>
Conv2dExtra extra_of(const Args&) {
  return Conv2dExtra::kNone;
}
Conv2dExtra extra_of(const Conv2dArgs& a) {
  return a.statistics       ? Conv2dExtra::kStatistics
         : a.epilogue.any() ? Conv2dExtra::kEpilogue
                            : Conv2dExtra::kNone;
}
template <class Args>
void finish(const Context&, const Args&) {}
void finish(const Context& context, const Conv2dArgs& args) {
  if (args.statistics || args.epilogue.any()) conv2d_finish(context, args);
}

std::string environment() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  DeviceInfo info;
  if (const Status s = cuda_runtime.describe(device, &info); s.code != ErrorCode::kOk)
    throw Error(s.code, s.message);
  std::string text =
      join(info.name, "; driver ", info.driver_version, "; runtime ", info.runtime_version);
#if defined(RETORT_HAVE_CUDNN)
  text += join("; cuDNN ", cudnnGetVersion());
#endif
  return text + join("; kernels ", kConv2dKernelsVersion);
}

// Device memory for a fingerprint.
class Fingerprint {
 public:
  explicit Fingerprint(const Conv2dCall& call) : call_(call) {
    const Conv2dShape& s = call.shape;
    n_ = call.pass == Conv2dPass::kForward        ? s.y_elements()
         : call.pass == Conv2dPass::kBackwardData ? s.x_elements()
                                                  : s.weight_elements();
    dtype_ = call.pass == Conv2dPass::kBackwardWeight ? call.weight_dtype : call.dtype;
    values_.resize(static_cast<std::size_t>(2 * conv2d_fingerprint_pieces(n_)));
    check_cuda(cudaMalloc(&memory_, values_.size() * sizeof(float)), "cudaMalloc");
  }
  ~Fingerprint() { cudaFree(memory_); }
  Fingerprint(const Fingerprint&) = delete;
  Fingerprint& operator=(const Fingerprint&) = delete;

  std::vector<float> take(const Context& context) {
    const auto stream = static_cast<cudaStream_t>(context.stream);
    conv2d_fingerprint(context, {call_.out, dtype_, n_, static_cast<float*>(memory_)});
    check_cuda(cudaMemcpyAsync(values_.data(), memory_, values_.size() * sizeof(float),
                               cudaMemcpyDeviceToHost, stream),
               "cudaMemcpyAsync");
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return values_;
  }

 private:
  const Conv2dCall& call_;
  std::int64_t n_ = 0;
  DType dtype_ = DType::kF32;
  std::vector<float> values_;
  void* memory_ = nullptr;
};

struct Events {
  cudaEvent_t begin = nullptr, end = nullptr;
  Events() {
    check_cuda(cudaEventCreate(&begin), "cudaEventCreate");
    check_cuda(cudaEventCreate(&end), "cudaEventCreate");
  }
  ~Events() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
};

double microseconds_of(cudaStream_t stream, const std::function<bool()>& run) {
  if (!run()) return -1;
  const Events events;
  check_cuda(cudaEventRecord(events.begin, stream), "cudaEventRecord");
  for (int i = 0; i < kRepeats; ++i)
    if (!run()) return -1;
  check_cuda(cudaEventRecord(events.end, stream), "cudaEventRecord");
  check_cuda(cudaEventSynchronize(events.end), "cudaEventSynchronize");
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, events.begin, events.end), "cudaEventElapsedTime");
  return 1000.0 * ms / kRepeats;
}

bool is_capturing(const Context& context) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(static_cast<cudaStream_t>(context.stream), &status),
             "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

enum class Mode { kMeasure, kOwn, kMma, kWgmma, kCudnn };
Mode mode_from_environment() {
  const char* const text = std::getenv("RETORT_CONV2D");
  const std::string_view mode = text ? text : "";
  if (mode.empty() || mode == "measure") return Mode::kMeasure;
  if (mode == "own") return Mode::kOwn;
  if (mode == "mma") return Mode::kMma;
  if (mode == "wgmma") return Mode::kWgmma;
  RETORT_CHECK(mode == "cudnn",
               "expected RETORT_CONV2D to be measure, own, mma, wgmma or cudnn, got ", mode);
  return Mode::kCudnn;
}

// What was chosen for a problem: a hand-written kernel, or a library's if `library` is set.
struct Chosen {
  Conv2dAlgorithm own = Conv2dAlgorithm::kAuto;
  std::function<bool(const Context&, const Conv2dCall&)> library;
};

template <class Args>
Status run_own(const Context& context, Args args, Conv2dAlgorithm algorithm, CudaOp<Args> own) {
  args.algorithm = algorithm;
  return own(context, args);
}

// The Error of a run that a caller asked for; a candidate that only refuses is no error.
void check_status(const Status& status) {
  if (status.code != ErrorCode::kOk) throw Error(status.code, status.message);
}

template <class Args>
Chosen choose(const Context& context, const Args& args, const Conv2dProblem& problem, Mode mode,
              CudaOp<Args> own) {
  const Conv2dCall call = call_of(args);
  std::vector<Conv2dLibraryCandidate> library;
  if (conv2d_library_candidates) library = conv2d_library_candidates(context, call, problem.tf32);
  if (mode == Mode::kCudnn)
    return library.empty() ? Chosen{} : Chosen{Conv2dAlgorithm::kAuto, library.front().run};

  std::vector<Conv2dCandidate> candidates;
  std::vector<Chosen> ways;
  const auto add = [&](const Conv2dChoice& choice, Chosen way, std::function<bool()> run) {
    candidates.push_back({choice, std::move(run)});
    ways.push_back(std::move(way));
  };
  add({"mma"}, {Conv2dAlgorithm::kMma, nullptr}, [&] {
    check_status(run_own(context, args, Conv2dAlgorithm::kMma, own));
    return true;
  });
  if (call.dtype == DType::kBF16)
    add({"wgmma"}, {Conv2dAlgorithm::kWgmma, nullptr}, [&] {
      return run_own(context, args, Conv2dAlgorithm::kWgmma, own).code == ErrorCode::kOk;
    });
  for (Conv2dLibraryCandidate& candidate : library)
    add(candidate.choice, {Conv2dAlgorithm::kAuto, candidate.run}, [&, run = candidate.run] {
      if (!run(context, call)) return false;
      finish(context, args);
      return true;
    });
  if (candidates.size() == 1) return ways.front();

  Fingerprint fingerprint(call);
  const Conv2dBench bench{[&](const std::function<bool()>& run) {
                            return microseconds_of(static_cast<cudaStream_t>(context.stream), run);
                          },
                          [&] { return fingerprint.take(context); }};
  Conv2dChoices& choices = conv2d_choices();
  choices.open(environment());
  return ways[choose_conv2d(problem, candidates, choices, &bench)];
}

template <class Args>
void convolve(const Context& context, const Args& args, CudaOp<Args> own) {
  static const Mode mode = mode_from_environment();
  static std::mutex mutex;
  // By generation of the choices, device and problem; never destroyed: a library may be gone by
  // then.
  using Key = std::tuple<std::uint64_t, int, Conv2dProblem>;
  static auto* const chosen = new std::map<Key, Chosen>();
  const Conv2dCall call = call_of(args);
  const bool possible = call.shape.batch > 0 &&
                        (call.dtype == DType::kF32 || call.dtype == DType::kBF16) &&
                        args.algorithm == Conv2dAlgorithm::kAuto;
  if (!possible || mode == Mode::kOwn) return check_status(own(context, args));
  if (mode == Mode::kMma || mode == Mode::kWgmma) {
    if (mode == Mode::kWgmma &&
        run_own(context, args, Conv2dAlgorithm::kWgmma, own).code == ErrorCode::kOk)
      return;
    return check_status(run_own(context, args, Conv2dAlgorithm::kMma, own));
  }

  const bool tf32 = context.allow_tf32 && call.dtype == DType::kF32;
  const Conv2dProblem problem{
      call.pass,         call.shape, call.dtype,
      call.weight_dtype, tf32,       aligned(call.in0) && aligned(call.in1) && aligned(call.out),
      extra_of(args)};
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const Key key{conv2d_choices().generation(), device, problem};
  const Chosen* way = nullptr;
  {
    const std::lock_guard lock(mutex);
    auto found = chosen->find(key);
    if (found == chosen->end()) {
      if (is_capturing(context)) return check_status(own(context, args));
      found = chosen->emplace(key, choose(context, args, problem, mode, own)).first;
    }
    way = &found->second;  // map nodes stay where they are
  }
  if (!way->library) return check_status(run_own(context, args, way->own, own));
  RETORT_CHECK_AS(kDevice, way->library(context, call), "the library's convolution failed");
  finish(context, args);
}

CudaOp<Conv2dArgs> own_forward = nullptr;
CudaOp<Conv2dBackwardDataArgs> own_backward_data = nullptr;
CudaOp<Conv2dBackwardWeightArgs> own_backward_weight = nullptr;

void forward_launch(const Context& context, const Conv2dArgs& args) {
  convolve(context, args, own_forward);
}
void backward_data_launch(const Context& context, const Conv2dBackwardDataArgs& args) {
  convolve(context, args, own_backward_data);
}
void backward_weight_launch(const Context& context, const Conv2dBackwardWeightArgs& args) {
  convolve(context, args, own_backward_weight);
}

}  // namespace

RETORT_CUDA_PROVIDER(conv2d_choice) {
  own_forward = std::exchange(conv2d_cuda, guarded<Conv2dArgs, forward_launch>);
  own_backward_data = std::exchange(conv2d_backward_data_cuda,
                                    guarded<Conv2dBackwardDataArgs, backward_data_launch>);
  own_backward_weight = std::exchange(conv2d_backward_weight_cuda,
                                      guarded<Conv2dBackwardWeightArgs, backward_weight_launch>);
}

}  // namespace retort::kernels
