// A custom op as an embedder writes one, and opcheck catching each mistake that it promises to.
#include "engine/autograd/custom_op.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/autograd/autograd.h"
#include "engine/autograd/opcheck.h"
#include "engine/ops/bias.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/mse.h"
#include "engine/ops/reduce.h"
#include "engine/ops/view.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using Tensors = std::vector<Tensor>;

// softplus(x) = log(1 + e^x); its derivative is the logistic function.
template <class T>
void softplus_forward(const Tensor& x, const Tensor& y) {
  for (std::int64_t i = 0; i < x.numel(); ++i)
    y.data<T>()[i] = std::log1p(std::exp(x.data<T>()[i]));
}
template <class T>
void softplus_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  for (std::int64_t i = 0; i < x.numel(); ++i)
    dx.data<T>()[i] = dy.data<T>()[i] / (1 + std::exp(-x.data<T>()[i]));
}

CustomOp softplus() {
  return {.name = "test::softplus",
          .infer = CustomOp::like_first,
          .forward =
              [](const Tensors& in, const Tensor& y) {
                if (y.dtype() == DType::kF64) return softplus_forward<double>(in[0], y);
                softplus_forward<float>(in[0], y);
              },
          .backward =
              [](const CustomOp::Saved& saved, const Tensor& dy, const Tensors& dx) {
                if (dy.dtype() == DType::kF64)
                  return softplus_backward<double>(saved.inputs[0], dy, dx[0]);
                softplus_backward<float>(saved.inputs[0], dy, dx[0]);
              },
          .save_output = false};
}

std::string failures(const OpcheckReport& report) {
  std::string text;
  for (const OpcheckLine& line : report.lines)
    if (line.outcome == OpcheckLine::kFailed) text += line.check + ": " + line.text + "\n";
  return text;
}

TEST(CustomOps, forward_and_backward) {
  Tensor x = Tensor::from<float>({-1, 0, 2}, {3});
  x.set_requires_grad(true);
  const Tensor y = softplus()(x);
  EXPECT_NEAR(y.to_vector<double>()[1], std::log(2.0), 1e-6);
  sum(scale(y, 2)).backward();
  EXPECT_NEAR(x.grad().to_vector<double>()[1], 1.0, 1e-6);
}

TEST(CustomOps, messages_name_the_op) {
  const auto message = [](auto f) {
    try {
      f();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(message([] { softplus()(Tensor()); }).find("test::softplus"), std::string::npos);
  EXPECT_THROW(CustomOp{}(Tensor::zeros({1})), Error);
  if (cuda_available()) {
    EXPECT_NE(message([] {
                softplus()(Tensor::zeros({1}, DType::kF32, Device::kCuda));
              }).find("no version for cuda"),
              std::string::npos);
  }
}

TEST(Opcheck, a_right_op_passes) {
  const OpcheckReport report =
      opcheck(softplus(), {{randn({2, 3}, 1)}, {randn({4}, 2, DType::kF64)}, {randn({}, 3)}});
  EXPECT_TRUE(report.ok()) << report.str();
}

TEST(Opcheck, each_mistake_is_found) {
  const auto expect_failure = [](const CustomOp& op, const char* check) {
    const OpcheckReport report = opcheck(op, {{randn({2, 3}, 1)}});
    EXPECT_FALSE(report.ok()) << check;
    EXPECT_NE(failures(report).find(check), std::string::npos) << check << "\n" << report.str();
  };
  CustomOp op = softplus();
  op.forward = [](const Tensors& in, const Tensor& y) {
    softplus().forward(in, y);
    in[0].fill(0);
  };
  expect_failure(op, "inputs and the incoming gradient are left alone");

  op = softplus();
  op.backward = [](const CustomOp::Saved& s, const Tensor& dy, const Tensors& dx) {
    softplus().backward(s, dy, dx);
    dy.fill(1);
  };
  expect_failure(op, "inputs and the incoming gradient are left alone");

  op = softplus();
  op.forward = [](const Tensors& in, const Tensor& y) {
    const Tensor all = y.clone();
    softplus().forward(in, all);
    y.slice(0, 1).copy_from(all.slice(0, 1));  // the second row is forgotten
  };
  expect_failure(op, "every element is written");

  op = softplus();
  op.backward = [](const CustomOp::Saved&, const Tensor&, const Tensors&) {};
  expect_failure(op, "every element is written");

  op = softplus();
  op.backward = [](const CustomOp::Saved& s, const Tensor& dy, const Tensors& dx) {
    softplus().backward(s, scale(dy, 2), dx);
  };
  expect_failure(op, "backward agrees with central differences");

  op = softplus();
  auto counter = std::make_shared<int>(0);
  op.forward = [counter](const Tensors& in, const Tensor& y) {
    softplus().forward(in, y);
    y.copy_from(add_scalar(y, 1e-3 * ++*counter));
  };
  expect_failure(op, "two runs give the same bits");

  op = softplus();
  op.takes_pitched_rows = true;  // which is not so
  expect_failure(op, "rows with a pitch");

  op = softplus();
  op.infer = [](const Tensors&) -> CustomOp::Spec { throw std::runtime_error("no"); };
  expect_failure(op, "shape rule");

  op = softplus();
  op.forward = [](const Tensors& in, const Tensor& y) {
    if (in[0].numel() == 0) throw std::logic_error("empty");
    softplus().forward(in, y);
  };
  expect_failure(op, "empty inputs");
}

// A second version for CUDA; here it goes by way of the host, since a test has no kernel of its
// own. With a mistake in it, opcheck sees the difference.
TEST(Opcheck, cuda_is_compared_with_the_cpu) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  CustomOp op = softplus();
  op.forward_cuda = [](const Tensors& in, const Tensor& y) {
    const Tensor host = y.to(Device::kCpu);
    softplus().forward({in[0].to(Device::kCpu)}, host);
    y.copy_from(host);
  };
  op.backward_cuda = [](const CustomOp::Saved& s, const Tensor& dy, const Tensors& dx) {
    const Tensor host = dx[0].to(Device::kCpu);
    softplus().backward({{s.inputs[0].to(Device::kCpu)}, {}}, dy.to(Device::kCpu), {host});
    dx[0].copy_from(host);
  };
  const OpcheckReport right = opcheck(op, {{randn({2, 3}, 1)}});
  EXPECT_TRUE(right.ok()) << right.str();
  EXPECT_NE(right.str().find("pass  sample 0: CUDA agrees with the CPU"), std::string::npos)
      << right.str();
  op.backward_cuda = [](const CustomOp::Saved&, const Tensor& dy, const Tensors& dx) {
    dx[0].copy_from(dy);
  };
  EXPECT_NE(failures(opcheck(op, {{randn({2, 3}, 1)}})).find("CUDA agrees"), std::string::npos);
}

// The project's own ops keep the same promises.
TEST(Opcheck, ops_of_the_engine) {
  struct Case {
    const char* name;
    std::function<Tensor(const Tensors&)> f;
    Tensors sample;
  };
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const Tensor a = randn({5, 7}, 1, dtype), b = randn({5, 7}, 2, dtype, 1, 5),
                 row = randn({7}, 3, dtype), one = randn({1}, 4, dtype, 1, 3),
                 w = randn({4, 7}, 5, dtype), w_bias = randn({4}, 6, dtype);
    const std::vector<Case> cases{
        {"add", [](const Tensors& t) { return add(t[0], t[1]); }, {a, b}},
        {"subtract", [](const Tensors& t) { return subtract(t[0], t[1]); }, {a, b}},
        {"multiply", [](const Tensors& t) { return multiply(t[0], t[1]); }, {a, b}},
        {"divide", [](const Tensors& t) { return divide(t[0], t[1]); }, {a, b}},
        {"scale", [](const Tensors& t) { return scale(t[0], -0.7); }, {a}},
        {"relu", [](const Tensors& t) { return relu(t[0]); }, {a}},
        {"exp", [](const Tensors& t) { return exp(t[0]); }, {a}},
        {"log", [](const Tensors& t) { return log(t[0]); }, {b}},
        {"tanh", [](const Tensors& t) { return tanh(t[0]); }, {a}},
        {"sigmoid", [](const Tensors& t) { return sigmoid(t[0]); }, {a}},
        {"gelu", [](const Tensors& t) { return gelu(t[0]); }, {a}},
        {"sum", [](const Tensors& t) { return sum(t[0]); }, {a}},
        {"mean", [](const Tensors& t) { return mean(t[0]); }, {a}},
        {"sum_rows", [](const Tensors& t) { return sum_rows(t[0]); }, {a}},
        {"column_sum", [](const Tensors& t) { return column_sum(t[0]); }, {a}},
        {"add_bias", [](const Tensors& t) { return add_bias(t[0], t[1]); }, {a, row}},
        {"add_bias_relu", [](const Tensors& t) { return add_bias_relu(t[0], t[1]); }, {a, row}},
        {"mse", [](const Tensors& t) { return mse(t[0], t[1]); }, {a, b}},
        {"reshape", [](const Tensors& t) { return reshape(t[0], {t[0].numel()}); }, {a}},
        {"concatenate",
         [](const Tensors& t) {
           return concatenate({t[0], t[1]});
         },
         {a, b}},
        {"slice_rows", [](const Tensors& t) { return slice_rows(t[0], 0, t[0].dim(0) / 2); }, {a}},
        {"linear", [](const Tensors& t) { return linear(t[0], t[1], t[2]); }, {a, w, w_bias}},
    };
    for (const Case& c : cases) {
      const OpcheckReport report = opcheck(c.f, {c.sample});
      EXPECT_TRUE(report.ok()) << c.name << " " << name_of(dtype) << "\n" << report.str();
    }
    const OpcheckReport scalar =
        opcheck([](const Tensors& t) { return multiply(t[0], t[1]); }, {{a, one}});
    EXPECT_TRUE(scalar.ok()) << scalar.str();
  }
}

}  // namespace
}  // namespace retort::test
