#include "kernels/batch_norm/batch_norm_composed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/ops/batch_norm.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using Values = std::vector<double>;

// Everything the op makes, by its definition in double.
struct Reference {
  Values y, mean, rstd, running_mean, running_var, dx, dweight, dbias, dresidual;
};

struct Case {
  std::int64_t rows, channels;
  bool training = true, relu = false, residual = false;
  double scale = 1, shift = 0;
};

Reference reference(const Case& c, const Values& x, const Values& residual, const Values& weight,
                    const Values& bias, const Values& running_mean, const Values& running_var,
                    const Values& dy, const Values* y_for_mask) {
  const auto width = static_cast<std::size_t>(c.channels);
  Reference r;
  r.y.resize(x.size()), r.dx.resize(x.size()), r.dresidual.resize(x.size());
  r.running_mean = running_mean, r.running_var = running_var;
  for (std::size_t k = 0; k < width; ++k) {
    const auto at = [&](std::int64_t row) { return static_cast<std::size_t>(row) * width + k; };
    const auto x_of = [&](std::int64_t row) { return x[at(row)]; };
    kernels::BatchNormChannel channel{running_mean[k], running_var[k], 1e-5, weight[k], bias[k]};
    if (c.training) {
      channel = kernels::batch_norm_composed(c.rows, x_of, weight[k], bias[k]);
      r.running_mean[k] = channel.running_mean(running_mean[k], 0.25);
      r.running_var[k] = channel.running_var(running_var[k], 0.25, c.rows);
    }
    for (std::int64_t row = 0; row < c.rows; ++row) {
      const std::size_t i = at(row);
      r.y[i] = channel.value(x[i], c.residual ? residual[i] : 0, c.relu);
      r.dresidual[i] = c.relu && !((y_for_mask ? (*y_for_mask)[i] : r.y[i]) > 0) ? 0 : dy[i];
    }
    const auto gradient = kernels::batch_norm_backward_composed(
        channel, c.rows, x_of, [&](std::int64_t row) { return r.dresidual[at(row)]; }, c.training);
    for (std::int64_t row = 0; row < c.rows; ++row)
      r.dx[at(row)] = gradient.dx(r.dresidual[at(row)], x_of(row));
    r.mean.push_back(channel.mean), r.rstd.push_back(channel.rstd());
    r.dweight.push_back(gradient.dweight), r.dbias.push_back(gradient.dbias);
  }
  return r;
}

Tensor tensor(const Values& values, const Shape& shape) { return Tensor::from(values, shape); }

void check_case(const Case& c, DType dtype, Device device) {
  SCOPED_TRACE(join(name_of(device), " ", name_of(dtype), " (", c.rows, ", ", c.channels,
                    ") training ", c.training, " relu ", c.relu, " residual ", c.residual));
  const Shape shape{c.rows, c.channels}, vector{c.channels};
  const DType statistics = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor x = randn(shape, 1, dtype, c.scale, c.shift), residual = randn(shape, 2, dtype);
  const Tensor dy = randn(shape, 3, dtype), weight = randn(vector, 4, statistics, 0.5, 1);
  const Tensor bias = randn(vector, 5, statistics), old_mean = randn(vector, 6, statistics);
  Tensor old_var = randn(vector, 7, statistics);
  {
    Values v = old_var.to_vector<double>();
    for (double& e : v) e = 0.5 + e * e;
    old_var = tensor(v, vector).to(statistics);
  }
  // Leaves on the device.
  const auto leaf = [&](const Tensor& t) {
    Tensor copy = t.to(device).clone();
    copy.set_requires_grad(true);
    return copy;
  };
  const Tensor lx = leaf(x), lw = leaf(weight), lb = leaf(bias), lr = leaf(residual);
  const Tensor running_mean = old_mean.to(device).clone(), running_var = old_var.to(device).clone();
  const BatchNormOptions options{c.training, 0.25, 1e-5, c.relu};
  const Tensor y =
      batch_norm(lx, lw, lb, running_mean, running_var, options, c.residual ? lr : Tensor{});
  y.backward(dy.to(device));
  const Values y_values = y.to_vector<double>();
  const Reference want =
      reference(c, x.to_vector<double>(), residual.to_vector<double>(), weight.to_vector<double>(),
                bias.to_vector<double>(), old_mean.to_vector<double>(), old_var.to_vector<double>(),
                dy.to_vector<double>(), &y_values);
  // Sums over R values of order 1; where |mean| >> std the rounding of mean itself shows.
  const bool bf = dtype == DType::kBF16;
  const double e = dtype == DType::kF64 ? 1e-10 : 2e-5 * (1 + std::abs(c.shift) / c.scale);
  const Tolerance fine{e, e}, stored = bf ? Tolerance{1.6e-2, 1e-2} : fine;
  // Two rows close together: dx is a small difference of terms as large as rstd.
  const double steep = *std::max_element(want.rstd.begin(), want.rstd.end());
  const double root = std::sqrt(static_cast<double>(c.rows));
  EXPECT_TRUE(all_close(y, tensor(want.y, shape), stored)) << "y";
  EXPECT_TRUE(all_close(lx.grad(), tensor(want.dx, shape),
                        {stored.rtol, stored.atol * std::max(1.0, steep)}))
      << "dx";
  EXPECT_TRUE(all_close(lw.grad(), tensor(want.dweight, vector), {e, e * root})) << "dweight";
  EXPECT_TRUE(all_close(lb.grad(), tensor(want.dbias, vector), {e, e * root})) << "dbias";
  if (c.residual) {
    EXPECT_TRUE(all_close(lr.grad(), tensor(want.dresidual, shape), {0, 0})) << "dresidual";
  }
  EXPECT_TRUE(all_close(running_mean, tensor(want.running_mean, vector), fine)) << "running_mean";
  EXPECT_TRUE(all_close(running_var, tensor(want.running_var, vector), {e, e * c.scale * c.scale}))
      << "running_var";
}

std::vector<DType> dtypes(Device device) {
  if (device == Device::kCpu) return {DType::kF64, DType::kF32, DType::kBF16};
  return {DType::kF32, DType::kBF16};
}

TEST(BatchNorm, hand_checked_numbers) {
  for (const Device device : devices()) {
    // Channel 0: 1, 3 (mean 2, var 1); channel 1: 5, 5 (mean 5, var 0).
    const Tensor x = Tensor::from<float>({1, 5, 3, 5}, {2, 2}, device);
    const Tensor weight = Tensor::from<float>({2, 1}, {2}, device);
    const Tensor bias = Tensor::from<float>({0.5f, -1}, {2}, device);
    const Tensor mean = Tensor::from<float>({0, 0}, {2}, device);
    const Tensor var = Tensor::from<float>({1, 1}, {2}, device);
    const Tensor y = batch_norm(x, weight, bias, mean, var, {true, 0.1, 1e-12, false});
    EXPECT_TRUE(all_close(y, Tensor::from<float>({-1.5f, -1, 2.5f, -1}, {2, 2})))
        << name_of(device);
    // Unbiased: var 1 * 2 / 1 = 2 and 0.
    EXPECT_TRUE(all_close(mean, Tensor::from<float>({0.2f, 0.5f}, {2})));
    EXPECT_TRUE(all_close(var, Tensor::from<float>({1.1f, 0.9f}, {2})));
    const Tensor z = batch_norm(x, weight, bias, mean, var, {false, 0.1, 1e-12, true});
    const float s = 2 / std::sqrt(1.1f);
    EXPECT_TRUE(all_close(z, Tensor::from<float>({0.8f * s + 0.5f, 4.5f / std::sqrt(0.9f) - 1,
                                                  2.8f * s + 0.5f, 4.5f / std::sqrt(0.9f) - 1},
                                                 {2, 2})));
    EXPECT_TRUE(all_close(mean, Tensor::from<float>({0.2f, 0.5f}, {2}))) << "inference wrote";
  }
}

TEST(BatchNorm, equals_the_double_reference_at_edge_shapes) {
  for (const Device device : devices())
    for (const DType dtype : dtypes(device))
      for (const std::int64_t channels : {1, 3, 16, 17, 64, 130})
        for (const std::int64_t rows : {1, 2, 7, 401}) {
          if (rows == 401 && (channels == 1 || channels == 17 || channels == 64)) continue;  // time
          check_case({rows, channels, true, true, true}, dtype, device);
          if (rows < 100) check_case({rows, channels, true, false, false}, dtype, device);
        }
}

TEST(BatchNorm, equals_the_double_reference_with_every_switch) {
  for (const Device device : devices())
    for (const DType dtype : dtypes(device))
      for (int bits = 0; bits < 8; ++bits)
        for (const std::int64_t channels : {5, 32})
          check_case({53, channels, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0}, dtype,
                     device);
}

TEST(BatchNorm, equals_the_double_reference_over_many_chunks) {
  for (const Device device : devices())
    check_case({9001, 8, true, true, true}, DType::kF32, device);
}

TEST(BatchNorm, a_mean_far_above_the_deviation_keeps_its_digits) {
  for (const Device device : devices())
    check_case({3000, 4, true, false, false, 0.1, 100}, DType::kF32, device);
}

TEST(BatchNorm, bytes_do_not_depend_on_the_thread_count) {
  const int before = thread_count();
  const auto run = [](int threads) {
    set_thread_count(threads);
    Tensor x = randn({4099, 24}, 1), weight = randn({24}, 2), bias = randn({24}, 3);
    for (Tensor* t : {&x, &weight, &bias}) t->set_requires_grad(true);
    const Tensor mean = Tensor::zeros({24}), var = Tensor::full({24}, 1);
    const Tensor y = batch_norm(x, weight, bias, mean, var, {true, 0.1, 1e-5, true});
    y.backward(randn({4099, 24}, 4));
    return std::vector<Tensor>{y.detach(), mean, var, x.grad(), weight.grad(), bias.grad()};
  };
  const std::vector<Tensor> one = run(1), three = run(3);
  set_thread_count(before);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_bytes(one[i], three[i])) << i;
}

TEST(BatchNorm, twice_the_same_bits_on_every_device) {
  for (const Device device : devices()) {
    const Tensor x = randn({777, 20}, 1).to(device), w = Tensor::full({20}, 1, DType::kF32, device);
    const Tensor b = Tensor::zeros({20}, DType::kF32, device);
    EXPECT_TRUE(same_bytes(batch_norm(x, w, b, {}, {}, {}), batch_norm(x, w, b, {}, {}, {})));
  }
}

TEST(BatchNorm, nan_stays_visible_through_relu) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, NAN, 3, 4}, {2, 2}, device);
    const Tensor w = Tensor::full({2}, 1, DType::kF32, device);
    const Tensor b = Tensor::zeros({2}, DType::kF32, device);
    const auto y = batch_norm(x, w, b, {}, {}, {true, 0.1, 1e-5, true}).to_vector<float>();
    EXPECT_TRUE(std::isnan(y[1]) && std::isnan(y[3])) << name_of(device);
    EXPECT_FALSE(std::isnan(y[0]) || std::isnan(y[2])) << name_of(device);
  }
}

// Mean and centred sum of squares of chunks of x, as a convolution leaves them.
ChannelStatistics statistics_of(const Tensor& x, std::int64_t chunk, DType dtype) {
  const Values v = x.to_vector<double>();
  const auto rows = static_cast<std::size_t>(x.rows()), width = static_cast<std::size_t>(x.dim(-1)),
             per_chunk = static_cast<std::size_t>(chunk),
             chunks = (rows + per_chunk - 1) / per_chunk;
  Values partial(chunks * 2 * width);
  for (std::size_t i = 0; i < chunks; ++i)
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t begin = i * per_chunk, end = std::min(rows, begin + per_chunk);
      double &mean = partial[i * 2 * width + c], &m2 = partial[(i * 2 + 1) * width + c];
      for (std::size_t r = begin; r < end; ++r) mean += v[r * width + c];
      mean /= static_cast<double>(end - begin);
      for (std::size_t r = begin; r < end; ++r) m2 += std::pow(v[r * width + c] - mean, 2);
    }
  const Shape shape{static_cast<std::int64_t>(chunks), 2, x.dim(-1)};
  return {tensor(partial, shape).to(dtype).to(x.device()), chunk};
}

TEST(BatchNorm, given_statistics_replace_the_pass_over_x) {
  struct Cut {
    std::int64_t rows, channels, chunk;
  };
  for (const Device device : devices())
    for (const DType dtype : dtypes(device))
      for (const Cut& cut : {Cut{7, 3, 2}, Cut{1, 5, 128}, Cut{401, 40, 128}, Cut{256, 8, 128},
                             Cut{1300, 4, 2},     // 650 chunks: merged first on CUDA
                             Cut{1025, 300, 4}})  // 257 of them, and two blocks of channels
      {
        SCOPED_TRACE(join(name_of(device), " ", name_of(dtype), " ", cut.rows, " ", cut.channels));
        const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
        const Tensor x = randn({cut.rows, cut.channels}, 1, dtype, 1, 3).to(device),
                     w = randn({cut.channels}, 2, wide, 0.5, 1).to(device),
                     b = randn({cut.channels}, 3, wide).to(device);
        const ChannelStatistics statistics = statistics_of(x, cut.chunk, wide);
        std::vector<Tensor> plain, given, again;
        for (auto* results : {&plain, &given, &again}) {
          Tensor leaf = x.clone();
          leaf.set_requires_grad(true);
          const Tensor mean = Tensor::zeros({cut.channels}, wide, device),
                       var = Tensor::full({cut.channels}, 1, wide, device);
          const Tensor y = batch_norm(leaf, w, b, mean, var, {true, 0.1, 1e-5, true}, {},
                                      results == &plain ? ChannelStatistics{} : statistics);
          y.backward(randn(x.shape(), 4, dtype).to(device));
          *results = {y.detach(), mean, var, leaf.grad()};
        }
        const double e = dtype == DType::kF64 ? 1e-10 : dtype == DType::kF32 ? 2e-5 : 1e-2;
        for (std::size_t i = 0; i < plain.size(); ++i) {
          EXPECT_TRUE(all_close(given[i], plain[i], {e, e})) << i;
          EXPECT_TRUE(same_bytes(given[i], again[i])) << i;
        }
      }
}

// Not those of x: they must be what the op uses, not a pass of its own.
TEST(BatchNorm, given_statistics_are_believed) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from<float>({1, 3}, {2, 1}, device),
                 one = Tensor::full({1}, 1, DType::kF32, device),
                 zero = Tensor::zeros({1}, DType::kF32, device);
    // Two chunks of one row: means 4 and 8, so mean 6, var (0 + 0 + 4 + 4) / 2 = 4.
    const ChannelStatistics s{Tensor::from<float>({4, 0, 8, 0}, {2, 2, 1}, device), 1};
    const Tensor mean = Tensor::zeros({1}, DType::kF32, device), var = one.clone();
    const Tensor y = batch_norm(x, one, zero, mean, var, {true, 0.5, 1e-12, false}, {}, s);
    EXPECT_TRUE(all_close(y, Tensor::from<float>({-2.5f, -1.5f}, {2, 1}))) << name_of(device);
    EXPECT_TRUE(all_close(mean, Tensor::from<float>({3}, {1}))) << name_of(device);
    EXPECT_TRUE(all_close(var, Tensor::from<float>({4.5f}, {1}))) << name_of(device);
    // Outside training the running statistics count.
    const Tensor z = batch_norm(x, one, zero, zero, one, {false, 0.5, 1e-12, false}, {}, s);
    EXPECT_TRUE(all_close(z, x)) << name_of(device);
  }
}

TEST(BatchNorm, errors_name_what_is_wrong) {
  const Tensor x = Tensor::zeros({4, 3}), c = Tensor::zeros({3}), d = Tensor::zeros({2});
  EXPECT_THROW(batch_norm(x, d, c, c, c, {}), Error);
  EXPECT_THROW(batch_norm(x, c, d, c, c, {}), Error);
  EXPECT_THROW(batch_norm(x, c, c, c, {}, {}), Error);
  EXPECT_THROW(batch_norm(x, c, c, {}, {}, {.training = false}), Error);
  EXPECT_THROW(batch_norm(x, c, c, c, c, {.epsilon = 0}), Error);
  EXPECT_THROW(batch_norm(x, c, c, c, c, {}, d), Error);
  EXPECT_THROW(batch_norm(Tensor::zeros({0, 3}), c, c, c, c, {}), Error);
  EXPECT_THROW(batch_norm(x, c.to(DType::kF64), c, c, c, {}), Error);
  const auto with = [&](const Tensor& partial, std::int64_t rows) {
    batch_norm(x, c, c, c, c, {}, {}, {partial, rows});
  };
  EXPECT_NO_THROW(with(Tensor::zeros({2, 2, 3}), 2));
  EXPECT_THROW(with(Tensor::zeros({2, 2, 3}), 1), Error);
  EXPECT_THROW(with(Tensor::zeros({2, 2, 4}), 2), Error);
  EXPECT_THROW(with(Tensor::zeros({2, 2, 3}), 0), Error);
  EXPECT_THROW(with(Tensor::zeros({2, 2, 3}, DType::kF64), 2), Error);
}

TEST(BatchNorm, an_empty_batch_is_fine_outside_training) {
  const Tensor c = Tensor::full({3}, 1);
  EXPECT_EQ(batch_norm(Tensor::zeros({0, 3}), c, c, c, c, {.training = false}).shape(),
            (Shape{0, 3}));
}

}  // namespace
}  // namespace retort::test
