// Ops of one's own: forward, backward and shape rule in one place, recorded on the tape like any
// other op. Needs the installed headers alone.
//
//   // softplus(x) = log(1 + e^x); its derivative is the logistic function.
//   const CustomOp softplus{
//       .name = "mylab::softplus",
//       .infer = CustomOp::like_first,
//       .forward = [](const std::vector<Tensor>& in, const Tensor& y) {
//         for (std::int64_t i = 0; i < y.numel(); ++i)
//           y.data<double>()[i] = std::log1p(std::exp(in[0].data<double>()[i]));
//       },
//       .backward = [](const CustomOp::Saved& s, const Tensor& dy, const std::vector<Tensor>& dx) {
//         for (std::int64_t i = 0; i < dy.numel(); ++i)
//           dx[0].data<double>()[i] =
//               dy.data<double>()[i] / (1 + std::exp(-s.inputs[0].data<double>()[i]));
//       }};
//   Tensor y = softplus(x);
//   OpcheckReport report = opcheck(softplus, {{x}});      // engine/autograd/opcheck.h
//
// A CUDA version goes in forward_cuda and backward_cuda: functions from a .cu file that launch on
// context_of(Device::kCuda).stream (engine/runtime/device.h) and return at once.
#pragma once
#include <functional>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort {

/// A differentiable op with one result. Copies share nothing; a result on the tape keeps copies of
/// the functions it needs.
struct CustomOp {
  /// Shape and element type of a result.
  struct Spec {
    Shape shape;
    DType dtype = DType::kF32;
  };
  /// What backward may read: all inputs (undefined with save_inputs = false) and the output
  /// (undefined with save_output = false).
  struct Saved {
    std::vector<Tensor> inputs;
    Tensor output;
  };
  using Infer = std::function<Spec(const std::vector<Tensor>& inputs)>;
  /// Writes every element of `output`, whose memory is new. Inputs must stay as they are.
  using Forward = std::function<void(const std::vector<Tensor>& inputs, const Tensor& output)>;
  /// Writes every element of each defined dinputs[i]; the undefined ones are not wanted.
  using Backward = std::function<void(const Saved& saved, const Tensor& doutput,
                                      const std::vector<Tensor>& dinputs)>;

  const char* name = nullptr;  // a literal; messages quote it
  Infer infer;                 // throws Error where the inputs do not fit
  Forward forward = nullptr;   // on the CPU
  Forward forward_cuda = nullptr;
  Backward backward = nullptr;  // without one, results are constants on the tape
  Backward backward_cuda = nullptr;
  /// False: inputs and gradients arrive contiguous, copied if need be. True: as they are.
  bool takes_pitched_rows = false;
  bool save_inputs = true, save_output = true;

  /// Runs the op on its inputs' device. Undefined inputs are passed on as they are.
  /// Errors    Error if there is no defined input, devices differ, or the op has no version for
  ///           the device.
  Tensor apply(const std::vector<Tensor>& inputs) const;

  template <class... Inputs>
  Tensor operator()(const Inputs&... inputs) const {
    return apply({inputs...});
  }

  /// The commonest shape rule: the result is like the first input.
  static Spec like_first(const std::vector<Tensor>& inputs);
};

namespace detail {
/// While one lives, results and gradients of custom ops in this thread start as bytes of this value
/// and not as whatever the memory held: opcheck finds elements that nobody wrote.
class PoisonScope {
 public:
  explicit PoisonScope(int byte);
  ~PoisonScope();
  PoisonScope(const PoisonScope&) = delete;
  PoisonScope& operator=(const PoisonScope&) = delete;

 private:
  int before_;
};
}  // namespace detail

}  // namespace retort
