// cuDNN's convolutions of bf16 images by its graph interface, as further candidates of the choice
// (conv2d_choice.cpp). Its engines are newer than the classic interface's, and one of them may
// write the f32 gradient of f32 weights, which that interface cannot (conv2d_cudnn.cpp).
//
// A candidate is an engine's plan: only engines that are deterministic, and of those that cuDNN
// would have to compile first, which takes seconds, only where there is no other. Whatever cuDNN
// does not build gives no candidate, and the choice keeps none that disagrees with our kernels.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/plugin/cudnn_operands.h"

namespace retort::kernels {
namespace {

constexpr std::int64_t kMostConfigurations = 16;  // of the heuristic's list, in its order
constexpr std::size_t kCandidates = 2;
constexpr std::int64_t kAlignment = 16;  // bytes, of every tensor
constexpr int kFirstAlgorithm = 1000;    // + engine: apart from the classic interface's numbers

// A descriptor of the interface. The first status that is not success stays, and nothing is done
// after it.
class Object {
 public:
  explicit Object(cudnnBackendDescriptorType_t type) {
    status_ = cudnnBackendCreateDescriptor(type, &handle_);
  }
  ~Object() {
    if (handle_ != nullptr) cudnnBackendDestroyDescriptor(handle_);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  cudnnBackendDescriptor_t handle() const { return handle_; }
  bool ok() const { return status_ == CUDNN_STATUS_SUCCESS; }

  template <class T>
  Object& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
              std::span<const T> values) {
    if (ok())
      status_ = cudnnBackendSetAttribute(handle_, name, type,
                                         static_cast<std::int64_t>(values.size()), values.data());
    return *this;
  }
  template <class T>
  Object& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, std::span<const T>(&value, 1));
  }
  Object& set(cudnnBackendAttributeName_t name, const Object& other) {
    if (ok() && !other.ok()) status_ = other.status_;
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, other.handle_);
  }
  /// How many values there are; at most `room` are written.
  template <class T>
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, T* values,
                   std::int64_t room) {
    std::int64_t count = 0;
    if (ok()) status_ = cudnnBackendGetAttribute(handle_, name, type, room, &count, values);
    return ok() ? count : 0;
  }
  bool finalize() {
    if (ok()) status_ = cudnnBackendFinalize(handle_);
    return ok();
  }

 private:
  cudnnBackendDescriptor_t handle_ = nullptr;
  cudnnStatus_t status_ = CUDNN_STATUS_SUCCESS;
};

// Names of the three tensors in a graph and its calls.
enum : std::int64_t { kX = 1, kWeight = 2, kY = 3 };

// cuDNN names dimensions N C H W whatever their order in memory, which is N H W C.
void describe(Object& tensor, std::int64_t name, cudnnDataType_t type, std::int64_t n,
              std::int64_t c, std::int64_t h, std::int64_t w) {
  const std::int64_t sizes[4] = {n, c, h, w}, strides[4] = {h * w * c, 1, w * c, c};
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, name)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, std::span<const std::int64_t>(sizes))
      .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, std::span<const std::int64_t>(strides))
      .finalize();
}

// Which attributes of a pass's operation name what.
struct PassNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t x, weight, y, convolution, alpha, beta;
};
PassNames names_of(Conv2dPass pass) {
  switch (pass) {
    case Conv2dPass::kForward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case Conv2dPass::kBackwardData:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Conv2dPass::kBackwardWeight: break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

// One convolution as a graph, and what it is made of: all of it must outlive its plans.
class Graph {
 public:
  Graph(cudnnHandle_t handle, const Conv2dCall& call) {
    const Conv2dShape& s = call.shape;
    const bool f32_gradient =
        call.pass == Conv2dPass::kBackwardWeight && call.weight_dtype == DType::kF32;
    describe(x_, kX, CUDNN_DATA_BFLOAT16, s.batch, s.channels, s.height, s.width);
    describe(y_, kY, CUDNN_DATA_BFLOAT16, s.batch, s.filters, s.out_height(), s.out_width());
    describe(weight_, kWeight, f32_gradient ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16, s.filters,
             s.channels, s.filter_height, s.filter_width);
    using Pair = std::array<std::int64_t, 2>;
    const Pair padding{s.padding, s.padding}, stride{s.stride, s.stride}, dilation{1, 1};
    const std::int64_t spatial = 2;
    const auto pair = [](const Pair& p) { return std::span<const std::int64_t>(p); };
    convolution_.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT)
        .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION)
        .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, spatial)
        .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, pair(padding))
        .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, pair(padding))
        .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, pair(stride))
        .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, pair(dilation))
        .finalize();
    const PassNames names = names_of(call.pass);
    operation_ = std::make_unique<Object>(names.operation);
    const float one = 1.0f, zero = 0.0f;
    operation_->set(names.x, x_)
        .set(names.weight, weight_)
        .set(names.y, y_)
        .set(names.convolution, convolution_)
        .set(names.alpha, CUDNN_TYPE_FLOAT, one)
        .set(names.beta, CUDNN_TYPE_FLOAT, zero)
        .finalize();
    graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle)
        .set(CUDNN_ATTR_OPERATIONGRAPH_OPS, *operation_)
        .finalize();
  }
  const Object& get() const { return graph_; }

 private:
  Object x_{CUDNN_BACKEND_TENSOR_DESCRIPTOR}, y_{CUDNN_BACKEND_TENSOR_DESCRIPTOR},
      weight_{CUDNN_BACKEND_TENSOR_DESCRIPTOR}, convolution_{CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR};
  std::unique_ptr<Object> operation_;
  Object graph_{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};
};

struct Plan {
  std::shared_ptr<const Graph> graph;
  std::unique_ptr<Object> configuration, plan;
  int engine = 0;
  bool compiled_first = false;  // by cuDNN, at run time
  std::size_t workspace_bytes = 0;
};

// The engine of a configuration; -1 if it is not deterministic or says nothing.
int engine_of(Object& configuration, bool* compiled_first) {
  Object engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t handle = engine.handle();
  std::int64_t number = -1;
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  std::array<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT> behaviours{};
  configuration.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, &handle, 1);
  if (!configuration.ok()) return -1;
  engine.get(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, &number, 1);
  const std::int64_t count = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                        notes.data(), static_cast<std::int64_t>(notes.size())),
                     more = engine.get(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                       behaviours.data(),
                                       static_cast<std::int64_t>(behaviours.size()));
  if (!engine.ok()) return -1;
  for (std::int64_t i = 0; i < count; ++i)
    if (notes[static_cast<std::size_t>(i)] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return -1;
  *compiled_first = false;
  for (std::int64_t i = 0; i < more; ++i)
    *compiled_first |=
        behaviours[static_cast<std::size_t>(i)] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
  return static_cast<int>(number);
}

// Configurations that may become plans, one an engine, in the heuristic's order.
std::vector<Plan> configurations_of(const std::shared_ptr<const Graph>& graph) {
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  Object heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph->get())
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  std::vector<Plan> found;
  if (!heuristic.finalize()) return found;
  std::vector<std::unique_ptr<Object>> list;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::int64_t i = 0; i < kMostConfigurations; ++i) {
    list.push_back(std::make_unique<Object>(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    handles.push_back(list.back()->handle());
  }
  const std::int64_t count =
      std::min(kMostConfigurations,
               heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                             handles.data(), kMostConfigurations));
  for (std::int64_t i = 0; i < count; ++i) {
    Plan plan;
    plan.graph = graph;
    plan.configuration = std::move(list[static_cast<std::size_t>(i)]);
    plan.engine = engine_of(*plan.configuration, &plan.compiled_first);
    bool again = false;
    for (const Plan& other : found) again |= other.engine == plan.engine;
    if (plan.engine >= 0 && !again) found.push_back(std::move(plan));
  }
  return found;
}

// False if cuDNN does not build it, or its workspace is too large.
bool build(cudnnHandle_t handle, Plan* plan) {
  plan->plan = std::make_unique<Object>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan->plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle)
      .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, *plan->configuration);
  if (!plan->plan->finalize()) return false;
  std::int64_t bytes = 0;
  plan->plan->get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, &bytes, 1);
  plan->workspace_bytes = static_cast<std::size_t>(bytes);
  return plan->plan->ok() && plan->workspace_bytes <= kMostCudnnWorkspaceBytes;
}

bool run(const Plan& plan, const Context& context, const Conv2dCall& call) {
  cudnnHandle_t const handle = cudnn_of(context);
  const auto [in1, workspace] = cudnn_operands(context, call, plan.workspace_bytes);
  const void *x = call.in0, *weight = in1, *y = call.out;
  if (call.pass == Conv2dPass::kBackwardData) x = call.out, y = call.in0;
  if (call.pass == Conv2dPass::kBackwardWeight) weight = call.out, y = in1;
  const std::int64_t names[3] = {kX, kWeight, kY};
  const void* const pointers[3] = {x, weight, y};
  Object pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
           std::span<const std::int64_t>(names))
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
           std::span<const void* const>(pointers))
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  return pack.finalize() &&
         cudnnBackendExecute(handle, plan.plan->handle(), pack.handle()) == CUDNN_STATUS_SUCCESS;
}

Conv2dLibrary classic = nullptr;

std::vector<Conv2dLibraryCandidate> candidates_of(const Context& context, const Conv2dCall& call,
                                                  bool tf32) {
  std::vector<Conv2dLibraryCandidate> candidates;
  if (classic != nullptr) candidates = classic(context, call, tf32);
  const auto aligned = [](const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % kAlignment == 0;
  };
  if (call.dtype != DType::kBF16 || !aligned(call.in0) || !aligned(call.in1) || !aligned(call.out))
    return candidates;
  cudnnHandle_t const handle = cudnn_of(context);
  std::vector<Plan> plans = configurations_of(std::make_shared<const Graph>(handle, call));
  std::size_t added = 0;
  const auto add = [&](Plan& found) {
    if (!build(handle, &found)) return;
    const auto plan = std::make_shared<const Plan>(std::move(found));
    candidates.push_back(
        {{"cudnn", kFirstAlgorithm + plan->engine},
         [plan](const Context& c, const Conv2dCall& now) { return run(*plan, c, now); }});
    ++added;
  };
  for (Plan& plan : plans)
    if (!plan.compiled_first && added < kCandidates) add(plan);
  for (Plan& plan : plans)
    if (plan.compiled_first && candidates.empty()) add(plan);
  return candidates;
}

}  // namespace

// After conv2d_cudnn, whose name comes first.
RETORT_CUDA_PROVIDER(conv2d_graph_cudnn) {
  classic = conv2d_library_candidates;
  conv2d_library_candidates = candidates_of;
}

}  // namespace retort::kernels
