#include "engine/autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "engine/autograd/autograd.h"
#include "kernels/common/philox.h"

namespace retort {
namespace {

constexpr std::int64_t kWholeJacobian = 64;
constexpr std::int64_t kProjections = 8;

// "(1, 2)": the index of a flat element.
std::string index_text(const Shape& shape, std::int64_t flat) {
  std::string text = ")";
  for (int i = shape.rank() - 1; i >= 0; --i) {
    text = (i ? ", " : "") + std::to_string(flat % shape[i]) + text;
    flat /= shape[i];
  }
  return "(" + text;
}

}  // namespace

GradcheckResult gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                          const std::vector<Tensor>& inputs, double eps, double atol, double rtol) {
  // Leaves of our own, so that neither the caller's values nor gradients are touched.
  const bool chosen = std::any_of(inputs.begin(), inputs.end(),
                                  [](const Tensor& t) { return t.defined() && t.requires_grad(); });
  std::vector<Tensor> leaves;
  std::vector<std::size_t> checked;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const Tensor& t = inputs[k];
    if (!t.defined()) {
      leaves.emplace_back();
      continue;
    }
    leaves.push_back(t.clone());
    if (chosen ? !t.requires_grad() : t.dtype() != DType::kF64) continue;
    RETORT_CHECK(t.dtype() == DType::kF64 && t.device() == Device::kCpu,
                 "[gradcheck] expected f64 on cpu for input ", k, ", got ", name_of(t.dtype()),
                 " on ", name_of(t.device()));
    leaves.back().set_requires_grad(true);
    checked.push_back(k);
  }
  RETORT_CHECK(!checked.empty(), "[gradcheck] expected an f64 input, got none");

  const auto evaluate = [&] {
    const NoGrad no_grad;
    const Tensor y = f(leaves);
    RETORT_CHECK(y.dtype() == DType::kF64 && y.device() == Device::kCpu,
                 "[gradcheck] expected a result in f64 on cpu, got ", name_of(y.dtype()), " on ",
                 name_of(y.device()));
    return y.to_vector<double>();
  };
  const Shape shape = [&] {
    const NoGrad no_grad;
    return f(leaves).shape();
  }();
  const std::int64_t results = shape.numel();

  // Rows of the Jacobian that are compared: unit vectors, or random projections of them.
  const bool whole = results <= kWholeJacobian;
  const std::int64_t rows = whole ? results : kProjections;
  std::vector<std::vector<double>> directions(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    auto& v = directions[static_cast<std::size_t>(r)];
    v.assign(static_cast<std::size_t>(results), 0.0);
    if (whole) {
      v[static_cast<std::size_t>(r)] = 1;
      continue;
    }
    for (std::int64_t i = 0; i < results; ++i)
      v[static_cast<std::size_t>(i)] =
          2.0 * uniform01(philox(1, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(r), 0,
                                 path_hash("gradcheck"))
                              .v[0]) -
          1.0;
  }

  // Analytic: one forward and backward per row (a backward frees its history).
  std::vector<std::vector<std::vector<double>>> analytic(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < analytic.size(); ++r) {
    const Tensor y = f(leaves);
    if (!y.requires_grad())
      return {false, "the result does not require a gradient: the op recorded nothing", HUGE_VAL};
    y.backward(Tensor::from<double>(directions[r], shape));
    for (const std::size_t k : checked) {
      const Tensor g = leaves[k].grad();
      analytic[r].push_back(
          g.defined() ? g.to_vector<double>()
                      : std::vector<double>(static_cast<std::size_t>(leaves[k].numel()), 0.0));
      leaves[k].zero_grad();
    }
  }

  GradcheckResult result{true, "", 0};
  for (std::size_t c = 0; c < checked.size(); ++c) {
    const Tensor& x = leaves[checked[c]];
    double* const values = x.data<double>();
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double before = values[i];
      values[i] = before + eps;
      const std::vector<double> up = evaluate();
      values[i] = before - eps;
      const std::vector<double> down = evaluate();
      values[i] = before;
      for (std::size_t r = 0; r < directions.size(); ++r) {
        double numeric = 0;
        for (std::size_t k = 0; k < up.size(); ++k)
          if (directions[r][k] != 0) numeric += directions[r][k] * (up[k] - down[k]) / (2 * eps);
        const double got = analytic[r][c][static_cast<std::size_t>(i)];
        const double error = std::abs(got - numeric) / (atol + rtol * std::abs(numeric));
        if (error <= 1 && error <= result.worst_error) continue;
        if (error <= result.worst_error) continue;  // NaN is worse than any error and stays
        if (std::isnan(result.worst_error)) continue;
        result.worst_error = error;
        if (error <= 1) continue;
        result.ok = false;
        result.message =
            join("input ", checked[c], " ", x.shape(), " entry ", index_text(x.shape(), i),
                 whole ? join(", result ", shape, " entry ",
                              index_text(shape, static_cast<std::int64_t>(r)))
                       : join(", random projection ", r, " of the result ", shape),
                 ": backward gives ", got, ", central difference ", numeric, " (", error,
                 " times the tolerance)");
      }
    }
  }
  if (result.ok)
    result.message = join(whole ? "whole Jacobian, " : "random projections, ", checked.size(),
                          " inputs: worst error ", result.worst_error, " times the tolerance");
  return result;
}

}  // namespace retort
