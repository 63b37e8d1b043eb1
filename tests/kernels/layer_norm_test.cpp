#include "kernels/layer_norm/layer_norm.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "engine/autograd/gradcheck.h"
#include "engine/autograd/opcheck.h"
#include "engine/ops/dropout.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/layer_norm.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

DType parameter_dtype(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

// bf16: y and ds are rounded once, the sum that backward reads once too.
Tolerance tolerance(DType dtype) {
  return dtype == DType::kF64   ? Tolerance{1e-11, 1e-11}
         : dtype == DType::kF32 ? Tolerance{2e-5, 2e-5}
                                : Tolerance{2e-2, 3e-2};
}

struct Result {
  std::vector<Tensor> all;  // y, dx, dresidual, dweight, dbias; undefined where there is none
};

enum class Form { kPlain, kResidual, kSum, kComposed };

// Columns 3 .. of wider tensors: pitched and not aligned, unless `offset` says otherwise.
Result run(Form form, bool residual, const Tensor& x_given, const Tensor& r_given,
           const Tensor& w_given, const Tensor& b_given, const Tensor& dy_given,
           ResidualDropout drop, Device device, DType dtype, std::int64_t offset) {
  const std::int64_t c = w_given.dim(0);
  const auto input = [&](const Tensor& t) {
    return t.to(dtype)
        .to(device)
        .slice_columns(offset, offset + c)
        .detach()
        .set_requires_grad(true);
  };
  const auto parameter = [&](const Tensor& t) {
    return t.to(parameter_dtype(dtype)).to(device).detach().set_requires_grad(true);
  };
  for (Tensor* const t : {&drop.noise.step, &drop.noise.sample, &drop.noise.position})
    if (t->defined()) *t = t->to(device);
  const Tensor x = input(x_given), r = input(r_given), w = parameter(w_given),
               b = parameter(b_given);
  const Tensor dy = dy_given.to(dtype).to(device);
  Tensor y;
  if (form == Form::kSum) {
    const NormAndSum both = layer_norm_and_sum(x, r, w, b, 1e-5, drop);
    y = add(both.y, both.sum);  // a second reader of the sum
  } else if (form == Form::kComposed) {
    y = residual ? layer_norm_residual_composed(x, r, w, b, 1e-5, drop)
                 : layer_norm_composed(x, w, b);
  } else {
    y = residual ? layer_norm_residual(x, r, w, b, 1e-5, drop) : layer_norm(x, w, b);
  }
  y.backward(dy);
  return {{y.detach(), x.grad(), r.grad(), w.grad(), b.grad()}};
}

void expect_equal(const Result& got, const Result& want, Tolerance t, double parameter_atol,
                  const std::string& where) {
  for (std::size_t i = 0; i < got.all.size(); ++i) {
    ASSERT_EQ(got.all[i].defined(), want.all[i].defined()) << where;
    if (!got.all[i].defined()) continue;
    EXPECT_TRUE(
        all_close(got.all[i], want.all[i], {t.rtol, i >= 3 ? parameter_atol * t.atol : t.atol}))
        << i << ", " << where;
  }
}

// The definition costs c^2: longer rows are compared with the CPU's f64.
void check_case(std::int64_t rows, std::int64_t c, bool residual, const ResidualDropout& drop,
                std::int64_t offset) {
  const Form form = residual ? Form::kResidual : Form::kPlain,
             oracle = c <= 1400 ? Form::kComposed : form;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    const auto rounded = [&](const Shape& shape, std::uint64_t seed) {
      return randn(shape, seed, dtype).to(DType::kF64);
    };
    const Tensor x = rounded({rows, c + offset}, 1), r = rounded({rows, c + offset}, 2),
                 dy = rounded({rows, c}, 3), w = randn({c}, 4, DType::kF32, 0.5, 1).to(DType::kF64),
                 b = randn({c}, 5, DType::kF32).to(DType::kF64);
    const Result want =
        run(oracle, residual, x, r, w, b, dy, drop, Device::kCpu, DType::kF64, offset);
    for (const Device device : devices()) {
      if (device == Device::kCuda && dtype == DType::kF64) continue;
      const std::string where = join(name_of(dtype), " on ", name_of(device), ", ", rows, " x ", c,
                                     ", residual ", residual, ", p ", drop.p, ", offset ", offset);
      const Result got = run(form, residual, x, r, w, b, dy, drop, device, dtype, offset),
                   again = run(form, residual, x, r, w, b, dy, drop, device, dtype, offset);
      // Sums of `rows` terms of size 1.
      Tolerance t = tolerance(dtype);
      // Two values that are close: their difference, which is all that is left, has the rounding of
      // their mean.
      if (c == 2 && dtype == DType::kF32) t = {1e-3, 1e-3};
      expect_equal(got, want, t, std::sqrt(static_cast<double>(rows)), where);
      for (std::size_t i = 0; i < got.all.size(); ++i) {
        if (!got.all[i].defined()) continue;
        EXPECT_TRUE(same_bytes(got.all[i], again.all[i])) << where;
      }
    }
  }
}

TEST(LayerNorm, hand_checked_numbers) {
  for (const Device device : devices()) {
    Tensor x = Tensor::from<float>({1, 3, 5, 5}, {2, 2}, device);
    const Tensor w = Tensor::from<float>({2, 3}, {2}, device),
                 b = Tensor::from<float>({10, 20}, {2}, device);
    // Deviations -1 and 1, variance 1; a row of equal values is the bias.
    EXPECT_TRUE(
        all_close(layer_norm(x, w, b, 1e-12), Tensor::from<float>({8, 23, 10, 20}, {2, 2})));
    const Tensor residual = Tensor::from<float>({0, 2, 1, -3}, {2, 2}, device);
    const NormAndSum both = layer_norm_and_sum(x, residual, w, b, 1e-12);
    EXPECT_TRUE(all_close(both.sum, Tensor::from<float>({1, 5, 6, 2}, {2, 2})));
    EXPECT_TRUE(all_close(both.y, Tensor::from<float>({8, 23, 12, 17}, {2, 2})));
  }
}

TEST(LayerNorm, equals_its_definition_at_edge_sizes) {
  for (const std::int64_t rows : {1, 7, 65})
    for (const std::int64_t c : {1, 2, 31, 32, 33, 128, 384, 770})
      for (const bool residual : {false, true}) check_case(rows, c, residual, {}, c % 2 ? 3 : 0);
  check_case(130, 40, true, {}, 0);
  // Every number of vectors that a thread of CUDA holds, of a warp's rows and of a block's.
  for (const std::int64_t c : {200, 1300, 3000, 6000}) check_case(2, c, true, {}, 0);
}

TEST(LayerNorm, no_rows) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::empty({0, 4}, DType::kF32, device).set_requires_grad(true),
                 w = Tensor::full({4}, 1, DType::kF32, device).set_requires_grad(true),
                 b = Tensor::zeros({4}, DType::kF32, device).set_requires_grad(true);
    const Tensor y = layer_norm(x, w, b);
    EXPECT_EQ(y.numel(), 0);
    y.backward(Tensor::empty({0, 4}, DType::kF32, device));
    EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{0, 0, 0, 0}));
  }
}

ResidualDropout with_dropout(std::int64_t rows) {
  ResidualDropout d{0.3, {}, path_hash("layer1.output")};
  d.noise.seed = 11;
  d.noise.step = Tensor::from<std::int64_t>({3}, {1});
  std::vector<std::int64_t> sample;
  std::vector<std::int32_t> position;
  for (std::int64_t i = 0; i < rows; ++i)
    sample.push_back(i / 3), position.push_back(static_cast<std::int32_t>(i % 3));
  d.noise.sample = Tensor::from(sample, {rows});
  d.noise.position = Tensor::from(position, {rows});
  return d;
}

TEST(LayerNorm, dropout_is_that_of_the_op_of_that_name) {
  for (const std::int64_t c : {5, 66, 200, 384, 770, 1300, 3000, 6000})
    check_case(4, c, true, with_dropout(4), 0);
  ResidualDropout plain{0.5, {}, 1};
  check_case(7, 12, true, plain, 1);
}

// What the tests above leave out: every number of vectors, rows of whole ones, as f32 or bf16 counts
// them, and of others.
TEST(LayerNorm, rows_of_whole_vectors_and_not) {
  for (const std::int64_t c : {201, 385, 768, 1301, 1304, 3001, 6001}) {
    for (const bool residual : {false, true}) check_case(2, c, residual, {}, 0);
    check_case(4, c, true, with_dropout(4), 0);
  }
  for (const std::int64_t c : {200, 1300, 3000, 6000}) check_case(2, c, false, {}, 0);
}

TEST(LayerNorm, the_sum_is_on_the_tape_too) {
  for (const Device device : devices())
    for (const ResidualDropout& d : {ResidualDropout{}, with_dropout(7)}) {
      const Tensor x = randn({7, 20}, 1), r = randn({7, 20}, 2), w = randn({20}, 3),
                   b = randn({20}, 4), dy = randn({7, 20}, 5);
      const auto definition = [&] {
        const Tensor lx = x.to(DType::kF64).set_requires_grad(true),
                     lr = r.to(DType::kF64).set_requires_grad(true),
                     lw = w.to(DType::kF64).set_requires_grad(true),
                     lb = b.to(DType::kF64).set_requires_grad(true);
        const Tensor s = add(d.p > 0 ? dropout(lx, d.p, d.noise, d.path) : lx, lr);
        const Tensor y = add(layer_norm_composed(s, lw, lb), s);
        y.backward(dy.to(DType::kF64));
        return Result{{y.detach(), lx.grad(), lr.grad(), lw.grad(), lb.grad()}};
      };
      expect_equal(run(Form::kSum, true, x, r, w, b, dy, d, device, DType::kF32, 0), definition(),
                   {2e-5, 2e-5}, 1, name_of(device));
    }
}

TEST(LayerNorm, large_means_do_not_cancel) {
  for (const Device device : devices()) {
    const Tensor x = randn({3, 256}, 1, DType::kF32, 1, 10000).to(device),
                 w = Tensor::full({256}, 1, DType::kF32, device),
                 b = Tensor::zeros({256}, DType::kF32, device);
    const Tensor want =
        layer_norm(x.to(Device::kCpu).to(DType::kF64), w.to(Device::kCpu).to(DType::kF64),
                   b.to(Device::kCpu).to(DType::kF64));
    // Values near 10,000 are a multiple of 2^-10 apart; their mean is rounded likewise.
    EXPECT_TRUE(all_close(layer_norm(x, w, b), want, {1e-4, 2e-3})) << name_of(device);
  }
}

TEST(LayerNorm, nan_and_infinity_stay_in_their_row) {
  for (const Device device : devices()) {
    Tensor x = randn({3, 40}, 1);
    x.data<float>()[45] = std::numeric_limits<float>::quiet_NaN();
    x.data<float>()[85] = std::numeric_limits<float>::infinity();
    const Tensor w = Tensor::full({40}, 1, DType::kF32, device),
                 b = Tensor::zeros({40}, DType::kF32, device);
    const std::vector<float> y = layer_norm(x.to(device), w, b).to_vector<float>();
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i >= 40) << i;
  }
}

TEST(LayerNorm, the_same_bytes_on_any_number_of_threads) {
  const int before = thread_count();
  const Tensor x = randn({200, 300}, 1), r = randn({200, 300}, 2), w = randn({300}, 3),
               b = randn({300}, 4), dy = randn({200, 300}, 5);
  std::vector<Result> results;
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    results.push_back(run(Form::kResidual, true, x, r, w, b, dy, with_dropout(200), Device::kCpu,
                          DType::kF32, 0));
  }
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_TRUE(same_bytes(results[0].all[i], results[1].all[i])) << i;
  set_thread_count(before);
}

TEST(LayerNorm, gradients_agree_with_differences) {
  const auto f64 = [](const Shape& shape, std::uint64_t seed) {
    return randn(shape, seed, DType::kF64);
  };
  const auto plain = gradcheck([](const auto& in) { return layer_norm(in[0], in[1], in[2]); },
                               {f64({3, 5}, 1), f64({5}, 2), f64({5}, 3)});
  EXPECT_TRUE(plain.ok) << plain.message;
  for (const ResidualDropout& d : {ResidualDropout{}, with_dropout(3)}) {
    const std::vector<Tensor> in{f64({3, 5}, 1), f64({3, 5}, 2), f64({5}, 3), f64({5}, 4)};
    const auto fused = gradcheck(
        [&](const auto& t) { return layer_norm_residual(t[0], t[1], t[2], t[3], 1e-5, d); }, in);
    EXPECT_TRUE(fused.ok) << fused.message;
    const auto with_sum = gradcheck(
        [&](const auto& t) {
          const NormAndSum both = layer_norm_and_sum(t[0], t[1], t[2], t[3], 1e-5, d);
          return add(square(both.sum), both.y);
        },
        in);
    EXPECT_TRUE(with_sum.ok) << with_sum.message;
  }
}

TEST(LayerNorm, opcheck) {
  OpcheckOptions options;
  options.rtol = options.atol = 2e-5;
  const OpcheckReport report = opcheck(
      [](const std::vector<Tensor>& in) { return layer_norm_residual(in[0], in[1], in[2], in[3]); },
      {{randn({3, 12}, 1), randn({3, 12}, 2), randn({12}, 3), randn({12}, 4)}}, options);
  EXPECT_TRUE(report.ok()) << report.str();
}

TEST(LayerNorm, errors) {
  const Tensor x = Tensor::zeros({2, 3}), w = Tensor::zeros({3}), wrong = Tensor::zeros({2});
  EXPECT_THROW(layer_norm(x, wrong, w), Error);
  EXPECT_THROW(layer_norm(x, w, wrong), Error);
  EXPECT_THROW(layer_norm(x, w.to(DType::kF64), w), Error);
  EXPECT_THROW(layer_norm(x, w, w, 0), Error);
  EXPECT_THROW(layer_norm({}, w, w), Error);
  EXPECT_THROW(layer_norm_residual(x, {}, w, w), Error);
  EXPECT_THROW(layer_norm_residual(x, Tensor::zeros({3, 3}), w, w), Error);
  EXPECT_THROW(layer_norm_residual(x, x, w, w, 1e-5, {1.0, {}, 0}), Error);
  ResidualDropout d = with_dropout(3);
  EXPECT_THROW(layer_norm_residual(x, x, w, w, 1e-5, d), Error);
}

}  // namespace
}  // namespace retort::test
