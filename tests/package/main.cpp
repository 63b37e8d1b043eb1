// An embedder's program, written and checked against the installed headers alone: tensors and a
// custom op with its own backward; rows of its own in the registries. With a run folder of my.toml:
// whether the run is what these rows say.
#include <cmath>
#include <cstdio>

#include "engine/autograd/custom_op.h"
#include "engine/autograd/opcheck.h"
#include "engine/tensor/tensor.h"
#include "in_process.h"
#include "mine/rows.h"

using retort::CustomOp;
using retort::Tensor;

namespace {

// softplus(x) = log(1 + e^x); its derivative is the logistic function.
const CustomOp softplus{
    .name = "mylab::softplus",
    .infer = CustomOp::like_first,
    .forward =
        [](const std::vector<Tensor>& in, const Tensor& y) {
          for (std::int64_t i = 0; i < y.numel(); ++i)
            y.data<double>()[i] = std::log1p(std::exp(in[0].data<double>()[i]));
        },
    .backward =
        [](const CustomOp::Saved& s, const Tensor& dy, const std::vector<Tensor>& dx) {
          for (std::int64_t i = 0; i < dy.numel(); ++i)
            dx[0].data<double>()[i] =
                dy.data<double>()[i] / (1 + std::exp(-s.inputs[0].data<double>()[i]));
        }};

}  // namespace

int main(int argc, char** argv) {
  mine::add_rows();
  if (argc > 1) return run_is_right(argv[1]) ? 0 : 1;
  Tensor x = Tensor::from<double>({-1, 0, 2}, {3});
  x.set_requires_grad(true);
  const Tensor y = softplus(x);
  y.backward(Tensor::full({3}, 1, retort::DType::kF64));
  const auto gradient = x.grad().to_vector<double>();
  std::printf("softplus'(0) = %.3f\n", gradient[1]);
  const retort::OpcheckReport report = retort::opcheck(softplus, {{x}});
  std::printf("%s", report.str().c_str());
  return std::abs(gradient[1] - 0.5) < 1e-12 && report.ok() && rows_work() ? 0 : 1;
}
