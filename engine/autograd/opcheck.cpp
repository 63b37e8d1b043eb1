#include "engine/autograd/opcheck.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "engine/autograd/autograd.h"
#include "engine/autograd/gradcheck.h"
#include "engine/runtime/device.h"
#include "kernels/common/philox.h"

namespace retort {
namespace {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;
using Tensors = std::vector<Tensor>;

struct Outputs {  // of one forward and backward, on the CPU
  Tensor result;
  Tensors gradients;  // one per input, undefined where none was wanted or given
};

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return false;
  const Tensor x = a.to(Device::kCpu).contiguous(), y = b.to(Device::kCpu).contiguous();
  return x.numel() == 0 || std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

// "" if every element agrees; NaN agrees with NaN here, since both sides are the op itself.
std::string difference(const Tensor& got, const Tensor& want, double rtol, double atol) {
  if (got.defined() != want.defined()) return "one is undefined";
  if (!got.defined()) return "";
  if (!(got.shape() == want.shape()))
    return join("shape ", got.shape(), " instead of ", want.shape());
  const std::vector<double> g = got.to_vector<double>(), w = want.to_vector<double>();
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (g[i] == w[i] || (std::isnan(g[i]) && std::isnan(w[i]))) continue;
    if (std::abs(g[i] - w[i]) <= atol + rtol * std::abs(w[i]) && std::isfinite(g[i]) &&
        std::isfinite(w[i]))
      continue;
    return join("element ", i, ": ", g[i], " instead of ", w[i]);
  }
  return "";
}

// An upstream gradient that differs in every element.
Tensor upstream(const Shape& shape, DType dtype, Device device) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] =
        0.5 + static_cast<double>(uniform01(
                  philox(3, static_cast<std::uint32_t>(i), 0, 0, path_hash("opcheck")).v[0]));
  return Tensor::from(values, shape).to(dtype).to(device);
}

// The same values behind `offset` elements, rows `extra` elements further apart, gaps of 0xFF.
Tensor displaced(const Tensor& t, std::int64_t offset, std::int64_t extra) {
  if (!t.defined()) return t;
  const std::int64_t width = t.rank() == 0 ? 1 : t.dim(-1), pitch = width + extra;
  const std::size_t bytes =
      static_cast<std::size_t>(offset + std::max<std::int64_t>(t.rows(), 1) * pitch) *
      size_of(t.dtype());
  auto storage = std::make_shared<Storage>(t.device(), bytes);
  if (t.device() == Device::kCpu) std::memset(storage->data(), 0xFF, bytes);
  const Tensor out = Tensor::wrap(std::move(storage), offset, t.shape(), t.dtype(), pitch);
  out.copy_from(t);
  return out;
}

class Checker {
 public:
  Checker(Function f, bool has_backward, bool has_cuda, const OpcheckOptions& options)
      : f_(std::move(f)), has_backward_(has_backward), has_cuda_(has_cuda), options_(options) {}

  // What is asked of every op. `number` names the sample in the lines.
  void run(const Tensors& sample, std::size_t number) {
    prefix_ = join("sample ", number, ": ");
    choose(sample);
    Outputs first;  // every run on copies: a bad op may write over its inputs
    if (!guarded("runs", [&] {
          first = evaluate(copies(sample));
          return std::string();
        }))
      return;
    guarded("inputs and the incoming gradient are left alone", [&] {
      const Tensors inputs = copies(sample);
      Tensor dy;
      evaluate(inputs, -1, &dy);
      for (std::size_t i = 0; i < inputs.size(); ++i)
        if (!same_bits(inputs[i], sample[i])) return join("input ", i, " was changed");
      if (dy.defined() && !same_bits(dy, upstream(dy.shape(), dy.dtype(), dy.device())))
        return std::string("the incoming gradient was changed");
      return std::string();
    });
    guarded("two runs give the same bits",
            [&] { return compare_bits(evaluate(copies(sample)), first, "in the second run"); });
    guarded("every element is written", [&] {
      for (const int byte : {0xFF, 0x3C}) {
        const detail::PoisonScope poison(byte);
        const std::string text = compare_bits(evaluate(copies(sample)), first,
                                              "over other old memory: not all is written");
        if (!text.empty()) return text;
      }
      return std::string();
    });
    if (differentiable())
      guarded("a gradient does not depend on which others are wanted", [&] {
        for (std::size_t i = 0; i < sample.size(); ++i) {
          if (!chosen_[i]) continue;
          const Outputs alone = evaluate(copies(sample), static_cast<int>(i));
          if (!same_bits(alone.gradients[i], first.gradients[i]))
            return join("the gradient of input ", i, " alone differs");
        }
        return std::string();
      });
    guarded("rows with a pitch",
            [&] { return compare_close(evaluate(moved(sample, 0, 3)), first, true); });
    guarded("pointers off alignment",
            [&] { return compare_close(evaluate(moved(sample, 1, 0)), first, true); });
    check_empty(sample);
    check_cuda(sample, first);
    check_gradients(sample);
  }

  OpcheckReport report;

 private:
  bool differentiable() const {
    return options_.gradients && has_backward_ &&
           std::find(chosen_.begin(), chosen_.end(), true) != chosen_.end();
  }

  void choose(const Tensors& sample) {
    const bool any = std::any_of(sample.begin(), sample.end(),
                                 [](const Tensor& t) { return t.defined() && t.requires_grad(); });
    chosen_.clear();
    for (const Tensor& t : sample)
      chosen_.push_back(t.defined() && is_floating(t.dtype()) && (!any || t.requires_grad()));
  }

  // Forward, and backward to the chosen inputs (or to `only` of them).
  Outputs evaluate(const Tensors& inputs, int only = -1, Tensor* dy_out = nullptr) const {
    Tensors leaves;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Tensor t = inputs[i].defined() ? inputs[i].detach() : Tensor();
      if (chosen_[i] && differentiable() && (only < 0 || only == static_cast<int>(i)))
        t.set_requires_grad(true);
      leaves.push_back(t);
    }
    const Tensor y = f_(leaves);
    Outputs out{y.detach().to(Device::kCpu).clone(), Tensors(inputs.size())};
    if (!differentiable()) return out;
    RETORT_CHECK(y.requires_grad(), "the result is not on the tape: no backward was recorded");
    const Tensor dy = upstream(y.shape(), y.dtype(), y.device());
    y.backward(dy);
    if (dy_out) *dy_out = dy;
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (leaves[i].defined() && leaves[i].grad().defined())
        out.gradients[i] = leaves[i].grad().to(Device::kCpu);
    return out;
  }

  static Tensors copies(const Tensors& sample) {
    Tensors out;
    for (const Tensor& t : sample) out.push_back(t.defined() ? t.clone() : Tensor());
    return out;
  }

  static Tensors moved(const Tensors& sample, std::int64_t offset, std::int64_t extra) {
    Tensors out;
    for (const Tensor& t : sample) out.push_back(displaced(t, offset, extra));
    return out;
  }

  static std::string compare_bits(const Outputs& got, const Outputs& want, const char* when) {
    if (!same_bits(got.result, want.result)) return join("the result differs ", when);
    for (std::size_t i = 0; i < want.gradients.size(); ++i)
      if (!same_bits(got.gradients[i], want.gradients[i]))
        return join("the gradient of input ", i, " differs ", when);
    return "";
  }

  std::string compare_close(const Outputs& got, const Outputs& want, bool default_tolerance) const {
    const auto one = [&](const Tensor& g, const Tensor& w) {
      double rtol = options_.rtol, atol = options_.atol;
      if (default_tolerance || (rtol == 0 && atol == 0)) {
        const DType dtype = w.defined() ? w.dtype() : DType::kF32;
        rtol = dtype == DType::kF64 ? 1e-7 : dtype == DType::kF32 ? 1.3e-6 : 1.6e-2;
        atol = dtype == DType::kF64 ? 1e-7 : 1e-5;
      }
      return difference(g, w, rtol, atol);
    };
    if (const std::string text = one(got.result, want.result); !text.empty())
      return join("result, ", text);
    for (std::size_t i = 0; i < want.gradients.size(); ++i)
      if (const std::string text = one(got.gradients[i], want.gradients[i]); !text.empty())
        return join("gradient of input ", i, ", ", text);
    return "";
  }

  void check_empty(const Tensors& sample) {
    const char* const check = "empty inputs";
    Tensors empty;
    bool any = false;
    for (const Tensor& t : sample) {
      if (t.defined() && t.rank() >= 1) {
        any = true;
        empty.push_back(t.slice(0, 0));
      } else {
        empty.push_back(t);
      }
    }
    if (!any) return add(OpcheckLine::kSkipped, check, "no input has a dimension");
    try {
      evaluate(empty);
      add(OpcheckLine::kPassed, check, "");
    } catch (const Error& e) {
      add(OpcheckLine::kPassed, check, join("refused: ", e.what()));
    } catch (const std::exception& e) {
      add(OpcheckLine::kFailed, check, join("threw something other than Error: ", e.what()));
    }
  }

  void check_cuda(const Tensors& sample, const Outputs& first) {
    const char* const check = "CUDA agrees with the CPU";
    if (!options_.cuda) return add(OpcheckLine::kSkipped, check, "not asked for");
    if (!has_cuda_) return add(OpcheckLine::kSkipped, check, "the op has no CUDA version");
    if (!cuda_available()) return add(OpcheckLine::kSkipped, check, cuda_unavailable_reason());
    guarded(check, [&] {
      Tensors there;
      for (const Tensor& t : sample) there.push_back(t.defined() ? t.to(Device::kCuda) : Tensor());
      const Outputs got = evaluate(copies(there));
      if (const std::string text = compare_bits(evaluate(there), got, "between two runs");
          !text.empty())
        return text;
      return compare_close(got, first, false);
    });
  }

  void check_gradients(const Tensors& sample) {
    const char* const check = "backward agrees with central differences";
    if (!differentiable()) return add(OpcheckLine::kSkipped, check, "not differentiable");
    Tensors doubles;
    for (std::size_t i = 0; i < sample.size(); ++i) {
      const Tensor& t = sample[i];
      doubles.push_back(t.defined() && is_floating(t.dtype())
                            ? t.detach().to(Device::kCpu).to(DType::kF64).clone()
                            : t);
      if (chosen_[i]) doubles.back().set_requires_grad(true);
    }
    try {
      const NoGrad no_grad;
      f_(doubles);
    } catch (const Error& e) {
      return add(OpcheckLine::kSkipped, check, join("the op refuses f64: ", e.what()));
    }
    guarded(check, [&] {
      const GradcheckResult result =
          gradcheck(f_, doubles, options_.eps, options_.gradient_atol, options_.gradient_rtol);
      return result.ok ? std::string() : result.message;
    });
  }

  // Runs one check; "" is a pass. True if it passed.
  template <class F>
  bool guarded(const char* check, F&& f) {
    std::string text;
    try {
      text = f();
    } catch (const std::exception& e) {
      text = join("threw: ", e.what());
    }
    add(text.empty() ? OpcheckLine::kPassed : OpcheckLine::kFailed, check, text);
    return text.empty();
  }

  void add(OpcheckLine::Outcome outcome, const char* check, std::string text) {
    report.lines.push_back({outcome, prefix_ + check, std::move(text)});
  }

  Function f_;
  bool has_backward_, has_cuda_;
  OpcheckOptions options_;
  std::vector<bool> chosen_;
  std::string prefix_;
};

}  // namespace

bool OpcheckReport::ok() const {
  return !lines.empty() && std::none_of(lines.begin(), lines.end(), [](const OpcheckLine& line) {
    return line.outcome == OpcheckLine::kFailed;
  });
}

std::string OpcheckReport::str() const {
  std::string text;
  for (const OpcheckLine& line : lines) {
    text += line.outcome == OpcheckLine::kPassed   ? "pass  "
            : line.outcome == OpcheckLine::kFailed ? "FAIL  "
                                                   : "skip  ";
    text += line.check + (line.text.empty() ? "" : ": " + line.text) + "\n";
  }
  return text;
}

OpcheckReport opcheck(const CustomOp& op, const std::vector<Tensors>& samples,
                      const OpcheckOptions& options) {
  RETORT_CHECK(!samples.empty(), "[opcheck] expected at least one sample");
  const bool has_cuda =
      op.forward_cuda != nullptr && (op.backward == nullptr || op.backward_cuda != nullptr);
  Checker checker([&op](const Tensors& inputs) { return op.apply(inputs); }, op.backward != nullptr,
                  has_cuda, options);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    // The shape rule by itself: it must not read values or depend on anything but the inputs.
    try {
      const CustomOp::Spec once = op.infer(samples[i]), twice = op.infer(samples[i]);
      const bool same = once.shape == twice.shape && once.dtype == twice.dtype;
      checker.report.lines.push_back(
          {same ? OpcheckLine::kPassed : OpcheckLine::kFailed, join("sample ", i, ": shape rule"),
           same ? join(once.shape, " ", name_of(once.dtype)) : "two calls differ"});
    } catch (const std::exception& e) {
      checker.report.lines.push_back(
          {OpcheckLine::kFailed, join("sample ", i, ": shape rule"), join("threw: ", e.what())});
      continue;
    }
    checker.run(samples[i], i);
  }
  return checker.report;
}

OpcheckReport opcheck(const Function& f, const std::vector<Tensors>& samples,
                      const OpcheckOptions& options) {
  RETORT_CHECK(!samples.empty(), "[opcheck] expected at least one sample");
  Checker checker(f, true, true, options);
  for (std::size_t i = 0; i < samples.size(); ++i) checker.run(samples[i], i);
  return checker.report;
}

}  // namespace retort
