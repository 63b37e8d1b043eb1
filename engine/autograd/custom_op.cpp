#include "engine/autograd/custom_op.h"

#include <cstring>

#include "engine/autograd/autograd.h"
#include "engine/runtime/device.h"

namespace retort {
namespace {

thread_local int t_poison = -1;

Tensor fresh(const Shape& shape, DType dtype, Device device) {
  Tensor t = Tensor::empty(shape, dtype, device);
  if (t_poison < 0 || t.bytes() == 0) return t;
  if (device == Device::kCpu) {
    std::memset(t.raw(), t_poison, t.bytes());
  } else {
    const Status status =
        cuda_runtime.fill(t.raw(), t_poison, t.bytes(), context_of(device).stream);
    RETORT_CHECK_AS(kDevice, status.code == ErrorCode::kOk, "[custom_op] ", status.message);
  }
  return t;
}

// The functions of a recorded result, shared by all its copies.
struct Recorded {
  const char* name;
  CustomOp::Backward backward;
  CustomOp::Saved saved;
  std::vector<Tensor> like;  // of each input whose gradient is wanted: its shape, dtype, device
  bool takes_pitched_rows;
};

}  // namespace

namespace detail {
PoisonScope::PoisonScope(int byte) : before_(t_poison) { t_poison = byte; }
PoisonScope::~PoisonScope() { t_poison = before_; }
}  // namespace detail

CustomOp::Spec CustomOp::like_first(const std::vector<Tensor>& inputs) {
  RETORT_CHECK(!inputs.empty() && inputs[0].defined(), "[custom_op] expected a first input");
  return {inputs[0].shape(), inputs[0].dtype()};
}

Tensor CustomOp::apply(const std::vector<Tensor>& given) const {
  RETORT_CHECK(name != nullptr && infer != nullptr && forward != nullptr,
               "[custom_op] expected a name, a shape rule and a forward function");
  const Tensor* first = nullptr;
  for (const Tensor& t : given) {
    if (!t.defined()) continue;
    if (first == nullptr) first = &t;
    RETORT_CHECK(t.device() == first->device(), "[", name, "] expected all inputs on ",
                 name_of(first->device()), ", got one on ", name_of(t.device()));
  }
  RETORT_CHECK(first != nullptr, "[", name, "] expected at least one defined input");
  const Device device = first->device();
  const Forward& run = device == Device::kCpu ? forward : forward_cuda;
  RETORT_CHECK_AS(kDevice, run != nullptr, "[", name, "] this op has no version for ",
                  name_of(device));

  std::vector<Tensor> inputs;
  bool wanted = false;
  inputs.reserve(given.size());
  for (const Tensor& t : given) {
    wanted = wanted || needs_grad(t);
    inputs.push_back(t.defined() ? (takes_pitched_rows ? t : t.contiguous()).detach() : Tensor());
  }
  const Spec spec = infer(inputs);
  Tensor y = fresh(spec.shape, spec.dtype, device);
  {
    const NoGrad no_grad;
    run(inputs, y);
  }
  const Backward& back = device == Device::kCpu ? backward : backward_cuda;
  if (!wanted) return y;
  if (backward == nullptr && backward_cuda == nullptr) return y;
  RETORT_CHECK_AS(kDevice, back != nullptr, "[", name, "] this op has no backward for ",
                  name_of(device));
  auto recorded = std::make_shared<Recorded>();
  recorded->name = name;
  recorded->backward = back;
  recorded->takes_pitched_rows = takes_pitched_rows;
  for (const Tensor& t : given) recorded->like.push_back(needs_grad(t) ? t.detach() : Tensor());
  if (save_inputs) recorded->saved.inputs = std::move(inputs);
  if (save_output) recorded->saved.output = y;
  if (!save_inputs) recorded->saved.inputs.resize(given.size());
  return record(name, y, given, [recorded](const Tensor& dy) {
    std::vector<Tensor> gradients(recorded->like.size());
    for (std::size_t i = 0; i < gradients.size(); ++i)
      if (const Tensor& t = recorded->like[i]; t.defined())
        gradients[i] = fresh(t.shape(), t.dtype(), t.device());
    recorded->backward(recorded->saved, recorded->takes_pitched_rows ? dy : dy.contiguous(),
                       gradients);
    return gradients;
  });
}

}  // namespace retort
