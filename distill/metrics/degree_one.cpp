#include "distill/metrics/degree_one.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/terms/projection_target.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/linear.h"
#include "engine/ops/matmul.h"
#include "nn/init.h"

namespace retort::distill {
namespace {

// Sums over samples for each of R columns of values.
struct Sums {
  std::vector<double> x_value, value, square;  // (n R), (R), (R)
  void add(const Tensor& x, const Tensor& values) {
    const std::vector<double> xv = matmul(x, values, true, false).to_vector<double>();
    const std::vector<float> v = values.to_vector<float>();
    const auto width = static_cast<std::size_t>(values.dim(1));
    x_value.resize(xv.size());
    value.resize(width);
    square.resize(width);
    for (std::size_t i = 0; i < xv.size(); ++i) x_value[i] += xv[i];
    for (std::size_t i = 0; i < v.size(); ++i) {
      const double d = static_cast<double>(v[i]);
      value[i % width] += d;
      square[i % width] += d * d;
    }
  }
  // RMS over the bits for which `in` is `want`, and all columns. sum_x (n): sums of the inputs.
  double rms(const std::vector<double>& sum_x, const std::vector<bool>& in, bool want,
             double samples) const {
    double total = 0;
    std::int64_t count = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (in[i] != want) continue;
      for (std::size_t r = 0; r < value.size(); ++r) {
        const double mean = value[r] / samples, variance = square[r] / samples - mean * mean;
        const double c = (x_value[i * value.size() + r] - mean * sum_x[i]) / samples;
        if (variance > 0) total += c * c / variance;
        ++count;
      }
    }
    return count == 0 ? 0 : std::sqrt(total / static_cast<double>(count));
  }
};

}  // namespace

DegreeOneResult degree_one_probe(
    const Teacher& teacher,
    const std::function<Tensor(std::int64_t first, std::int64_t count)>& inputs,
    std::span<const std::int64_t> support, const DegreeOneOptions& options) {
  RETORT_CHECK(options.samples >= 2 && options.projections >= 1 && options.chunk >= 1,
               "[degree_one] expected at least 2 samples, 1 projection and a chunk of 1, got ",
               options.samples, ", ", options.projections, ", ", options.chunk);
  const NoGrad no_grad;
  Sums hidden, output;
  Tensor projection;
  std::vector<double> sum_x;
  std::vector<bool> in;
  for (std::int64_t first = 0; first < options.samples; first += options.chunk) {
    const Tensor x = inputs(first, std::min(options.chunk, options.samples - first));  // (B, n)
    const nn::Outputs result = teacher.forward(x, {0, true});
    RETORT_CHECK(!result.post.empty(), "[degree_one] '", teacher.name(), "' has no hidden layer");
    const auto layers = static_cast<int>(result.post.size());
    const int layer = options.layer < 0 ? layers - 1 : options.layer;
    RETORT_CHECK(layer < layers, "[degree_one] expected a layer below ", layers, ", got ", layer);
    const Tensor h = hidden_features(result.post[static_cast<std::size_t>(layer)]);  // (B, m)
    if (!projection.defined()) {
      Tensor host = Tensor::empty({options.projections, h.dim(1)});
      nn::initialize(host, nn::Init::normal(1), options.seed, "degree_one");
      projection = host.to(h.device());
      in.resize(static_cast<std::size_t>(x.dim(1)));
      sum_x.resize(in.size());
      for (const std::int64_t i : support) {
        RETORT_CHECK(i >= 0 && i < x.dim(1), "[degree_one] expected support bits below ", x.dim(1),
                     ", got ", i);
        in[static_cast<std::size_t>(i)] = true;
      }
    }
    const std::vector<float> bits = x.to_vector<float>();
    for (std::size_t k = 0; k < bits.size(); ++k)
      sum_x[k % sum_x.size()] += static_cast<double>(bits[k]);
    hidden.add(x, linear(h, projection, {}));
    std::vector<float> z = result.logits.to_vector<float>(), f;
    const auto width = static_cast<std::size_t>(result.logits.dim(1));
    for (std::size_t r = 0; r < z.size(); r += width)
      f.push_back(std::tanh((z[r] - z[r + (width > 1 ? 1 : 0)]) / 2));
    output.add(x, Tensor::from(f, {static_cast<std::int64_t>(f.size()), 1}, x.device()));
  }
  const double n = static_cast<double>(options.samples);
  DegreeOneResult r;
  r.in_support = hidden.rms(sum_x, in, true, n);
  r.off_support = hidden.rms(sum_x, in, false, n);
  r.ratio = r.off_support > 0 ? r.in_support / r.off_support : 0;
  r.output_in = output.rms(sum_x, in, true, n);
  r.output_off = output.rms(sum_x, in, false, n);
  r.floor = 1 / std::sqrt(n);
  return r;
}

}  // namespace retort::distill
