#include "kernels/sgd/sgd_composed.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

struct SgdState {  // an arena with a sentinel element behind each array
  Tensor parameter, gradient, buffer, copy, rate, step, clip, skip;
  std::int64_t n;
  SgdState(std::int64_t n_, Device device, DType dtype, DType gradient_dtype) : n(n_) {
    parameter = randn({n + 1}, 1, dtype).to(device);
    gradient = randn({n + 1}, 2, dtype).to(gradient_dtype).to(device);
    buffer = randn({n + 1}, 3, dtype).to(device);
    copy = Tensor::full({n + 1}, 7, DType::kBF16, device);
    rate = Tensor::scalar(0.1, DType::kF32, device);
    step = Tensor::scalar(1, DType::kI64, device);
    clip = Tensor::scalar(0.5, DType::kF32, device);
    skip = Tensor::scalar(0, DType::kI32, device);
  }
  kernels::SgdArgs args() const {
    kernels::SgdArgs a;
    a.parameter = parameter.raw();
    a.gradient = gradient.raw();
    a.momentum_buffer = buffer.raw();
    a.parameter_copy = copy.data<bf16>();
    a.n = n;
    a.learning_rate = rate.data<float>();
    a.step = step.data<std::int64_t>();
    a.clip = clip.data<float>();
    a.skip = skip.data<std::int32_t>();
    a.dtype = parameter.dtype();
    a.gradient_dtype = gradient.dtype();
    return a;
  }
};

struct SgdCase {
  double momentum, dampening, weight_decay;
  bool nesterov;
};
const std::vector<SgdCase> kSgdCases{{0, 0, 0, false},
                                     {0, 0, 0.1, false},
                                     {0.9, 0, 0, false},
                                     {0.9, 0.3, 0.1, false},
                                     {0.9, 0, 0.1, true}};

TEST(Sgd, hand_checked_numbers) {
  for (const Device device : devices()) {
    const Tensor p = Tensor::from<float>({1}, {1}, device),
                 g = Tensor::from<float>({2}, {1}, device),
                 b = Tensor::zeros({1}, DType::kF32, device),
                 rate = Tensor::scalar(0.5, DType::kF32, device),
                 step = Tensor::scalar(1, DType::kI64, device);
    kernels::SgdArgs a;
    a.parameter = p.raw();
    a.gradient = g.raw();
    a.momentum_buffer = b.raw();
    a.n = 1;
    a.learning_rate = rate.data<float>();
    a.step = step.data<std::int64_t>();
    a.momentum = 0.5;
    a.dampening = 0.25;
    kernels::sgd(context_of(device), a);  // b = 2 (undampened), p = 1 - 0.5 * 2 = 0
    EXPECT_EQ(p.item(), 0) << name_of(device);
    step.fill(2);
    kernels::sgd(context_of(device), a);  // b = 0.5 * 2 + 0.75 * 2 = 2.5, p = -1.25
    EXPECT_EQ(p.item(), -1.25) << name_of(device);
  }
}

TEST(Sgd, steps_follow_the_formula) {
  for (const Device device : devices())
    for (const SgdCase& c : kSgdCases)
      for (const auto& [dtype, gradient_dtype] : {std::pair{DType::kF32, DType::kF32},
                                                  {DType::kF32, DType::kBF16},
                                                  {DType::kF64, DType::kF64}})
        for (const std::int64_t n : {1, 31, 257, 9001}) {
          const SgdState s(n, device, dtype, gradient_dtype);
          std::vector<double> p = s.parameter.to_vector<double>(),
                              g = s.gradient.to_vector<double>(), b = s.buffer.to_vector<double>();
          kernels::SgdArgs a = s.args();
          a.momentum = c.momentum;
          a.dampening = c.dampening;
          a.weight_decay = c.weight_decay;
          a.nesterov = c.nesterov;
          const double rate = static_cast<double>(0.1f);
          for (int t = 1; t <= 3; ++t) {
            s.step.fill(t);
            kernels::sgd(context_of(device), a);
            for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
              const kernels::SgdElement next =
                  kernels::sgd_composed({p[i], b[i]}, g[i], a, rate, t, 0.5);
              p[i] = next.p, b[i] = next.b;
            }
          }
          EXPECT_TRUE(all_close(s.parameter, Tensor::from(p, {n + 1})))
              << name_of(device) << " n = " << n << " momentum " << c.momentum;
          EXPECT_TRUE(all_close(s.buffer, Tensor::from(b, {n + 1})));
          EXPECT_TRUE(same_bytes(s.copy.slice(0, n), s.parameter.to(DType::kBF16).slice(0, n)));
          EXPECT_EQ(s.copy.slice(n, n + 1).item(), 7);
        }
}

TEST(Sgd, a_skipped_step_writes_nothing) {
  for (const Device device : devices()) {
    const SgdState s(100, device, DType::kF32, DType::kF32);
    const Tensor before = s.parameter.clone(), buffer = s.buffer.clone();
    s.skip.fill(1);
    kernels::SgdArgs a = s.args();
    a.momentum = 0.9;
    kernels::sgd(context_of(device), a);
    EXPECT_TRUE(same_bytes(s.parameter, before));
    EXPECT_TRUE(same_bytes(s.buffer, buffer));
  }
}

// Both parameter groups in one call and, on CUDA, one launch: the bytes of a call for each.
TEST(Sgd, elements_from_decayed_on_are_not_decayed) {
  for (const Device device : devices())
    for (const std::int64_t decayed : {0, 1, 16, 333, 1000}) {
      const SgdState one(1000, device, DType::kF32, DType::kF32),
          two(1000, device, DType::kF32, DType::kF32);
      kernels::SgdArgs all = one.args(), first = two.args(), second = two.args();
      all.momentum = first.momentum = second.momentum = 0.9;
      all.weight_decay = first.weight_decay = 0.1;
      second.weight_decay = 0;
      all.decayed = decayed;
      first.n = decayed;
      second.n = 1000 - decayed;
      second.parameter = two.parameter.data<float>() + decayed;
      second.gradient = two.gradient.data<float>() + decayed;
      second.parameter_copy += decayed;
      second.momentum_buffer = two.buffer.data<float>() + decayed;
      const std::uint64_t before = cuda_runtime.launches ? cuda_runtime.launches() : 0;
      kernels::sgd(context_of(device), all);
      EXPECT_TRUE(device == Device::kCpu || cuda_runtime.launches() - before == 1);
      kernels::sgd(context_of(device), first);
      kernels::sgd(context_of(device), second);
      EXPECT_TRUE(same_bytes(two.parameter, one.parameter)) << name_of(device) << " " << decayed;
      EXPECT_TRUE(same_bytes(two.buffer, one.buffer));
      EXPECT_TRUE(same_bytes(two.copy, one.copy));
    }
  const SgdState s(4, Device::kCpu, DType::kF32, DType::kF32);
  kernels::SgdArgs a = s.args();
  a.decayed = 5;
  EXPECT_THROW(kernels::sgd(context_of(Device::kCpu), a), Error);
}

// One step on n elements from element `from` of arrays of their own, in pieces of `piece`.
SgdState stepped(Device device, DType dtype, DType gradient_dtype, const SgdCase& c,
                 std::int64_t from, std::int64_t n, std::int64_t piece) {
  const SgdState s(from + n, device, dtype, gradient_dtype);
  s.parameter.slice(from, from + n).copy_from(randn({n}, 1, dtype).to(device));
  s.gradient.slice(from, from + n).copy_from(randn({n}, 2, dtype).to(gradient_dtype).to(device));
  s.buffer.slice(from, from + n).copy_from(randn({n}, 3, dtype).to(device));
  s.step.fill(2);
  for (std::int64_t at = from; at < from + n; at += piece) {
    kernels::SgdArgs a = s.args();
    a.parameter = s.parameter.slice(at, at + piece).raw();
    a.gradient = s.gradient.slice(at, at + piece).raw();
    a.momentum_buffer = s.buffer.slice(at, at + piece).raw();
    a.parameter_copy += at;
    a.n = std::min(piece, from + n - at);
    a.momentum = c.momentum, a.dampening = c.dampening;
    a.weight_decay = c.weight_decay, a.nesterov = c.nesterov;
    kernels::sgd(context_of(device), a);
  }
  return s;
}

TEST(Sgd, bits_do_not_depend_on_place_alignment_or_device) {
  constexpr std::int64_t n = 21;  // packs and a tail, whatever the alignment
  for (const auto& [dtype, gradient_dtype] : {std::pair{DType::kF32, DType::kF32},
                                              {DType::kF32, DType::kBF16},
                                              {DType::kF64, DType::kF64}})
    for (const SgdCase& c : kSgdCases) {
      const SgdState want = stepped(Device::kCpu, dtype, gradient_dtype, c, 0, n, 1);
      for (const Device device : devices())
        for (std::int64_t from = 0; from < 8; ++from) {
          const SgdState got = stepped(device, dtype, gradient_dtype, c, from, n, n);
          const auto same = [&](const Tensor& a, const Tensor& b) {
            return same_bytes(a.slice(from, from + n), b.slice(0, n));
          };
          EXPECT_TRUE(same(got.parameter, want.parameter) && same(got.copy, want.copy) &&
                      (c.momentum == 0 || same(got.buffer, want.buffer)))
              << name_of(device) << " " << name_of(dtype) << " from " << from << ", momentum "
              << c.momentum << ", nesterov " << c.nesterov;
        }
    }
}

TEST(Sgd, errors) {
  const SgdState s(4, Device::kCpu, DType::kF32, DType::kF32);
  kernels::SgdArgs a = s.args();
  a.momentum = 0.9;
  a.step = nullptr;
  EXPECT_THROW(kernels::sgd(context_of(Device::kCpu), a), Error);
  a = s.args();
  a.nesterov = true;
  EXPECT_THROW(kernels::sgd(context_of(Device::kCpu), a), Error);
  a = s.args();
  a.gradient_dtype = DType::kF64;
  EXPECT_THROW(kernels::sgd(context_of(Device::kCpu), a), Error);
}

}  // namespace
}  // namespace retort::test
