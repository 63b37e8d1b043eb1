#include "kernels/adamw/adamw_composed.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct AdamWState {  // an arena with a sentinel element behind each array
  Tensor parameter, gradient, m, v, copy, rate, step, clip, skip;
  std::int64_t n;
  AdamWState(std::int64_t n_, Device device, DType dtype, DType gradient_dtype) : n(n_) {
    parameter = randn({n + 1}, 1, dtype).to(device);
    gradient = randn({n + 1}, 2, dtype).to(gradient_dtype).to(device);
    m = Tensor::zeros({n + 1}, dtype, device);
    v = Tensor::zeros({n + 1}, dtype, device);
    copy = Tensor::full({n + 1}, 7, DType::kBF16, device);
    rate = Tensor::scalar(0.01, DType::kF32, device);
    step = Tensor::scalar(1, DType::kI64, device);
    clip = Tensor::scalar(0.5, DType::kF32, device);
    skip = Tensor::scalar(0, DType::kI32, device);
  }
  kernels::AdamWArgs args() const {
    kernels::AdamWArgs a;
    a.parameter = parameter.raw();
    a.gradient = gradient.raw();
    a.first_moment = m.raw();
    a.second_moment = v.raw();
    a.parameter_copy = copy.data<bf16>();
    a.n = n;
    a.learning_rate = rate.data<float>();
    a.step = step.data<std::int64_t>();
    a.clip = clip.data<float>();
    a.skip = skip.data<std::int32_t>();
    a.weight_decay = 0.1;
    a.dtype = parameter.dtype();
    a.gradient_dtype = gradient.dtype();
    return a;
  }
};

TEST(AdamW, the_first_step_is_the_learning_rate_times_the_sign) {
  for (const Device device : devices()) {
    const AdamWState s(2, device, DType::kF64, DType::kF64);
    s.parameter.copy_from(Tensor::from<double>({1, 1, 0}, {3}));
    s.gradient.copy_from(Tensor::from<double>({3, -5, 0}, {3}));
    kernels::AdamWArgs a = s.args();
    a.weight_decay = 0;
    a.epsilon = 0;
    kernels::adamw(context_of(device), a);
    const double rate = static_cast<double>(0.01f);
    EXPECT_TRUE(all_close(s.parameter, Tensor::from<double>({1 - rate, 1 + rate, 0}, {3})));
  }
}

TEST(AdamW, steps_follow_the_formula) {
  for (const Device device : devices())
    for (const auto& [dtype, gradient_dtype] : {std::pair{DType::kF32, DType::kF32},
                                                {DType::kF32, DType::kBF16},
                                                {DType::kF64, DType::kF64}})
      for (const std::int64_t n : {1, 31, 32, 33, 257, 9001}) {
        const AdamWState s(n, device, dtype, gradient_dtype);
        std::vector<double> p = s.parameter.to_vector<double>(), g = s.gradient.to_vector<double>();
        std::vector<double> m(p.size(), 0.0), v(p.size(), 0.0);
        const kernels::AdamWArgs a = s.args();
        const double rate = static_cast<double>(0.01f);
        for (int t = 1; t <= 4; ++t) {
          s.step.fill(t);
          kernels::adamw(context_of(device), a);
          for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
            const kernels::AdamWElement next =
                kernels::adamw_composed({p[i], m[i], v[i]}, g[i], a, rate, t, 0.5);
            p[i] = next.p, m[i] = next.m, v[i] = next.v;
          }
        }
        EXPECT_TRUE(all_close(s.parameter, Tensor::from(p, {n + 1})))
            << name_of(device) << " n = " << n;
        EXPECT_TRUE(all_close(s.m, Tensor::from(m, {n + 1})));
        EXPECT_TRUE(all_close(s.v, Tensor::from(v, {n + 1})));
        EXPECT_TRUE(same_bytes(s.copy.slice(0, n), s.parameter.to(DType::kBF16).slice(0, n)));
        EXPECT_EQ(s.copy.slice(n, n + 1).item(), 7);
      }
}

// An element's update must not depend on where it lies in the arena: checkpoints hold state by
// parameter name and arenas may be cut differently.
TEST(AdamW, results_do_not_depend_on_the_place_in_the_arena) {
  for (const auto& [dtype, gradient_dtype] : {std::pair{DType::kF32, DType::kF32},
                                              {DType::kF32, DType::kBF16},
                                              {DType::kF64, DType::kF64}})
    for (const Device device : devices()) {
      const AdamWState whole(5000, device, dtype, gradient_dtype),
          parts(5000, device, dtype, gradient_dtype);
      kernels::adamw(context_of(device), whole.args());
      for (std::int64_t begin = 0; begin < 5000;) {
        const std::int64_t n = std::min<std::int64_t>(5000 - begin, 1 + begin % 37 * 13),
                           end = begin + n;
        kernels::AdamWArgs a = parts.args();
        a.parameter = parts.parameter.slice(begin, end).raw();
        a.gradient = parts.gradient.slice(begin, end).raw();
        a.first_moment = parts.m.slice(begin, end).raw();
        a.second_moment = parts.v.slice(begin, end).raw();
        a.parameter_copy += begin;
        a.n = n;
        kernels::adamw(context_of(device), a);
        begin = end;
      }
      EXPECT_TRUE(same_bytes(whole.parameter, parts.parameter))
          << name_of(device) << " " << name_of(dtype) << " " << name_of(gradient_dtype);
      EXPECT_TRUE(same_bytes(whole.m, parts.m));
      EXPECT_TRUE(same_bytes(whole.v, parts.v));
      EXPECT_TRUE(same_bytes(whole.copy, parts.copy));
    }
}

TEST(AdamW, a_skipped_step_writes_nothing) {
  for (const Device device : devices()) {
    const AdamWState s(100, device, DType::kF32, DType::kF32);
    const Tensor before = s.parameter.clone();
    s.skip.fill(1);
    kernels::adamw(context_of(device), s.args());
    EXPECT_TRUE(same_bytes(s.parameter, before));
    EXPECT_TRUE(same_bytes(s.m, Tensor::zeros({101})));
  }
}

// Both parameter groups in one call and, on CUDA, one launch: the bytes of a call for each.
TEST(AdamW, elements_from_decayed_on_are_not_decayed) {
  for (const Device device : devices())
    for (const std::int64_t decayed : {0, 1, 16, 333, 1000}) {
      const AdamWState one(1000, device, DType::kF32, DType::kF32),
          two(1000, device, DType::kF32, DType::kF32);
      kernels::AdamWArgs all = one.args(), first = two.args(), second = two.args();
      all.weight_decay = first.weight_decay = 0.1;
      second.weight_decay = 0;
      all.decayed = decayed;
      first.n = decayed;
      second.n = 1000 - decayed;
      second.parameter = two.parameter.data<float>() + decayed;
      second.gradient = two.gradient.data<float>() + decayed;
      second.parameter_copy += decayed;
      second.first_moment = two.m.data<float>() + decayed;
      second.second_moment = two.v.data<float>() + decayed;
      const std::uint64_t before = cuda_runtime.launches ? cuda_runtime.launches() : 0;
      kernels::adamw(context_of(device), all);
      EXPECT_TRUE(device == Device::kCpu || cuda_runtime.launches() - before == 1);
      kernels::adamw(context_of(device), first);
      kernels::adamw(context_of(device), second);
      EXPECT_TRUE(same_bytes(two.parameter, one.parameter)) << name_of(device) << " " << decayed;
      EXPECT_TRUE(same_bytes(two.v, one.v));
      EXPECT_TRUE(same_bytes(two.copy, one.copy));
    }
  const AdamWState s(4, Device::kCpu, DType::kF32, DType::kF32);
  kernels::AdamWArgs a = s.args();
  a.decayed = 5;
  EXPECT_THROW(kernels::adamw(context_of(Device::kCpu), a), Error);
}

TEST(AdamW, errors) {
  const AdamWState s(4, Device::kCpu, DType::kF32, DType::kF32);
  kernels::AdamWArgs a = s.args();
  a.step = nullptr;
  EXPECT_THROW(kernels::adamw(context_of(Device::kCpu), a), Error);
  a = s.args();
  a.beta1 = 1;
  EXPECT_THROW(kernels::adamw(context_of(Device::kCpu), a), Error);
}

}  // namespace
}  // namespace retort::test
