#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::Activation;
constexpr Activation kRelu = Activation::kRelu;

struct Case {
  std::int64_t m, n, k;
  bool ta, tb;
  std::int64_t pad;  // extra elements between rows
  double alpha, beta;
  bool bias;
  Activation activation = Activation::kNone;
  bool keep = false;  // Z, too
};

struct Operands {
  Tensor a, b, c, bias;
};

// Matrices with padded rows; the padding is NaN, so that reading it shows.
Tensor padded(std::int64_t rows, std::int64_t width, std::int64_t pad, std::uint64_t seed,
              DType dtype) {
  const Tensor t = Tensor::empty({rows, width + pad}, dtype);
  t.fill(NAN);
  const Tensor values = randn({rows, width}, seed, dtype);
  for (std::int64_t i = 0; i < rows; ++i)
    std::memcpy(
        static_cast<char*>(t.raw()) + static_cast<std::size_t>(i * (width + pad)) * size_of(dtype),
        static_cast<char*>(values.raw()) + static_cast<std::size_t>(i * width) * size_of(dtype),
        static_cast<std::size_t>(width) * size_of(dtype));
  return t;
}

Operands operands(const Case& c, DType dtype) {
  return {padded(c.ta ? c.k : c.m, c.ta ? c.m : c.k, c.pad, 1, dtype),
          padded(c.tb ? c.n : c.k, c.tb ? c.k : c.n, c.pad, 2, dtype),
          padded(c.m, c.n, c.pad, 3, dtype), randn({c.n}, 4, dtype)};
}

Tensor run(const Case& c, const Operands& o, Device device, Tensor* pre_activation = nullptr) {
  const Tensor a = o.a.to(device), b = o.b.to(device), bias = o.bias.to(device);
  const Tensor out = Tensor::empty(o.c.shape(), o.c.dtype(), device);
  out.copy_from(o.c);
  kernels::GemmArgs args{out.raw(), a.raw(),  b.raw(),  c.m,       c.n,
                         c.k,       a.dim(1), b.dim(1), out.dim(1)};
  args.transpose_a = c.ta;
  args.transpose_b = c.tb;
  args.dtype = o.a.dtype();
  args.alpha = c.alpha;
  args.beta = c.beta;
  args.bias = c.bias ? bias.raw() : nullptr;
  args.activation = c.activation;
  Tensor z;
  if (c.keep) {
    z = Tensor::full(o.c.shape(), NAN, o.c.dtype(), device);
    if (c.beta != 0) z.copy_from(o.c);
    out.fill(NAN);  // not read then
    args.pre_activation = z.raw();
  }
  kernels::gemm(context_of(device), args);
  if (pre_activation != nullptr) *pre_activation = z.to(Device::kCpu);
  return out.to(Device::kCpu);
}

// The definition, in double: f(Z), or Z.
std::vector<double> definition(const Case& c, const Operands& o, bool pre_activation = false) {
  const auto a = o.a.to_vector<double>(), b = o.b.to_vector<double>(),
             old = o.c.to_vector<double>(), bias = o.bias.to_vector<double>();
  const std::int64_t lda = o.a.dim(1), ldb = o.b.dim(1), ldc = o.c.dim(1);
  std::vector<double> out = old;
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int64_t i = 0; i < c.m; ++i)
    for (std::int64_t j = 0; j < c.n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < c.k; ++k)
        sum += a[at(c.ta ? k * lda + i : i * lda + k)] * b[at(c.tb ? j * ldb + k : k * ldb + j)];
      out[at(i * ldc + j)] = c.alpha * sum + (c.beta == 0 ? 0 : c.beta * old[at(i * ldc + j)]) +
                             (c.bias ? bias[at(j)] : 0);
      double& value = out[at(i * ldc + j)];
      if (!pre_activation)
        kernels::dispatch_activation(
            c.activation, [&]<Activation kF>() { value = kernels::activate<kF>(value); });
    }
  return out;
}

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      list.push_back({1, 1, 1, ta, tb, 0, 1, 0, false});
      list.push_back({5, 7, 3, ta, tb, 3, 0.5, -2, true});
      list.push_back({64, 64, 16, ta, tb, 0, 1, 1, false});
      list.push_back({65, 63, 17, ta, tb, 1, 1, 0, true});
      list.push_back({33, 130, 70, ta, tb, 2, -1.5, 0.25, true});
      list.push_back({33, 130, 7, ta, tb, 2, 1, 0.5, true, kRelu});
      list.push_back({600, 3, 2, ta, tb, 0, 1, 0, false, kRelu});
      for (const Activation f : {Activation::kGelu, Activation::kGeluTanh, Activation::kTanh}) {
        list.push_back({33, 70, 7, ta, tb, 2, 1, 0.5, true, f});
        list.push_back({5, 130, 9, ta, tb, 0, 1, 0, false, f});
      }
      for (const Activation f : {Activation::kNone, kRelu, Activation::kGelu}) {
        list.push_back({33, 70, 7, ta, tb, 2, 1, 0.5, true, f, true});
        list.push_back({5, 130, 9, ta, tb, 0, 1, 0, f == kRelu, f, true});
      }
    }
  list.push_back({3, 4, 0, false, false, 1, 1, 2, true});  // nothing to sum
  list.push_back({3, 4, 0, false, false, 1, 1, 2, true, Activation::kGelu, true});
  // A linear layer's forward: panels of any width, runs of 256 by depth, rows of every remainder.
  for (const std::int64_t m : {96, 98, 99, 101, 103, 106, 131})
    for (const std::int64_t n : {8, 9, 23, 40, 49, 100, 130})
      list.push_back({m, n, m == 103 ? 515 : 8 + n % 5, false, true, n % 3, 1, 0, m % 2 == 0,
                      n % 2 == 0   ? kRelu
                      : m % 4 == 3 ? Activation::kGelu
                                   : Activation::kNone,
                      m % 8 == 3});
  return list;
}

TEST(Gemm, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, device),
                 b = Tensor::from<float>({1, 0, 2, 1, 0, 3}, {3, 2}, device),
                 bias = Tensor::from<float>({100, 200}, {2}, device),
                 c = Tensor::full({2, 2}, NAN, DType::kF32, device);
    kernels::GemmArgs args{c.raw(), a.raw(), b.raw(), 2, 2, 3, 3, 2, 2};
    args.bias = bias.raw();
    kernels::gemm(context_of(device), args);
    EXPECT_EQ(c.to_vector<float>(), (std::vector<float>{105, 211, 114, 223})) << name_of(device);
  }
}

TEST(Gemm, equals_the_definition_in_double) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const Case& c : cases()) {
      const Operands o = operands(c, dtype);
      const std::vector<double> want = definition(c, o);
      // Rounding of sums: of order sqrt(K) ulps of terms of size 1; bf16 rounds the result once.
      const double rtol = tolerance_of(dtype).rtol, long_sums = c.k > 100 ? 2 : 1,
                   atol = long_sums * (dtype == DType::kF64   ? 1e-12
                                       : dtype == DType::kF32 ? 2e-5
                                                              : 1e-3);
      for (const Device device : devices()) {
        Tensor z;
        const std::vector<double> got = run(c, o, device, &z).to_vector<double>();
        if (c.keep) {
          const std::vector<double> want_z = definition(c, o, true), got_z = z.to_vector<double>();
          for (std::size_t i = 0; i < want_z.size(); ++i)
            ASSERT_TRUE(static_cast<std::int64_t>(i) % o.c.dim(1) >= c.n
                            ? std::isnan(got_z[i])
                            : close(got_z[i], want_z[i], rtol, atol))
                << "Z, " << name_of(dtype) << " on " << name_of(device) << " element " << i;
        }
        for (std::size_t i = 0; i < want.size(); ++i) {
          const bool padding = static_cast<std::int64_t>(i) % o.c.dim(1) >= c.n;
          ASSERT_TRUE(padding ? std::isnan(got[i]) : close(got[i], want[i], rtol, atol))
              << name_of(dtype) << " on " << name_of(device) << " (" << c.m << ", " << c.n << ", "
              << c.k << ") " << c.ta << c.tb << " element " << i << ": got " << got[i] << ", want "
              << want[i];
        }
      }
    }
}

// 1 + 2^-20 needs 21 bits: TF32 keeps 11 of them. What the switch changes shows on hardware only:
// the emulated product is exact either way.
TEST(Gemm, f32_keeps_every_bit_unless_tf32_is_asked_for) {
  constexpr std::int64_t kSize = 64;
  const float exact = 1 + 0x1p-20f;
  std::vector<float> ones(kSize * kSize);
  for (std::size_t i = 0; i < kSize; ++i) ones[i * kSize + i] = 1;
  for (const Device device : devices()) {
    const Tensor a = Tensor::full({kSize, kSize}, exact, DType::kF32, device),
                 b = Tensor::from<float>(ones, {kSize, kSize}, device),
                 c = Tensor::full({kSize, kSize}, NAN, DType::kF32, device);
    for (const bool allow : {false, true, false}) {
      set_allow_tf32(allow);
      EXPECT_EQ(context_of(device).allow_tf32, allow && device == Device::kCuda);
      kernels::gemm(context_of(device),
                    {c.raw(), a.raw(), b.raw(), kSize, kSize, kSize, kSize, kSize, kSize});
      for (const float v : c.to_vector<float>())
        ASSERT_NEAR(v, exact, allow ? 0x1p-11f : 0) << name_of(device) << ", allowed " << allow;
    }
  }
}

TEST(Gemm, same_bytes_with_any_number_of_threads) {
  const int before = thread_count();
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const Case& c : {Case{700, 300, 257, false, true, 0, 1, 0, true},
                          Case{300, 700, 1000, true, false, 0, 1, 1, false},
                          Case{64, 40, 5000, false, false, 0, 1, 0, false},
                          Case{32, 1000, 100, false, true, 0, 1, 0, true, kRelu},
                          Case{300, 200, 100, false, true, 0, 1, 0, true, Activation::kGelu},
                          Case{2048, 1000, 1, false, false, 0, 1, 0, false},
                          Case{2048, 1, 900, false, true, 0, 1, 0, true},
                          Case{1, 900, 2048, true, false, 0, 1, 0, false}}) {
      if (dtype != DType::kF32 && (c.k >= 1000 || c.m > 2000)) continue;  // time
      const Operands o = operands(c, dtype);
      set_thread_count(1);
      const Tensor one = run(c, o, Device::kCpu);
      for (const int threads : {2, 3}) {
        set_thread_count(threads);
        EXPECT_TRUE(same_bytes(run(c, o, Device::kCpu), one)) << name_of(dtype) << " " << threads;
      }
    }
  set_thread_count(before);
}

TEST(Gemm, beta_zero_does_not_read_the_old_content) {
  for (const Device device : devices()) {
    const Case c{4, 4, 4, false, false, 0, 1, 0, false};
    Operands o = operands(c, DType::kF32);
    o.c.fill(NAN);
    for (const float v : run(c, o, device).to_vector<float>()) EXPECT_FALSE(std::isnan(v));
  }
}

TEST(Gemm, relu_of_nan_is_nan_and_of_the_rest_is_not_negative) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
    for (const Device device : devices()) {
      const Tensor a = Tensor::from<double>({1, -1, NAN}, {3, 1}).to(dtype).to(device),
                   b = Tensor::from<double>({2, -3}, {1, 2}).to(dtype).to(device),
                   c = Tensor::zeros({3, 2}, dtype, device);
      kernels::GemmArgs args{c.raw(), a.raw(), b.raw(), 3, 2, 1, 1, 2, 2};
      args.dtype = dtype;
      args.activation = kRelu;
      kernels::gemm(context_of(device), args);
      const std::vector<double> y = c.to_vector<double>();
      EXPECT_EQ(std::vector<double>(y.begin(), y.begin() + 4), (std::vector<double>{2, 0, 0, 3}));
      EXPECT_TRUE(std::isnan(y[4]) && std::isnan(y[5])) << name_of(device) << name_of(dtype);
    }
}

TEST(Gemm, nan_of_a_row_or_a_column_stays_there_in_a_layer_of_many_rows) {
  constexpr std::int64_t kM = 100, kN = 21, kK = 300, kRow = 97, kColumn = 20;
  for (const Device device : devices()) {
    const Case c{kM, kN, kK, false, true, 0, 1, 0, true, kRelu};
    const Operands o = operands(c, DType::kF32);
    o.a.data<float>()[kRow * kK + kK - 1] = NAN;
    o.b.data<float>()[kColumn * kK] = NAN;
    const std::vector<float> y = run(c, o, device).to_vector<float>();
    for (std::int64_t i = 0; i < kM; ++i)
      for (std::int64_t j = 0; j < kN; ++j)
        ASSERT_EQ(std::isnan(y[static_cast<std::size_t>(i * kN + j)]), i == kRow || j == kColumn)
            << name_of(device) << " (" << i << ", " << j << ")";
  }
}

// The same bits alone, among few rows and among many; the sums are those of the definition.
TEST(Gemm, a_row_alone_has_the_bits_that_it_has_among_others) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const std::int64_t n : {1, 2, 7, 9, 40, 97})
      for (const std::int64_t k : {1, 7, 300, 515})
        for (const Activation f : {Activation::kNone, kRelu, Activation::kTanh}) {
          constexpr std::int64_t kRows = 230;
          const Tensor a = randn({kRows, k}, 1).to(dtype), b = randn({n, k}, 2).to(dtype),
                       bias = randn({n}, 3).to(dtype);
          const auto product = [&](std::int64_t first, std::int64_t rows, bool row_alone) {
            const Tensor c = Tensor::full({rows, n}, NAN, dtype, Device::kCpu);
            kernels::GemmArgs args{
                c.raw(), a.slice(first, first + rows).raw(), b.raw(), rows, n, k, k, k, n};
            args.transpose_b = true;
            args.dtype = dtype;
            args.bias = bias.raw();
            args.activation = f;
            args.row_alone = row_alone;
            kernels::gemm(context_of(Device::kCpu), args);
            return c;
          };
          const Tensor want = product(0, kRows, true);
          EXPECT_TRUE(
              all_close(want, product(0, kRows, false),
                        dtype == DType::kBF16 ? Tolerance{1e-2, 1e-2} : Tolerance{1e-4, 1e-4}));
          for (const auto& [first, rows] :
               {std::pair<std::int64_t, std::int64_t>{0, 1}, {229, 1}, {17, 5}, {90, 100}})
            ASSERT_TRUE(same_bytes(product(first, rows, true), want.slice(first, first + rows)))
                << name_of(dtype) << " n " << n << " k " << k << " rows " << rows;
        }
}

TEST(Gemm, bad_arguments_throw) {
  const Context& cpu = context_of(Device::kCpu);
  float x[4] = {};
  EXPECT_THROW(kernels::gemm(cpu, {x, x, x, -1, 2, 2, 2, 2, 2}), Error);
  EXPECT_THROW(kernels::gemm(cpu, {x, x, x, 2, 2, 2, 1, 2, 2}), Error);
  EXPECT_THROW(kernels::gemm(cpu, {x, x, x, 2, 2, 2, 2, 1, 2}), Error);
  EXPECT_THROW(kernels::gemm(cpu, {x, x, x, 2, 2, 2, 2, 2, 1}), Error);
  EXPECT_THROW(kernels::gemm(cpu, {nullptr, x, x, 2, 2, 2, 2, 2, 2}), Error);
  kernels::GemmArgs integers{x, x, x, 1, 1, 1, 1, 1, 1};
  integers.dtype = DType::kI32;
  EXPECT_THROW(kernels::gemm(cpu, integers), Error);
  kernels::GemmArgs twice{x, x, x, 1, 1, 1, 1, 1, 1};
  twice.pre_activation = x;
  EXPECT_THROW(kernels::gemm(cpu, twice), Error);
  kernels::GemmArgs alone{x, x, x, 1, 1, 1, 1, 1, 1};
  alone.row_alone = true;
  EXPECT_THROW(kernels::gemm(cpu, alone), Error);  // B as it lies
  EXPECT_NO_THROW(kernels::gemm(cpu, {nullptr, nullptr, nullptr, 0, 2, 2, 2, 2, 2}));
}

}  // namespace
}  // namespace retort::test
