// Convolution against its definition in double, on every device.
#include "kernels/conv2d/conv2d_composed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "tests/support/close.h"
#include "tests/support/own_convolution.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::Conv2dShape;

std::string text_of(const Conv2dShape& s, DType dtype, Device device) {
  return join(s.batch, "x", s.height, "x", s.width, " C", s.channels, " K", s.filters, " ",
              s.filter_height, "x", s.filter_width, " stride ", s.stride, " padding ", s.padding,
              " ", name_of(dtype), " on ", name_of(device));
}

// The sums of all elements of a tensor.
struct Sums : std::vector<kernels::ProductSum> {
  template <class F>
  Sums(std::int64_t elements, F&& element) {
    for (std::int64_t i = 0; i < elements; ++i) push_back(element(static_cast<std::size_t>(i)));
  }
};

// The tensors of a case and what the three passes should give by their definitions. The operands
// are rounded to the type that is multiplied before the definitions see them.
struct Case {
  Case(const Conv2dShape& shape, DType dtype, DType weight_dtype)
      : s(shape),
        x(randn({s.batch, s.height, s.width, s.channels}, 1, dtype)),
        weight(randn({s.filters, s.filter_height, s.filter_width, s.channels}, 2, weight_dtype)),
        dy(randn({s.batch, s.out_height(), s.out_width(), s.filters}, 3, dtype)),
        xv(x.to_vector<double>()),
        wv(weight.to(dtype).to_vector<double>()),
        dyv(dy.to_vector<double>()),
        y_want(dy.numel(), [&](std::size_t i) { return kernels::conv2d_composed(s, xv, wv, i); }),
        dx_want(
            x.numel(),
            [&](std::size_t i) { return kernels::conv2d_backward_data_composed(s, dyv, wv, i); }),
        dw_want(weight.numel(), [&](std::size_t i) {
          return kernels::conv2d_backward_weight_composed(s, xv, dyv, i);
        }) {}
  Conv2dShape s;
  Tensor x, weight, dy;
  std::vector<double> xv, wv, dyv;
  Sums y_want, dx_want, dw_want;
};

// An output with sentinels before and after it.
struct Guarded {
  Guarded(const Shape& shape, DType dtype, Device device)
      : all(Tensor::full({shape.numel() + 128}, 768, dtype, device)),
        out(Tensor::wrap(all.storage(), 64, shape, dtype, shape[-1])) {}
  void expect_untouched(const std::string& what) const {
    const std::vector<double> values = all.to_vector<double>();
    for (std::size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(values[i], 768) << what << " wrote before its output";
      EXPECT_EQ(values[values.size() - 1 - i], 768) << what << " wrote past its output";
    }
  }
  Tensor all, out;
};

// Rounding of the storage type, plus that of the sums relative to the products' magnitudes.
void expect_near(const Tensor& got, const std::vector<kernels::ProductSum>& want,
                 const std::string& what) {
  const double storage = got.dtype() == DType::kBF16 ? 4e-3 : 0;
  const double sums = got.dtype() == DType::kF64 ? 1e-14 : 3e-6;
  const std::vector<double> values = got.to_vector<double>();
  ASSERT_EQ(values.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i)
    if (!close(values[i], want[i].value, storage, sums * want[i].size + 1e-30)) {
      ADD_FAILURE() << what << " at " << i << ": got " << values[i] << ", want " << want[i].value
                    << " (magnitude " << want[i].size << ")";
      return;
    }
}

struct Results {
  Tensor y, dx, dweight;
};

Results run(const Case& c, Device device, const std::string& what) {
  const Context& context = context_of(device);
  const Tensor x = c.x.to(device), weight = c.weight.to(device), dy = c.dy.to(device);
  const DType dtype = x.dtype(), weight_dtype = weight.dtype();
  const Guarded y(dy.shape(), dtype, device), dx(x.shape(), dtype, device),
      dweight(weight.shape(), weight_dtype, device);
  kernels::conv2d(context, {y.out.raw(), x.raw(), weight.raw(), c.s, dtype, weight_dtype});
  kernels::conv2d_backward_data(context,
                                {dx.out.raw(), dy.raw(), weight.raw(), c.s, dtype, weight_dtype});
  kernels::conv2d_backward_weight(context,
                                  {dweight.out.raw(), x.raw(), dy.raw(), c.s, dtype, weight_dtype});
  y.expect_untouched("fprop " + what);
  dx.expect_untouched("dgrad " + what);
  dweight.expect_untouched("wgrad " + what);
  return {y.out, dx.out, dweight.out};
}

void check(const Conv2dShape& shape, DType dtype, DType weight_dtype, Device device) {
  const std::string what = text_of(shape, dtype, device);
  const Case c(shape, dtype, weight_dtype);
  const Results first = run(c, device, what), second = run(c, device, what);
  expect_near(first.y, c.y_want, "fprop " + what);
  expect_near(first.dx, c.dx_want, "dgrad " + what);
  expect_near(first.dweight, c.dw_want, "wgrad " + what);
  EXPECT_TRUE(same_bytes(first.y, second.y)) << "fprop " << what;
  EXPECT_TRUE(same_bytes(first.dx, second.dx)) << "dgrad " << what;
  EXPECT_TRUE(same_bytes(first.dweight, second.dweight)) << "wgrad " << what;
}

// clang-format off
const Conv2dShape kEdgeShapes[] = {
    //  N   H   W   C   K  R  S  stride padding
    {   1,  1,  1,  1,  1, 1, 1, 1, 0},
    {   2,  5,  7,  3,  8, 3, 3, 1, 1},   // a stem: three channels
    {   1,  9,  9,  3, 10, 7, 7, 2, 3},   // the ImageNet stem
    {   3,  8,  6, 16, 16, 3, 3, 1, 1},
    {   2,  7,  9,  8, 33, 3, 3, 2, 1},
    {   2,  8,  8, 16, 10, 1, 1, 2, 0},   // a projection; the last row and column are not read
    {   1,  6,  5, 17, 16, 3, 3, 1, 0},
    {   3,  5,  5, 64, 33, 1, 1, 1, 0},
    {   1,  5,  4,  8,  1, 5, 3, 1, 2},   // neither square nor symmetric
    {   2,  4,  4,  1, 16, 3, 3, 2, 1},
    {   2, 11, 10, 16,  8, 3, 3, 3, 2},   // stride 3
    {   1,  3,  3,  8,  8, 3, 3, 1, 4},   // padding beyond the filter
    {   1,  4,  9,  8, 16, 2, 2, 3, 0},   // gaps between the filters
    {   1,  4,  3,  8, 68, 3, 3, 1, 1},   // the weight gradient's tiles of 128 filters
};
// clang-format on

TEST(Conv2dKernel, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Conv2dShape s{1, 2, 2, 1, 1, 2, 2, 1, 1};  // 3 x 3 out
    const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {1, 2, 2, 1}, device),
                 weight = Tensor::from<float>({10, 20, 30, 40}, {1, 2, 2, 1}, device),
                 dy = Tensor::from<float>({1, 0, 0, 0, 2, 0, 0, 0, 3}, {1, 3, 3, 1}, device),
                 y = Tensor::zeros({1, 3, 3, 1}, DType::kF32, device),
                 dx = Tensor::zeros({1, 2, 2, 1}, DType::kF32, device),
                 dweight = Tensor::zeros({1, 2, 2, 1}, DType::kF32, device);
    const Context& context = context_of(device);
    const DType f32 = DType::kF32;
    kernels::conv2d(context, {y.raw(), x.raw(), weight.raw(), s, f32, f32});
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{40, 110, 60, 140, 300, 140, 60, 110, 40}))
        << name_of(device);
    kernels::conv2d_backward_data(context, {dx.raw(), dy.raw(), weight.raw(), s, f32, f32});
    EXPECT_EQ(dx.to_vector<float>(), (std::vector<float>{60, 40, 60, 110})) << name_of(device);
    kernels::conv2d_backward_weight(context, {dweight.raw(), x.raw(), dy.raw(), s, f32, f32});
    EXPECT_EQ(dweight.to_vector<float>(), (std::vector<float>{14, 4, 6, 9})) << name_of(device);
  }
}

TEST(Conv2dKernel, f32_equals_the_double_loop) {
  for (const Device device : devices())
    for (const Conv2dShape& s : kEdgeShapes) check(s, DType::kF32, DType::kF32, device);
}

TEST(Conv2dKernel, bf16_equals_the_double_loop) {
  for (const Device device : devices())
    for (const Conv2dShape& s : kEdgeShapes) {
      check(s, DType::kBF16, DType::kBF16, device);
      check(s, DType::kBF16, DType::kF32, device);
    }
}

TEST(Conv2dKernel, f64_equals_the_double_loop) {
  for (const Conv2dShape& s : kEdgeShapes) check(s, DType::kF64, DType::kF64, Device::kCpu);
}

// The shapes for which the CPU takes another algorithm, and batches that leave a shorter slice.
TEST(Conv2dKernel, cpu_large_shapes_equal_the_double_loop) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "half a minute under TSan, which the next test asks about threads";
#endif
  for (const Conv2dShape& s :
       {Conv2dShape{5, 16, 16, 64, 64, 3, 3, 1, 1}, Conv2dShape{37, 4, 4, 64, 64, 3, 3, 1, 1},
        Conv2dShape{67, 5, 5, 8, 16, 3, 3, 1, 1}})
    check(s, DType::kF32, DType::kF32, Device::kCpu);
}

TEST(Conv2dKernel, results_do_not_depend_on_the_thread_count) {
  const int before = thread_count();
  for (const Device device : devices())
    for (const Conv2dShape& s :
         {Conv2dShape{37, 8, 8, 16, 16, 3, 3, 1, 1}, Conv2dShape{33, 4, 4, 64, 64, 3, 3, 1, 1},
          Conv2dShape{9, 9, 9, 3, 16, 7, 7, 2, 3}, Conv2dShape{20, 8, 8, 16, 32, 1, 1, 2, 0}}) {
      if (device == Device::kCuda && s.channels > 16) continue;
      for (const DType dtype : {DType::kF32, DType::kF64}) {
        if (device == Device::kCuda && dtype == DType::kF64) continue;
        const std::string what = text_of(s, dtype, device);
        const Case c(s, dtype, dtype);
        set_thread_count(1);
        const Results one = run(c, device, what);
        for (const int threads : {2, 3}) {
          set_thread_count(threads);
          const Results more = run(c, device, what);
          EXPECT_TRUE(same_bytes(one.y, more.y)) << "fprop " << what;
          EXPECT_TRUE(same_bytes(one.dx, more.dx)) << "dgrad " << what;
          EXPECT_TRUE(same_bytes(one.dweight, more.dweight)) << "wgrad " << what;
        }
      }
    }
  set_thread_count(before);
}

// Pointers that are aligned to an element only take the paths without 16-byte accesses.
TEST(Conv2dKernel, unaligned_pointers_give_the_same_bytes) {
  if (!convolutions_are_own()) GTEST_SKIP() << "alignments may get different algorithms";
  const Conv2dShape s{2, 5, 6, 16, 8, 3, 3, 1, 1};
  for (const Device device : devices())
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string what = text_of(s, dtype, device);
      const Case c(s, dtype, dtype);
      const Results want = run(c, device, what);
      auto shifted = [&](const Tensor& t) {
        const Tensor all = Tensor::zeros({t.numel() + 1}, dtype, device);
        const Tensor moved = Tensor::wrap(all.storage(), 1, t.shape(), dtype, t.dim(-1));
        moved.copy_from(t);
        return moved;
      };
      const Tensor x = shifted(c.x), weight = shifted(c.weight), dy = shifted(c.dy);
      const Tensor y = shifted(c.dy), dx = shifted(c.x), dweight = shifted(c.weight);
      const Context& context = context_of(device);
      kernels::conv2d(context, {y.raw(), x.raw(), weight.raw(), s, dtype, dtype});
      kernels::conv2d_backward_data(context, {dx.raw(), dy.raw(), weight.raw(), s, dtype, dtype});
      kernels::conv2d_backward_weight(context, {dweight.raw(), x.raw(), dy.raw(), s, dtype, dtype});
      EXPECT_TRUE(same_bytes(y, want.y)) << "fprop " << what;
      EXPECT_TRUE(same_bytes(dx, want.dx)) << "dgrad " << what;
      EXPECT_TRUE(same_bytes(dweight, want.dweight)) << "wgrad " << what;
    }
}

// The epilogue, against the same in double on sums that were not rounded.
void check_epilogue(const Conv2dShape& s, DType dtype, Device device, bool bias, bool residual,
                    bool relu) {
  const std::string what =
      join(text_of(s, dtype, device), " bias ", bias, " residual ", residual, " relu ", relu);
  const Case c(s, dtype, dtype);
  const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor offsets = randn({s.filters}, 4, wide), added = randn(c.dy.shape(), 5, dtype);
  std::vector<kernels::ProductSum> want = c.y_want;
  const std::vector<double> offset = offsets.to_vector<double>(), e = added.to_vector<double>();
  for (std::size_t i = 0; i < want.size(); ++i)
    want[i] = kernels::conv2d_epilogue_composed(want[i], bias ? offset[i % offset.size()] : 0,
                                                residual ? e[i] : 0, relu);
  const Tensor x = c.x.to(device), weight = c.weight.to(device), o = offsets.to(device),
               r = added.to(device);
  const Guarded y(c.dy.shape(), dtype, device);
  kernels::conv2d(context_of(device),
                  {y.out.raw(),
                   x.raw(),
                   weight.raw(),
                   s,
                   dtype,
                   dtype,
                   {bias ? o.raw() : nullptr, residual ? r.raw() : nullptr, relu}});
  y.expect_untouched(what);
  expect_near(y.out, want, what);
}

// clang-format off
const Conv2dShape kFusedShapes[] = {
    //  N   H   W   C   K  R  S  stride padding
    {   3,  8,  6, 16, 16, 3, 3, 1, 1},
    {   2,  7,  9,  8, 33, 3, 3, 2, 1},   // filters no multiple of a chunk
    {   1,  9,  9,  3, 10, 7, 7, 2, 3},
    {   5,  6,  5, 64, 72, 1, 1, 1, 0},   // a chunk and a part of one
    {   1,  1,  1,  8,  8, 1, 1, 1, 0},   // one row
    {   2,  5,  5,  3, 40, 3, 3, 1, 1},   // 64 columns, channels one by one
};
// clang-format on

TEST(Conv2dKernel, epilogue_equals_its_formula) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      if (device == Device::kCuda && dtype == DType::kF64) continue;
      for (const Conv2dShape& s : kFusedShapes) check_epilogue(s, dtype, device, true, true, true);
      for (int bits = 1; bits < 7; ++bits)
        check_epilogue(kFusedShapes[1], dtype, device, bits & 1, bits & 2, bits & 4);
    }
}

TEST(Conv2dKernel, epilogue_keeps_a_nan) {
  for (const Device device : devices()) {
    const Conv2dShape s{1, 1, 2, 1, 1, 1, 1, 1, 0};
    const Tensor x = Tensor::from<float>({NAN, -1}, {1, 1, 2, 1}, device),
                 weight = Tensor::full({1, 1, 1, 1}, 1, DType::kF32, device),
                 y = Tensor::zeros({1, 1, 2, 1}, DType::kF32, device);
    kernels::conv2d(
        context_of(device),
        {y.raw(), x.raw(), weight.raw(), s, DType::kF32, DType::kF32, {nullptr, nullptr, true}});
    const std::vector<float> values = y.to_vector<float>();
    EXPECT_TRUE(std::isnan(values[0])) << name_of(device);
    EXPECT_EQ(values[1], 0) << name_of(device);
  }
}

// Mean and centred sum of squares of every chunk, of y as it was stored.
void check_statistics(const Conv2dShape& s, DType dtype, Device device, double shift = 0) {
  const std::string what = text_of(s, dtype, device);
  const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor x = randn({s.batch, s.height, s.width, s.channels}, 1, dtype, 1, shift).to(device),
               weight = randn({s.filters, s.filter_height, s.filter_width, s.channels}, 2, dtype)
                            .to(device);
  const Shape y_shape{s.batch, s.out_height(), s.out_width(), s.filters};
  const kernels::Conv2dChunks chunks = kernels::conv2d_statistics_chunks(s, device);
  ASSERT_GE(chunks.rows * chunks.count, y_shape.numel() / s.filters) << what;
  ASSERT_LT(chunks.rows * (chunks.count - 1), y_shape.numel() / s.filters) << what;
  const Tensor plain = Tensor::empty(y_shape, dtype, device);
  kernels::conv2d(context_of(device), {plain.raw(), x.raw(), weight.raw(), s, dtype, dtype});
  const Guarded y(y_shape, dtype, device), first({chunks.count, 2, s.filters}, wide, device),
      second({chunks.count, 2, s.filters}, wide, device);
  for (const Guarded* statistics : {&first, &second}) {
    kernels::conv2d(
        context_of(device),
        {y.out.raw(), x.raw(), weight.raw(), s, dtype, dtype, {}, statistics->out.raw()});
    y.expect_untouched(what);
    statistics->expect_untouched("statistics " + what);
  }
  EXPECT_TRUE(same_bytes(y.out, plain)) << what;
  EXPECT_TRUE(same_bytes(first.out, second.out)) << what;
  const std::vector<double> values = y.out.to_vector<double>(), got = first.out.to_vector<double>();
  const auto filters = static_cast<std::size_t>(s.filters), rows = values.size() / filters,
             per_chunk = static_cast<std::size_t>(chunks.rows);
  for (std::size_t begin = 0; begin < rows; begin += per_chunk)
    for (std::size_t k = 0; k < filters; ++k) {
      const std::size_t end = std::min(rows, begin + per_chunk);
      const auto value = [&](std::int64_t r) {
        return values[static_cast<std::size_t>(r) * filters + k];
      };
      const auto [mean, square] = kernels::moments_composed(static_cast<std::int64_t>(begin),
                                                            static_cast<std::int64_t>(end), value);
      double size = 0;
      for (std::size_t r = begin; r < end; ++r) size += std::abs(values[r * filters + k]);
      size /= static_cast<double>(end - begin);
      const double e = dtype == DType::kF64 ? 1e-12 : 1e-6;
      const std::size_t at = begin / per_chunk * 2 * filters + k;
      ASSERT_TRUE(close(got[at], mean, 0, e * size + 1e-30)) << what << " mean of " << k;
      ASSERT_TRUE(close(got[at + filters], square, 20 * e,
                        e * e * size * size * static_cast<double>(end - begin) * 100 + 1e-30))
          << what << " squares of " << k;
    }
}

TEST(Conv2dKernel, statistics_are_those_of_the_result) {
  for (const Device device : devices())
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      if (device == Device::kCuda && dtype == DType::kF64) continue;
      for (const Conv2dShape& s : kFusedShapes) check_statistics(s, dtype, device);
      check_statistics({1, 16, 20, 8, 16, 1, 1, 1, 0}, dtype, device);       // 2.5 chunks on CUDA
      check_statistics({1, 12, 12, 8, 16, 1, 1, 1, 0}, dtype, device, 100);  // mean >> deviation
    }
  check_statistics({300, 2, 2, 8, 8, 1, 1, 1, 0}, DType::kF32, Device::kCpu);  // 2 images a chunk
}

TEST(Conv2dKernel, statistics_do_not_depend_on_the_thread_count) {
  const int before = thread_count();
  const Conv2dShape s{37, 6, 6, 8, 24, 3, 3, 1, 1};
  for (const Device device : devices()) {
    const Tensor x = randn({37, 6, 6, 8}, 1).to(device),
                 weight = randn({24, 3, 3, 8}, 2).to(device);
    const std::int64_t chunks = kernels::conv2d_statistics_chunks(s, device).count;
    std::vector<Tensor> results;
    for (const int threads : {1, 3}) {
      set_thread_count(threads);
      const Tensor y = Tensor::empty({37, 6, 6, 24}, DType::kF32, device);
      results.push_back(Tensor::empty({chunks, 2, 24}, DType::kF32, device));
      kernels::conv2d(
          context_of(device),
          {y.raw(), x.raw(), weight.raw(), s, DType::kF32, DType::kF32, {}, results.back().raw()});
    }
    EXPECT_TRUE(same_bytes(results[0], results[1])) << name_of(device);
  }
  set_thread_count(before);
}

TEST(Conv2dKernel, cuda_refuses_f64) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  const Tensor t = Tensor::zeros({1, 1, 1, 1}, DType::kF64, Device::kCuda);
  EXPECT_THROW(
      kernels::conv2d(
          context_of(Device::kCuda),
          {t.raw(), t.raw(), t.raw(), {1, 1, 1, 1, 1, 1, 1, 1, 0}, DType::kF64, DType::kF64}),
      Error);
}

TEST(Conv2dKernel, empty_batch) {
  for (const Device device : devices()) {
    const Conv2dShape s{0, 4, 4, 3, 8, 3, 3, 1, 1};
    const Tensor dweight = Tensor::full({8, 3, 3, 3}, 5, DType::kF32, device);
    const Context& context = context_of(device);
    kernels::conv2d(context, {nullptr, nullptr, nullptr, s, DType::kF32, DType::kF32});
    kernels::conv2d_backward_data(context,
                                  {nullptr, nullptr, nullptr, s, DType::kF32, DType::kF32});
    kernels::conv2d_backward_weight(context,
                                    {dweight.raw(), nullptr, nullptr, s, DType::kF32, DType::kF32});
    for (const float v : dweight.to_vector<float>()) EXPECT_EQ(v, 0);
  }
}

TEST(Conv2dKernel, bad_arguments_throw) {
  const Context& context = context_of(Device::kCpu);
  float value[64] = {};
  auto run_shape = [&](const Conv2dShape& s, DType dtype = DType::kF32,
                       DType weight = DType::kF32) {
    kernels::conv2d(context, {value, value, value, s, dtype, weight});
  };
  EXPECT_THROW(run_shape({-1, 4, 4, 1, 1, 1, 1, 1, 0}), Error);
  EXPECT_THROW(run_shape({1, 0, 4, 1, 1, 1, 1, 1, 0}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 0, 1, 1, 1, 1, 0}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 0, 1, 1, 1, 0}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 0, 1, 1, 0}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 1, 1, 0, 0}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 1, 1, 1, -1}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 7, 7, 1, 1}), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 1, 1, 1, 0}, DType::kI32, DType::kI32), Error);
  EXPECT_THROW(run_shape({1, 4, 4, 1, 1, 1, 1, 1, 0}, DType::kF32, DType::kBF16), Error);
  EXPECT_THROW(kernels::conv2d(context, {value,
                                         value,
                                         value,
                                         {1, 4, 4, 1, 1, 1, 1, 1, 0},
                                         DType::kF32,
                                         DType::kF32,
                                         {nullptr, nullptr, true},
                                         value}),
               Error);
  EXPECT_THROW(
      kernels::conv2d(
          context, {nullptr, value, value, {1, 4, 4, 1, 1, 1, 1, 1, 0}, DType::kF32, DType::kF32}),
      Error);
}

}  // namespace
}  // namespace retort::test
