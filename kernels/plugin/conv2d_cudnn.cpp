// cuDNN's convolutions, as candidates of the choice (conv2d_choice.cpp).
//
// This uses cuDNN's classic interface, deprecated since 9.0; what its graph interface adds is in
// conv2d_graph_cudnn.cpp. cuDNN gets the plain convolution: an epilogue or statistics follow as
// passes of ours.
//
// Note [cuDNN and gradients of f32 weights]
//   Training in bf16 keeps weights, and so their gradients, in f32. Of bf16 operands cuDNN's
//   classic interface writes bf16 gradients alone: a pass to f32 behind it would keep their
//   rounding, and a run's precision would depend on which candidate was the faster. So for these
//   gradients only the graph interface has candidates, which write f32. Forward and backward to
//   the images are offered here: there the weights' bf16 copy is what is multiplied on either side.
#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/plugin/cudnn_operands.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace retort::kernels {
namespace {

constexpr std::size_t kCandidates = 3;  // in the order of cuDNN's heuristic

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

// cuDNN's refusals: NOT_SUPPORTED or, since 9.0, one of its kinds.
bool is_not_supported(cudnnStatus_t status) {
#if defined(CUDNN_STATUS_CATEGORY)
  return CUDNN_STATUS_CATEGORY(static_cast<int>(status)) == CUDNN_STATUS_NOT_SUPPORTED;
#else
  return status == CUDNN_STATUS_NOT_SUPPORTED;
#endif
}

// What cuDNN is told of one pass of one shape.
class CudnnPlan {
 public:
  explicit CudnnPlan(Conv2dPass pass) : pass_(pass) {}

  /// False if cuDNN has no such problem: a size, layout or type that it does not support.
  bool describe(const Conv2dCall& call, bool tf32) {
    const Conv2dShape& s = call.shape;
    auto as_int = [](std::int64_t n) { return static_cast<int>(n); };
    const cudnnDataType_t type = type_of(call.dtype);
    const int n = as_int(s.batch), c = as_int(s.channels), k = as_int(s.filters);
    const int padding = as_int(s.padding), stride = as_int(s.stride);
    // Default math would use TF32 for f32.
    math_ = call.dtype == DType::kBF16 ? CUDNN_TENSOR_OP_MATH
            : tf32                     ? CUDNN_DEFAULT_MATH
                                       : CUDNN_FMA_MATH;
    const auto accepts = [](cudnnStatus_t status, const char* what) {
      if (is_not_supported(status)) return false;
      check_cudnn(status, what);
      return true;
    };
    return accepts(cudnnSetTensor4dDescriptor(x_.handle, CUDNN_TENSOR_NHWC, type, n, c,
                                              as_int(s.height), as_int(s.width)),
                   "cudnnSetTensor4dDescriptor") &&
           accepts(cudnnSetTensor4dDescriptor(y_.handle, CUDNN_TENSOR_NHWC, type, n, k,
                                              as_int(s.out_height()), as_int(s.out_width())),
                   "cudnnSetTensor4dDescriptor") &&
           accepts(cudnnSetFilter4dDescriptor(weight_.handle, type, CUDNN_TENSOR_NHWC, k, c,
                                              as_int(s.filter_height), as_int(s.filter_width)),
                   "cudnnSetFilter4dDescriptor") &&
           accepts(cudnnSetConvolution2dDescriptor(convolution_.handle, padding, padding, stride,
                                                   stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                                   CUDNN_DATA_FLOAT),
                   "cudnnSetConvolution2dDescriptor") &&
           accepts(cudnnSetConvolutionMathType(convolution_.handle, math_),
                   "cudnnSetConvolutionMathType");
  }

  /// Deterministic algorithms in the order of cuDNN's heuristic. Empty if it has none.
  std::vector<Algorithm> algorithms(cudnnHandle_t handle) const {
    switch (pass_) {
      case Conv2dPass::kForward:
        return select<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionForwardAlgorithm_v7(handle, x_.handle, weight_.handle,
                                                            convolution_.handle, y_.handle, most,
                                                            found, list);
            });
      case Conv2dPass::kBackwardData:
        return select<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, weight_.handle, y_.handle,
                                                                 convolution_.handle, x_.handle,
                                                                 most, found, list);
            });
      case Conv2dPass::kBackwardWeight:
        return select<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT>(
            [&](int most, int* found, auto* list) {
              return cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                  handle, x_.handle, y_.handle, convolution_.handle, weight_.handle, most, found,
                  list);
            });
    }
    return {};
  }

  cudnnStatus_t run(const Context& context, const Conv2dCall& call,
                    const Algorithm& algorithm) const {
    cudnnHandle_t const handle = cudnn_of(context);
    const auto [in1, workspace] = cudnn_operands(context, call, algorithm.workspace_bytes);
    const float one = 1.0f, zero = 0.0f;
    switch (pass_) {
      case Conv2dPass::kForward:
        return cudnnConvolutionForward(
            handle, &one, x_.handle, call.in0, weight_.handle, in1, convolution_.handle,
            static_cast<cudnnConvolutionFwdAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, y_.handle, call.out);
      case Conv2dPass::kBackwardData:
        return cudnnConvolutionBackwardData(
            handle, &one, weight_.handle, in1, y_.handle, call.in0, convolution_.handle,
            static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, x_.handle, call.out);
      case Conv2dPass::kBackwardWeight:
        return cudnnConvolutionBackwardFilter(
            handle, &one, x_.handle, call.in0, y_.handle, in1, convolution_.handle,
            static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm.id), workspace,
            algorithm.workspace_bytes, &zero, weight_.handle, call.out);
    }
    return CUDNN_STATUS_NOT_SUPPORTED;
  }

 private:
  template <class Perf, int kMost, class Query>
  std::vector<Algorithm> select(Query&& query) const {
    std::array<Perf, kMost> list{};
    int found = 0;
    std::vector<Algorithm> chosen;
    if (query(kMost, &found, list.data()) != CUDNN_STATUS_SUCCESS) return chosen;
    for (int i = 0; i < found; ++i) {
      const Perf& perf = list[static_cast<std::size_t>(i)];
      // An algorithm is listed once for each math type; what runs is the descriptor's, whose
      // workspace this must be.
      if (perf.status != CUDNN_STATUS_SUCCESS || perf.determinism != CUDNN_DETERMINISTIC ||
          perf.mathType != math_ || perf.memory > kMostCudnnWorkspaceBytes)
        continue;
      const int id = static_cast<int>(perf.algo);
      if (std::none_of(chosen.begin(), chosen.end(), [id](const auto& a) { return a.id == id; }))
        chosen.push_back({id, perf.memory});
    }
    return chosen;
  }

  Conv2dPass pass_;
  cudnnMathType_t math_ = CUDNN_DEFAULT_MATH;
  TensorDescriptor x_, y_;
  FilterDescriptor weight_;
  ConvolutionDescriptor convolution_;
};

std::vector<Conv2dLibraryCandidate> candidates_of(const Context& context, const Conv2dCall& call,
                                                  bool tf32) {
  // Note [cuDNN and gradients of f32 weights]
  if (call.pass == Conv2dPass::kBackwardWeight && call.weight_dtype != call.dtype) return {};
  const auto plan = std::make_shared<CudnnPlan>(call.pass);
  if (!plan->describe(call, tf32)) return {};
  std::vector<Conv2dLibraryCandidate> candidates;
  for (const Algorithm& algorithm : plan->algorithms(cudnn_of(context))) {
    if (candidates.size() == kCandidates) break;
    candidates.push_back(
        {{"cudnn", algorithm.id}, [plan, algorithm](const Context& c, const Conv2dCall& now) {
           return plan->run(c, now, algorithm) == CUDNN_STATUS_SUCCESS;
         }});
  }
  return candidates;
}

}  // namespace

RETORT_CUDA_PROVIDER(conv2d_cudnn) { conv2d_library_candidates = candidates_of; }

}  // namespace retort::kernels
