// Convolution by cuDNN, as second provider beside the hand-written kernels (kernels/conv2d).
//
// Note [Choice of the convolution's provider]
// The first time a pass meets a shape, the hand-written kernel and cuDNN's most promising
// deterministic algorithms are timed on the caller's own tensors, and the fastest is kept for the
// life of the process. This is the one op that waits for the device, once per shape; while a stream
// is being captured nothing is timed and the hand-written kernel is taken. Timings decide, so two
// processes may choose differently and then differ in the last bits: RETORT_CONV2D=own or =cudnn
// takes the choice away (cudnn: its heuristic's first algorithm, where it has one).
//
// This uses cuDNN's classic interface, deprecated since 9.0 but the only one without its C++ front
// end; it goes when that is packaged.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/common/plugin.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_round.h"
#include "kernels/plugin/libraries.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace retort::kernels {
namespace {

constexpr std::size_t kMostWorkspaceBytes = std::size_t{256} << 20;
constexpr int kCandidates = 3;  // of cuDNN's, in the order of its heuristic
constexpr int kRepeats = 5;     // timed runs of each candidate, after one that is not

enum class Pass : int { kForward, kBackwardData, kBackwardWeight };

// One call of any pass: in0 and in1 are read, out is written.
struct Call {
  Pass pass;
  const Conv2dShape& shape;
  DType dtype, weight_dtype;
  const void* in0;  // x, dy, x
  const void* in1;  // weight, weight, dy
  void* out;        // y, dx, dweight
};
Call call_of(const Conv2dArgs& a) {
  return {Pass::kForward, a.shape, a.dtype, a.weight_dtype, a.x, a.weight, a.y};
}
Call call_of(const Conv2dBackwardDataArgs& a) {
  return {Pass::kBackwardData, a.shape, a.dtype, a.weight_dtype, a.dy, a.weight, a.dx};
}
Call call_of(const Conv2dBackwardWeightArgs& a) {
  return {Pass::kBackwardWeight, a.shape, a.dtype, a.weight_dtype, a.x, a.dy, a.dweight};
}

template <class Handle, cudnnStatus_t (*Create)(Handle*), cudnnStatus_t (*Destroy)(Handle)>
struct Descriptor {
  Handle handle = nullptr;
  Descriptor() { check_cudnn(Create(&handle), "cudnnCreate...Descriptor"); }
  ~Descriptor() { Destroy(handle); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};
using TensorDescriptor =
    Descriptor<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor>;
using FilterDescriptor =
    Descriptor<cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor>;
using ConvolutionDescriptor =
    Descriptor<cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor,
               cudnnDestroyConvolutionDescriptor>;

struct Algorithm {
  int id;
  std::size_t workspace_bytes;
};

cudnnDataType_t type_of(DType dtype) {
  return dtype == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

// What cuDNN is told of one pass of one shape, and what was chosen for it.
class Plan {
 public:
  Plan(const Call& call, bool tf32) : pass_(call.pass) {
    const Conv2dShape& s = call.shape;
    auto as_int = [](std::int64_t n) { return static_cast<int>(n); };
    const cudnnDataType_t type = type_of(call.dtype);
    const int n = as_int(s.batch), c = as_int(s.channels), k = as_int(s.filters);
    check_cudnn(cudnnSetTensor4dDescriptor(x_.handle, CUDNN_TENSOR_NHWC, type, n, c,
                                           as_int(s.height), as_int(s.width)),
                "cudnnSetTensor4dDescriptor");
    check_cudnn(cudnnSetTensor4dDescriptor(y_.handle, CUDNN_TENSOR_NHWC, type, n, k,
                                           as_int(s.out_height()), as_int(s.out_width())),
                "cudnnSetTensor4dDescriptor");
    check_cudnn(cudnnSetFilter4dDescriptor(weight_.handle, type, CUDNN_TENSOR_NHWC, k, c,
                                           as_int(s.filter_height), as_int(s.filter_width)),
                "cudnnSetFilter4dDescriptor");
    const int padding = as_int(s.padding), stride = as_int(s.stride);
    check_cudnn(
        cudnnSetConvolution2dDescriptor(convolution_.handle, padding, padding, stride, stride, 1, 1,
                                        CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
        "cudnnSetConvolution2dDescriptor");
    // Default math would use TF32 for f32.
    const cudnnMathType_t math = call.dtype == DType::kBF16 ? CUDNN_TENSOR_OP_MATH
                                 : tf32                     ? CUDNN_DEFAULT_MATH
                                                            : CUDNN_FMA_MATH;
    check_cudnn(cudnnSetConvolutionMathType(convolution_.handle, math),
                "cudnnSetConvolutionMathType");
  }

  /// Deterministic algorithms in the order of cuDNN's heuristic. Empty if it has none.
  std::vector<Algorithm> algorithms(cudnnHandle_t handle) const {
    switch (pass_) {
      case Pass::kForward:
        return select<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionForwardAlgorithm_v7(handle, x_.handle, weight_.handle,
                                                            convolution_.handle, y_.handle, most,
                                                            found, list);
            });
      case Pass::kBackwardData:
        return select<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, weight_.handle, y_.handle,
                                                                 convolution_.handle, x_.handle,
                                                                 most, found, list);
            });
      case Pass::kBackwardWeight:
        return select<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                  handle, x_.handle, y_.handle, convolution_.handle, weight_.handle, most, found,
                  list);
            });
    }
    return {};
  }

  cudnnStatus_t run(const Context& context, const Call& call, const Algorithm& algorithm) const {
    cudnnHandle_t const handle = cudnn_of(context);
    const bool round = pass_ != Pass::kBackwardWeight && call.weight_dtype != call.dtype;
    const std::size_t rounded_bytes =
        round ? (static_cast<std::size_t>(call.shape.weight_elements()) * sizeof(bf16) + 255) /
                    256 * 256
              : 0;
    auto* const scratch =
        static_cast<std::byte*>(context.scratch->get(rounded_bytes + algorithm.workspace_bytes));
    const void* in1 = call.in1;
    if (round) {
      conv2d_round_weights(context, call.shape, reinterpret_cast<bf16*>(scratch),
                           static_cast<const float*>(call.in1));
      in1 = scratch;
    }
    void* const workspace = scratch + rounded_bytes;
    const float one = 1.0f, zero = 0.0f;
    switch (pass_) {
      case Pass::kForward:
        return cudnnConvolutionForward(
            handle, &one, x_.handle, call.in0, weight_.handle, in1, convolution_.handle,
            static_cast<cudnnConvolutionFwdAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, y_.handle, call.out);
      case Pass::kBackwardData:
        return cudnnConvolutionBackwardData(
            handle, &one, weight_.handle, in1, y_.handle, call.in0, convolution_.handle,
            static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, x_.handle, call.out);
      case Pass::kBackwardWeight:
        return cudnnConvolutionBackwardFilter(
            handle, &one, x_.handle, call.in0, y_.handle, in1, convolution_.handle,
            static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, weight_.handle, call.out);
    }
    return CUDNN_STATUS_NOT_SUPPORTED;
  }

 private:
  template <class Perf, int kMost, class Query>
  static std::vector<Algorithm> select(Query&& query) {
    std::array<Perf, kMost> list{};
    int found = 0;
    std::vector<Algorithm> chosen;
    if (query(kMost, &found, list.data()) != CUDNN_STATUS_SUCCESS) return chosen;
    for (int i = 0; i < found; ++i) {
      const Perf& perf = list[static_cast<std::size_t>(i)];
      if (perf.status == CUDNN_STATUS_SUCCESS && perf.determinism == CUDNN_DETERMINISTIC &&
          perf.memory <= kMostWorkspaceBytes)
        chosen.push_back({static_cast<int>(perf.algo), perf.memory});
    }
    return chosen;
  }

  Pass pass_;
  TensorDescriptor x_, y_;
  FilterDescriptor weight_;
  ConvolutionDescriptor convolution_;
};

struct Choice {
  std::unique_ptr<Plan> plan;  // null: the hand-written kernel
  Algorithm algorithm{};
};

// Everything that the choice may depend on.
using Key = std::array<std::int64_t, 14>;
Key key_of(const Call& call, bool tf32) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const Conv2dShape& s = call.shape;
  auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return {static_cast<int>(call.pass),
          s.batch,
          s.height,
          s.width,
          s.channels,
          s.filters,
          s.filter_height,
          s.filter_width,
          s.stride,
          s.padding,
          static_cast<int>(call.dtype) * 16 + static_cast<int>(call.weight_dtype),
          tf32,
          aligned(call.in0) * 4 + aligned(call.in1) * 2 + aligned(call.out),
          device};
}

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

// Milliseconds of one run; negative if run() says false.
template <class F>
float time_of(const Events& events, cudaStream_t stream, F&& run) {
  if (!run()) return -1;
  check_cuda(cudaEventRecord(events.begin, stream), "cudaEventRecord");
  for (int i = 0; i < kRepeats; ++i)
    if (!run()) return -1;
  check_cuda(cudaEventRecord(events.end, stream), "cudaEventRecord");
  check_cuda(cudaEventSynchronize(events.end), "cudaEventSynchronize");
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, events.begin, events.end), "cudaEventElapsedTime");
  return ms / kRepeats;
}

enum class Mode { kMeasure, kOwn, kCudnn };
Mode mode_from_environment() {
  const char* const text = std::getenv("RETORT_CONV2D");
  const std::string_view mode = text ? text : "";
  if (mode.empty() || mode == "measure") return Mode::kMeasure;
  if (mode == "own") return Mode::kOwn;
  RETORT_CHECK(mode == "cudnn", "expected RETORT_CONV2D to be measure, own or cudnn, got ", mode);
  return Mode::kCudnn;
}

template <class Own>
Choice choose(const Context& context, const Call& call, bool tf32, Mode mode, Own&& own) {
  Choice choice;
  auto plan = std::make_unique<Plan>(call, tf32);
  std::vector<Algorithm> algorithms = plan->algorithms(cudnn_of(context));
  if (algorithms.empty()) return choice;
  if (mode == Mode::kCudnn) {
    choice.plan = std::move(plan);
    choice.algorithm = algorithms.front();
    return choice;
  }
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const Events events;
  float best = time_of(events, stream, [&] {
    own();
    return true;
  });
  bool cudnn = false;
  if (algorithms.size() > kCandidates) algorithms.resize(kCandidates);
  for (const Algorithm& algorithm : algorithms) {
    const float ms = time_of(events, stream, [&] {
      return plan->run(context, call, algorithm) == CUDNN_STATUS_SUCCESS;
    });
    if (ms >= 0 && ms < best) best = ms, cudnn = true, choice.algorithm = algorithm;
  }
  if (cudnn) choice.plan = std::move(plan);
  return choice;
}

bool is_capturing(const Context& context) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(static_cast<cudaStream_t>(context.stream), &status),
             "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

template <class Args>
void convolve(const Context& context, const Args& args, CudaOp<Args> hand_written) {
  static const Mode mode = mode_from_environment();
  static std::mutex mutex;
  static auto* const choices = new std::map<Key, Choice>();  // never destroyed: cuDNN may be gone
  auto own = [&] {
    if (const Status status = hand_written(context, args); status.code != ErrorCode::kOk)
      throw Error(status.code, status.message);
  };
  const Call call = call_of(args);
  // cuDNN would round the f32 gradient of a bf16 convolution's weights to bf16.
  const bool possible = call.shape.batch > 0 &&
                        (call.dtype == DType::kF32 || call.dtype == DType::kBF16) &&
                        (call.pass != Pass::kBackwardWeight || call.weight_dtype == call.dtype);
  if (mode == Mode::kOwn || !possible) return own();

  const bool tf32 = context.allow_tf32 && call.dtype == DType::kF32;
  const Key key = key_of(call, tf32);
  const Choice* choice = nullptr;
  {
    const std::lock_guard lock(mutex);
    auto found = choices->find(key);
    if (found == choices->end()) {
      if (is_capturing(context)) return own();
      found = choices->emplace(key, choose(context, call, tf32, mode, own)).first;
    }
    choice = &found->second;  // map nodes stay where they are
  }
  if (!choice->plan) return own();
  check_cudnn(choice->plan->run(context, call, choice->algorithm), "cuDNN's convolution");
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

RETORT_CUDA_PROVIDER(conv2d_cudnn) {
  own_forward = std::exchange(conv2d_cuda, guarded<Conv2dArgs, forward_launch>);
  own_backward_data = std::exchange(conv2d_backward_data_cuda,
                                    guarded<Conv2dBackwardDataArgs, backward_data_launch>);
  own_backward_weight = std::exchange(conv2d_backward_weight_cuda,
                                      guarded<Conv2dBackwardWeightArgs, backward_weight_launch>);
}

}  // namespace retort::kernels
