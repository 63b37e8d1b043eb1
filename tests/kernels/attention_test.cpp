#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "engine/autograd/gradcheck.h"
#include "engine/autograd/opcheck.h"
#include "engine/ops/attention.h"
#include "engine/ops/view.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Tensor starts_of(const std::vector<std::int32_t>& values, Device device = Device::kCpu) {
  return Tensor::from<std::int32_t>(values, {static_cast<std::int64_t>(values.size())}, device);
}

// Sequences of these lengths, end to end.
std::vector<std::int32_t> ends_of(const std::vector<std::int32_t>& lengths,
                                  std::int32_t first = 0) {
  std::vector<std::int32_t> at{first};
  for (const std::int32_t n : lengths) at.push_back(at.back() + n);
  return at;
}

struct Result {
  Tensor out, dq, dk, dv;
};

using Op = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, std::int64_t,
                      const AttentionOptions&);

// Of columns of one wide tensor, `offset` elements from its first: pitched, and aligned or not.
Result run(Op op, const Tensor& qkv, std::int64_t offset, const std::vector<std::int32_t>& at,
           std::int64_t heads, AttentionOptions options, const Tensor& dout, Device device,
           DType dtype) {
  const std::int64_t width = dout.dim(1);
  const Tensor all = qkv.to(dtype).to(device);
  std::vector<Tensor> part;
  for (std::int64_t i = 0; i < 3; ++i)
    part.push_back(all.slice_columns(offset + i * width, offset + (i + 1) * width)
                       .detach()
                       .set_requires_grad(true));
  for (Tensor* const t : {&options.noise.step, &options.noise.sample})
    if (t->defined()) *t = t->to(device);
  const Tensor y = op(part[0], part[1], part[2], starts_of(at, device), heads, options);
  y.backward(dout.to(dtype).to(device));
  return {y.detach(), part[0].grad(), part[1].grad(), part[2].grad()};
}

// f32 rounding of sums of up to 512 products; bf16: probabilities, out and gradients are rounded.
Tolerance tolerance(DType dtype) {
  return dtype == DType::kF64   ? Tolerance{1e-11, 1e-11}
         : dtype == DType::kF32 ? Tolerance{2e-5, 2e-5}
                                : Tolerance{3e-2, 3e-2};
}

void expect_equal(const Result& got, const Result& want, Tolerance t, const std::string& where) {
  EXPECT_TRUE(all_close(got.out, want.out, t)) << "out, " << where;
  EXPECT_TRUE(all_close(got.dq, want.dq, t)) << "dq, " << where;
  EXPECT_TRUE(all_close(got.dk, want.dk, t)) << "dk, " << where;
  EXPECT_TRUE(all_close(got.dv, want.dv, t)) << "dv, " << where;
}
void expect_same_bytes(const Result& got, const Result& want, const std::string& where) {
  EXPECT_TRUE(same_bytes(got.out, want.out)) << "out, " << where;
  EXPECT_TRUE(same_bytes(got.dq, want.dq)) << "dq, " << where;
  EXPECT_TRUE(same_bytes(got.dk, want.dk)) << "dk, " << where;
  EXPECT_TRUE(same_bytes(got.dv, want.dv)) << "dv, " << where;
}

// Against the definition in f64, of inputs rounded to dtype.
void check_case(const std::vector<std::int32_t>& at, std::int64_t rows, std::int64_t heads,
                std::int64_t size, const AttentionOptions& options, std::int64_t offset = 0) {
  const std::int64_t width = heads * size;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    const Tensor qkv = randn({rows, 3 * width + offset}, 1, dtype).to(DType::kF64),
                 dout = randn({rows, width}, 2, dtype).to(DType::kF64);
    const Result want =
        run(attention_composed, qkv, offset, at, heads, options, dout, Device::kCpu, DType::kF64);
    for (const Device device : devices()) {
      if (device == Device::kCuda && dtype == DType::kF64) continue;
      const std::string where = join(name_of(dtype), " on ", name_of(device), ", ", heads, " x ",
                                     size, ", causal ", options.causal, ", offset ", offset);
      const Result got = run(attention, qkv, offset, at, heads, options, dout, device, dtype),
                   again = run(attention, qkv, offset, at, heads, options, dout, device, dtype);
      expect_equal(got, want, tolerance(dtype), where);
      expect_same_bytes(got, again, where);
    }
  }
}

TEST(Attention, hand_checked_numbers) {
  for (const Device device : devices()) {
    // Two keys with logits 0 and log 3: weights 1/4 and 3/4. The second sequence is one row.
    const float l = std::log(3.0f) * std::sqrt(8.0f);
    std::vector<float> q(24, 0.0f), k(24, 0.0f), v(24, 0.0f);
    q[0] = q[8] = 1, k[8] = l;
    for (std::size_t c = 0; c < 8; ++c) v[c] = 4, v[8 + c] = 8, v[16 + c] = 5;
    const Shape shape{3, 8};
    const auto on = [&](const std::vector<float>& x) { return Tensor::from(x, shape, device); };
    const Tensor y = attention(on(q), on(k), on(v), starts_of({0, 2, 3}, device), 1);
    std::vector<float> want(24, 7.0f);
    std::fill(want.begin() + 16, want.end(), 5.0f);
    EXPECT_TRUE(all_close(y, Tensor::from(want, shape)));
    const Tensor causal =
        attention(on(q), on(k), on(v), starts_of({0, 2, 3}, device), 1, {.causal = true});
    std::fill(want.begin(), want.begin() + 8, 4.0f);
    EXPECT_TRUE(all_close(causal, Tensor::from(want, shape)));
  }
}

TEST(Attention, equals_its_definition_for_every_head_size) {
  for (const std::int64_t size : {8, 16, 32, 64, 128})
    for (const bool causal : {false, true})
      check_case(ends_of({1, 17, 0, 33, 2}), 53, 2, size, {.causal = causal, .longest = 33});
  check_case(ends_of({5, 9}), 14, 3, 20, {});  // no CUDA kernel takes it: the composed path
  check_case(ends_of({5, 9}), 14, 1, 1, {.causal = true});
}

TEST(Attention, equals_its_definition_at_edge_lengths) {
  for (const bool causal : {false, true})
    check_case(ends_of({1, 15, 16, 31, 32, 47, 48, 49, 64, 65}), 368, 1, 16, {.causal = causal});
  check_case(ends_of({130}), 130, 1, 32, {.causal = true, .longest = 130});
}

TEST(Attention, rows_that_are_not_aligned) {
  for (const std::int64_t offset : {1, 3, 4, 8})
    check_case(ends_of({7, 20}), 27, 2, 16, {}, offset);
}

TEST(Attention, rows_of_no_sequence_and_empty_batches) {
  check_case(ends_of({3, 18}, 2), 30, 2, 8, {});
  check_case({0}, 5, 2, 8, {});
  check_case({3, 3, 3}, 5, 2, 8, {});
  for (const Device device : devices()) {
    const Tensor none = Tensor::empty({0, 16}, DType::kF32, device);
    EXPECT_EQ(attention(none, none, none, starts_of({0}, device), 2).numel(), 0);
    EXPECT_EQ(attention(none, none, none, starts_of({0, 0}, device), 2).numel(), 0);
  }
}

AttentionOptions with_dropout(double p) {
  AttentionOptions o;
  o.dropout = p;
  o.noise.seed = 7;
  o.path = path_hash("layer1.attention");
  return o;
}

TEST(Attention, dropout_equals_its_definition) {
  AttentionOptions o = with_dropout(0.3);
  check_case(ends_of({1, 17, 33}), 51, 2, 16, o);
  o.causal = true;
  o.noise.step = Tensor::from<std::int64_t>({5}, {1});
  std::vector<std::int64_t> sample(51, 40);
  sample[0] = 9;
  o.noise.sample = Tensor::from(sample, {51});
  check_case(ends_of({1, 17, 33}), 51, 2, 16, o);
}

TEST(Attention, dropout_for_every_head_size) {
  for (const std::int64_t size : {8, 16, 32, 64, 128}) {
    AttentionOptions o = with_dropout(0.3);
    o.causal = size % 32 != 0;
    check_case(ends_of({1, 33}), 34, 1, size, o, size % 64 == 0 ? 3 : 0);
  }
}

// More rows than shared memory holds of heads so wide: they go by pieces.
TEST(Attention, wide_heads_of_long_sequences) {
  AttentionOptions o = with_dropout(0.3);
  check_case(ends_of({130}), 130, 1, 128, o);
  o.causal = true;
  check_case(ends_of({130}), 130, 1, 64, o, 1);
  check_case(ends_of({260}), 260, 1, 64, o);
  check_case(ends_of({260}), 260, 1, 32, o);
}

TEST(Attention, dropout_is_of_the_sample_not_of_its_place) {
  AttentionOptions o = with_dropout(0.4);
  const Tensor qkv = randn({30, 48}, 1), dout = randn({30, 16}, 2);
  std::vector<std::int64_t> sample(30, 3);
  std::fill(sample.begin() + 12, sample.end(), 8);
  o.noise.sample = Tensor::from(sample, {30});
  AttentionOptions alone = o;
  alone.noise.sample = Tensor::from(std::vector<std::int64_t>(18, 8), {18});
  for (const Device device : devices()) {
    const Result both = run(attention, qkv, 0, {0, 12, 30}, 2, o, dout, device, DType::kF32),
                 one = run(attention, qkv.slice(12, 30), 0, {0, 18}, 2, alone, dout.slice(12, 30),
                           device, DType::kF32);
    EXPECT_TRUE(same_bytes(both.out.slice(12, 30), one.out));
    EXPECT_TRUE(same_bytes(both.dk.slice(12, 30), one.dk));
  }
}

// The share that is dropped, from values of 1 alone: out is the sum of what is kept.
TEST(Attention, dropout_keeps_the_mean) {
  const AttentionOptions o = with_dropout(0.25);
  const Tensor zero = Tensor::zeros({128, 8}), one = Tensor::full({128, 8}, 1);
  double sum = 0;
  for (const double y : attention(zero, zero, one, starts_of({0, 128}), 1, o).to_vector<double>())
    sum += y / (128 * 8);
  EXPECT_NEAR(sum, 1, 5 * std::sqrt(0.25 / 0.75 / (128 * 128)));
}

TEST(Attention, packed_is_the_same_with_one_gradient) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::vector<std::int32_t> at = ends_of({4, 19});
      const Tensor qkv = randn({23, 96}, 1, dtype), dout = randn({23, 32}, 2, dtype);
      const Result apart = run(attention, qkv, 0, at, 2, {.causal = true}, dout, device, dtype);
      const Tensor packed = qkv.to(device).set_requires_grad(true);
      const Tensor y = attention(packed, starts_of(at, device), 2, {.causal = true});
      y.backward(dout.to(device));
      EXPECT_TRUE(same_bytes(y.detach(), apart.out));
      EXPECT_TRUE(same_bytes(packed.grad().slice_columns(0, 32), apart.dq));
      EXPECT_TRUE(same_bytes(packed.grad().slice_columns(32, 64), apart.dk));
      EXPECT_TRUE(same_bytes(packed.grad().slice_columns(64, 96), apart.dv));
    }
}

TEST(Attention, the_same_bytes_alone_in_any_batch_and_on_any_number_of_threads) {
  const int before = thread_count();
  for (const Device device : devices())
    for (const std::int64_t longest : {0, 70, 300}) {
      const Tensor qkv = randn({130, 96}, 3), dout = randn({130, 32}, 4);
      const AttentionOptions o{.causal = true, .longest = longest};
      set_thread_count(1);
      const Result one = run(attention, qkv.slice(60, 130), 0, {0, 70}, 2, o, dout.slice(60, 130),
                             device, DType::kF32);
      set_thread_count(3);
      const Result all = run(attention, qkv, 0, {0, 1, 60, 130}, 2, o, dout, device, DType::kF32);
      EXPECT_TRUE(same_bytes(all.out.slice(60, 130), one.out)) << name_of(device);
      EXPECT_TRUE(same_bytes(all.dq.slice(60, 130), one.dq)) << name_of(device);
      EXPECT_TRUE(same_bytes(all.dk.slice(60, 130), one.dk)) << name_of(device);
      EXPECT_TRUE(same_bytes(all.dv.slice(60, 130), one.dv)) << name_of(device);
    }
  set_thread_count(before);
}

TEST(Attention, extreme_values) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const auto of = [&](double q, double k) {
        Tensor tq = Tensor::full({4, 8}, q), tk = Tensor::full({4, 8}, 1),
               tv = randn({4, 8}, 1, dtype);
        tk.slice(2, 3).fill(k);
        return attention(tq.to(dtype).to(device), tk.to(dtype).to(device), tv.to(device),
                         starts_of({0, 4}, device), 1)
            .to_vector<double>();
      };
      const Tensor v = randn({4, 8}, 1, dtype);
      const std::vector<double> values = v.to_vector<double>();
      const std::string where = join(name_of(dtype), " on ", name_of(device));
      // The third key's logit is far above the others: it takes all the mass, and far below: none.
      const auto above = of(1000, 2), below = of(-1000, 2), minus = of(1, -kInf);
      const auto nan = of(1, std::nan("")), plus = of(1, kInf), no_mass = of(-kInf, 1);
      for (std::size_t c = 0; c < 8; ++c) {
        const double rest = (values[c] + values[8 + c] + values[24 + c]) / 3;
        EXPECT_NEAR(above[c], values[16 + c], 1e-6) << where;
        EXPECT_NEAR(below[c], rest, dtype == DType::kF32 ? 1e-6 : 1e-2) << where;
        EXPECT_NEAR(minus[c], rest, dtype == DType::kF32 ? 1e-6 : 1e-2) << where;
        EXPECT_TRUE(std::isnan(nan[c])) << where;
        EXPECT_TRUE(std::isnan(plus[c])) << where;
        EXPECT_EQ(no_mass[c], 0) << where;
      }
    }
}

TEST(Attention, gradients_agree_with_differences) {
  for (const bool causal : {false, true})
    for (const double p : {0.0, 0.3}) {
      AttentionOptions o = with_dropout(p);
      o.causal = causal;
      const auto result = gradcheck(
          [&](const auto& in) {
            return attention(in[0], in[1], in[2], starts_of({0, 1, 4}), 2, o);
          },
          {randn({5, 6}, 1, DType::kF64), randn({5, 6}, 2, DType::kF64),
           randn({5, 6}, 3, DType::kF64)});
      EXPECT_TRUE(result.ok) << result.message;
    }
}

TEST(Attention, opcheck) {
  const auto f = [](const std::vector<Tensor>& in) {
    return attention(in[0], in[1], in[2], starts_of({0, 3}, in[0].device()), 2);
  };
  OpcheckOptions options;
  options.rtol = options.atol = 2e-5;
  const Tensor x = randn({3, 16}, 1);
  const OpcheckReport report = opcheck(f, {{x, randn({3, 16}, 2), randn({3, 16}, 3)}}, options);
  EXPECT_TRUE(report.ok()) << report.str();
}

TEST(Attention, errors) {
  const auto message = [](const std::function<void()>& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const Tensor x = Tensor::zeros({4, 6});
  EXPECT_EQ(message([&] {
              attention(x, x, x, starts_of({0, 3, 2}), 2);
            }),
            "[attention] expected ascending starts in [0, 4], got 2 at 2 after 3");
  EXPECT_EQ(message([&] {
              attention(x, x, x, starts_of({0, 5}), 2);
            }),
            "[attention] expected ascending starts in [0, 4], got 5 at 1 after 0");
  EXPECT_EQ(message([&] {
              attention(x, x, x, starts_of({0, 4}), 4);
            }),
            "[attention] expected columns in 4 equal heads, got 6");
  EXPECT_EQ(message([&] {
              attention(x, x, x, starts_of({0, 4}), 2, {.longest = 3});
            }),
            "[attention] expected sequences of at most 3 rows, got 4 in sequence 0");
  EXPECT_EQ(message([&] {
              attention(x, x, Tensor::zeros({4, 3}), starts_of({0, 4}), 1);
            }),
            "[attention] expected k and v like q, (4, 6) of f32 on cpu, got (4, 3) of f32 on cpu");
  AttentionOptions o = with_dropout(1);
  EXPECT_THROW(attention(x, x, x, starts_of({0, 4}), 2, o), Error);
  o = with_dropout(0.5);
  o.noise.sample = Tensor::zeros({3}, DType::kI64);
  EXPECT_THROW(attention(x, x, x, starts_of({0, 4}), 2, o), Error);
  EXPECT_THROW(attention(Tensor::zeros({4, 8}), starts_of({0, 4}), 2), Error);
  EXPECT_TRUE(attention_is_fused(Device::kCpu, DType::kF64, 20));
  EXPECT_FALSE(attention_is_fused(Device::kCuda, DType::kF32, 20));
  EXPECT_TRUE(attention_is_fused(Device::kCuda, DType::kBF16, 64));
}

}  // namespace
}  // namespace retort::test
