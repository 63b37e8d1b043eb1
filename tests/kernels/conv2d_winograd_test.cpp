// The Winograd passes against the definition in double, with every instruction set of this machine.
#include <gtest/gtest.h>

#include <hwy/targets.h>

#include "engine/tensor/tensor.h"
#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_providers.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::Conv2dShape;
using kernels::conv::Pass;

// What the passes should give, by the product form in double, and the sums of magnitudes that
// rounding errors are relative to.
struct Case {
  Case(const Conv2dShape& shape, DType dtype)
      : s(shape),
        dtype(dtype),
        x(randn({s.batch, s.height, s.width, s.channels}, 1, dtype)),
        dy(randn({s.batch, s.out_height(), s.out_width(), s.filters}, 2, dtype)),
        weight(randn({s.filters, 3, 3, s.channels}, 3)),
        y_want(dy.shape().numel()),
        dx_want(x.shape().numel()),
        dw_want(weight.shape().numel()),
        y_size(y_want),
        dx_size(dx_want),
        dw_size(dw_want) {
    sums(false, y_want, dx_want, dw_want);
    sums(true, y_size, dx_size, dw_size);
  }

  void sums(bool magnitudes, std::vector<double>& y, std::vector<double>& dx,
            std::vector<double>& dw) const {
    std::vector<double> a = x.to_vector<double>(), g = dy.to_vector<double>(),
                        w = weight.to_vector<double>();
    if (magnitudes)
      for (auto* values : {&a, &g, &w})
        for (double& v : *values) v = std::abs(v);
    const std::size_t bytes =
        std::max(kernels::conv::columns_workspace<double>(Pass::kForward, s),
                 kernels::conv::columns_workspace<double>(Pass::kBackwardWeight, s));
    std::vector<std::byte> scratch(bytes);
    kernels::conv::columns_images<double>(Pass::kForward, s, y.data(), a.data(), w.data(),
                                          scratch.data(), {});
    kernels::conv::columns_images<double>(Pass::kBackwardData, s, dx.data(), g.data(), w.data(),
                                          scratch.data(), {});
    kernels::conv::columns_weight<double>(s, dw.data(), a.data(), g.data(), scratch.data());
  }

  Conv2dShape s;
  DType dtype;
  Tensor x, dy, weight;
  std::vector<double> y_want, dx_want, dw_want, y_size, dx_size, dw_size;
};

struct Results {
  std::vector<float> y, dx, dweight;
  bool operator==(const Results&) const = default;
};

// Outputs start as NaN, so that an element left out is seen.
Results run(const Case& c) {
  using namespace kernels::conv;
  const auto space = [&](Pass pass) {
    return Tensor::full({static_cast<std::int64_t>(winograd_workspace(pass, c.s) / 4)}, NAN);
  };
  const auto images = [&](Pass pass, const Tensor& in, const Shape& shape) {
    const Tensor scratch = space(pass), out = Tensor::full(shape, NAN);
    // A bf16 result goes to `done`: keep it in f32 to see the sums before rounding.
    const ImagesDone<float> keep = [&](std::int64_t begin, std::int64_t end, float* sums) {
      const std::int64_t image = shape.numel() / c.s.batch;
      std::copy(sums, sums + (end - begin) * image, out.data<float>() + begin * image);
    };
    winograd_images(pass, c.s, c.dtype == DType::kF32 ? out.raw() : nullptr, in.raw(), c.dtype,
                    c.weight.data<float>(), static_cast<std::byte*>(scratch.raw()),
                    c.dtype == DType::kF32 ? ImagesDone<float>{} : keep);
    return out.to_vector<float>();
  };
  Results r;
  r.y = images(Pass::kForward, c.x, c.dy.shape());
  r.dx = images(Pass::kBackwardData, c.dy, c.x.shape());
  const Tensor scratch = space(Pass::kBackwardWeight),
               dweight = Tensor::full(c.weight.shape(), NAN);
  winograd_weight(c.s, dweight.data<float>(), c.x.raw(), c.dy.raw(), c.dtype,
                  static_cast<std::byte*>(scratch.raw()));
  r.dweight = dweight.to_vector<float>();
  return r;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& want,
                 const std::vector<double>& size, const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  // An output beside the padding shares its tile's errors, so the largest magnitude counts.
  const double largest = *std::max_element(size.begin(), size.end());
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_TRUE(close(static_cast<double>(got[i]), want[i], 0, 1e-6 * largest))
        << what << " at " << i << ": got " << got[i] << ", want " << want[i] << " (magnitude "
        << largest << ")";
}

std::string text_of(const Case& c) {
  return join(c.s.batch, "x", c.s.height, "x", c.s.width, " C", c.s.channels, " K", c.s.filters,
              " padding ", c.s.padding, " ", name_of(c.dtype));
}

// clang-format off
const Conv2dShape kShapes[] = {
    //  N   H   W    C    K  R  S  stride padding
    {   3, 12, 12,  16,  16, 3, 3, 1, 1},   // one panel: the narrow products
    {   2, 13, 11,  48,  32, 3, 3, 1, 1},   // tiles cut on both sides; an odd number of panels
    {   9,  7,  6,  32,  48, 3, 3, 1, 0},   // no padding forward, two rows of it backward
    {   5,  5,  9,  16,  32, 3, 3, 1, 2},   // the other way round
    {  17,  1,  1,  16,  16, 3, 3, 1, 1},   // a tile of one pixel
    {  37,  4,  4,  64,  64, 3, 3, 1, 1},   // a shorter last task and slice
    {  19,  4,  8, 128, 144, 3, 3, 1, 1},   // the sums of the weights are made in blocks
    { 300,  3,  4,  16,  16, 3, 3, 1, 1},   // two images in a chunk of statistics
};
// clang-format on

class WinogradTargets : public testing::Test {
 protected:
  ~WinogradTargets() override { hwy::SetSupportedTargetsForTest(0); }
  template <class F>
  static void on_each(F&& f) {
    hwy::SetSupportedTargetsForTest(0);
    const std::int64_t all = hwy::SupportedTargets() | HWY_SCALAR;  // the last runs anywhere
    int ran = 0;
    for (const std::int64_t target : {HWY_SCALAR, HWY_AVX2, HWY_AVX3}) {
      if (!(all & target)) continue;
      hwy::SetSupportedTargetsForTest(target);
      f(std::string(" with ") + hwy::TargetName(target));
      ++ran;
    }
    EXPECT_GE(ran, 1);
  }
};

TEST_F(WinogradTargets, passes_equal_the_definition) {
  for (const Conv2dShape& s : kShapes)
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ASSERT_TRUE(kernels::conv::winograd_fits(s));
      const Case c(s, dtype);
      on_each([&](const std::string& target) {
        const std::string what = text_of(c) + target;
        const Results first = run(c), second = run(c);
        expect_near(first.y, c.y_want, c.y_size, "fprop " + what);
        expect_near(first.dx, c.dx_want, c.dx_size, "dgrad " + what);
        expect_near(first.dweight, c.dw_want, c.dw_size, "wgrad " + what);
        EXPECT_TRUE(first == second) << what;
      });
    }
}

TEST(Winograd, results_do_not_depend_on_the_thread_count) {
  const int before = thread_count();
  for (const Conv2dShape& s : kShapes) {
    const Case c(s, DType::kF32);
    set_thread_count(1);
    const Results one = run(c);
    for (const int threads : {2, 3}) {
      set_thread_count(threads);
      EXPECT_TRUE(run(c) == one) << text_of(c) << " with " << threads << " threads";
    }
  }
  set_thread_count(before);
}

// A row of infinities reaches the outputs that read it and, with the tile's transform, no image
// beside its own.
TEST(Winograd, a_value_that_is_not_finite_stays_in_its_image) {
  const Conv2dShape s{3, 12, 12, 16, 16, 3, 3, 1, 1};
  Case c(s, DType::kF32);
  c.x.data<float>()[1 * 12 * 12 * 16 + 5] = INFINITY;
  const Results r = run(c);
  const std::size_t image = 12 * 12 * 16;
  for (std::size_t i = 0; i < image; ++i) {
    EXPECT_TRUE(std::isfinite(r.y[i]) && std::isfinite(r.y[2 * image + i]));
    if (HasFailure()) return;
  }
  EXPECT_FALSE(std::isfinite(r.y[image]));
}

TEST(Winograd, takes_only_what_it_can) {
  using kernels::conv::winograd_fits;
  const Conv2dShape good{4, 8, 8, 16, 16, 3, 3, 1, 1};
  EXPECT_TRUE(winograd_fits(good));
  const auto with = [&](auto&& change) {
    Conv2dShape s = good;
    change(s);
    return winograd_fits(s);
  };
  EXPECT_FALSE(with([](Conv2dShape& s) { s.stride = 2; }));
  EXPECT_FALSE(with([](Conv2dShape& s) { s.padding = 3; }));
  EXPECT_FALSE(with([](Conv2dShape& s) { s.channels = 24; }));
  EXPECT_FALSE(with([](Conv2dShape& s) { s.filters = 3; }));
  EXPECT_FALSE(with([](Conv2dShape& s) { s.filter_width = 5; }));
  EXPECT_FALSE(with([](Conv2dShape& s) { s.batch = 3; }));  // 12 tiles: the filters would cost more
}

}  // namespace
}  // namespace retort::test
