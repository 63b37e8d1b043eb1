#include "engine/tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/ops/axpy.h"
#include "engine/ops/random.h"
#include "engine/runtime/allocator.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using Floats = std::vector<float>;

constexpr DType kAllTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kF16,
                               DType::kI64, DType::kI32, DType::kU8};

TEST(ShapeOf, sizes_and_errors) {
  const Shape s{2, 3, 4};
  EXPECT_EQ(s.rank(), 3);
  EXPECT_EQ(s.numel(), 24);
  EXPECT_EQ(s[-1], 4);
  EXPECT_EQ(s.str(), "(2, 3, 4)");
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{0, 5}).numel(), 0);
  EXPECT_THROW(s[3], Error);
  EXPECT_THROW(s[-4], Error);
  EXPECT_THROW((Shape{-1}), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  EXPECT_THROW((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}).numel(), Error);
}

TEST(TensorOf, an_undefined_tensor_says_so) {
  const Tensor t;
  EXPECT_FALSE(t.defined());
  EXPECT_THROW(t.raw(), Error);
  EXPECT_THROW(t.view({0}), Error);  // numel() is 0, too
}

TEST(TensorOf, views_share_memory) {
  const Tensor t = Tensor::from<float>({0, 1, 2, 3, 4, 5}, {3, 2});
  EXPECT_EQ(t.view({2, 3}).raw(), t.raw());
  EXPECT_EQ(t.slice(1, 3).to_vector<float>(), (Floats{2, 3, 4, 5}));
  t.slice(0, 1).fill(9);
  EXPECT_EQ(t.to_vector<float>(), (Floats{9, 9, 2, 3, 4, 5}));
  EXPECT_EQ(t.slice(1, 1).numel(), 0);
  EXPECT_THROW(t.view({4}), Error);
  EXPECT_THROW(t.slice(2, 4), Error);
  EXPECT_THROW(t.data<double>(), Error);
}

TEST(TensorOf, pitched_rows) {
  for (const Device device : devices()) {
    const Tensor t = Tensor::empty_pitched({3, 5}, 8, DType::kF32, device);
    EXPECT_EQ(t.row_pitch(), 8);
    EXPECT_FALSE(t.is_contiguous());
    const Tensor x = randn({3, 5}, 1);
    t.copy_from(x.to(device));
    EXPECT_EQ(t.to_vector<float>(), x.to_vector<float>()) << name_of(device);
    EXPECT_EQ(t.contiguous().to_vector<float>(), x.to_vector<float>());
    EXPECT_EQ(t.slice(1, 2).to_vector<float>(), x.slice(1, 2).to_vector<float>());
    t.copy_from(x);  // from the host into pitched rows
    EXPECT_EQ(t.to(DType::kBF16).to_vector<float>(), x.to(DType::kBF16).to_vector<float>());
    t.fill(2);
    EXPECT_EQ(t.to_vector<float>(), Floats(15, 2.0f));
    EXPECT_THROW(t.view({15}), Error);
  }
}

TEST(TensorOf, every_type_to_every_type) {
  const std::vector<double> values{0, 1, 2, 100, 200, 3, 7};
  for (const Device device : devices())
    for (const DType from : kAllTypes)
      for (const DType to : kAllTypes)
        for (const std::int64_t n : {0, 1, 3, 7}) {
          const Tensor t = Tensor::from(values, {7}).to(from).slice(0, n).to(device);
          EXPECT_EQ(t.to(to).to_vector<double>(),
                    std::vector<double>(values.begin(), values.begin() + n))
              << name_of(from) << " to " << name_of(to) << " on " << name_of(device);
        }
}

TEST(TensorOf, large_integers_stay_exact) {
  const std::int64_t big = (std::int64_t{1} << 60) + 1;
  for (const Device device : devices()) {
    const Tensor t = Tensor::from<std::int64_t>({big, -big}, {2}, device);
    EXPECT_EQ(t.to_vector<std::int64_t>(), (std::vector<std::int64_t>{big, -big}));
    EXPECT_EQ(t.clone().to_vector<std::int64_t>()[1], -big);
    EXPECT_EQ(t.to(DType::kI32).to_vector<std::int32_t>()[0], 1);  // low bits
  }
}

TEST(TensorOf, fills) {
  for (const Device device : devices())
    for (const DType dtype : kAllTypes)
      for (const std::int64_t n : {0, 1, 15, 16, 17, 257}) {
        const Tensor t = Tensor::full({n + 1}, 7, dtype, device);
        t.slice(0, n).fill(3);
        std::vector<double> want(static_cast<std::size_t>(n + 1), 3.0);
        want.back() = 7;
        EXPECT_EQ(t.to_vector<double>(), want) << name_of(dtype) << " " << name_of(device);
        t.fill(0);
        EXPECT_EQ(t.to_vector<double>(), std::vector<double>(want.size(), 0.0));
      }
  EXPECT_TRUE(std::signbit(Tensor::full({1}, -0.0).item()));
}

TEST(TensorOf, copies_across_devices_and_types) {
  for (const Device device : devices()) {
    const Tensor x = randn({5, 3}, 4);
    const Tensor there = Tensor::empty({5, 3}, DType::kBF16, device);
    there.copy_from(x);
    EXPECT_EQ(there.to_vector<float>(), x.to(DType::kBF16).to_vector<float>());
    const Tensor back = Tensor::empty_pitched({5, 3}, 4);
    back.copy_from(there);
    EXPECT_EQ(back.to_vector<float>(), there.to_vector<float>());
    EXPECT_THROW(there.copy_from(Tensor::zeros({3, 5})), Error);
  }
}

TEST(TensorOf, wrap_checks_that_the_tensor_fits) {
  const Tensor t = Tensor::zeros({10});
  EXPECT_THROW(Tensor::wrap(t.storage(), 5, {6}, DType::kF32, 6), Error);
  EXPECT_THROW(Tensor::wrap(t.storage(), -1, {2}, DType::kF32, 2), Error);
  EXPECT_THROW(Tensor::wrap(t.storage(), 0, {2, 5}, DType::kF32, 4), Error);
  EXPECT_NO_THROW(Tensor::wrap(t.storage(), 0, {2, 5}, DType::kF32, 5));
}

// Whatever handle the content is written through, the copy holds it rounded.
TEST(TensorOf, sizes_that_no_integer_holds_are_errors) {
  const std::int64_t huge = std::int64_t{1} << 61;
  EXPECT_THROW(Tensor::empty({huge + 1}, DType::kF64), Error);  // would have 8 bytes
  EXPECT_THROW(Tensor::empty({huge * 2, 1}, DType::kF32), Error);
  EXPECT_THROW(Tensor::empty_pitched({2, huge * 3}, huge * 2, DType::kU8), Error);
  EXPECT_THROW(Tensor::empty_pitched({huge, 1}, 64, DType::kF32), Error);
  EXPECT_THROW(Tensor::empty_pitched({1, 1}, huge + 1, DType::kF64), Error);
  const auto storage = std::make_shared<Storage>(Device::kCpu, 64);
  EXPECT_THROW(Tensor::wrap(storage, 0, {huge + 1}, DType::kF64, huge + 1), Error);
  EXPECT_THROW(Tensor::wrap(storage, huge * 2, {huge * 2}, DType::kU8, huge * 2), Error);
  EXPECT_THROW(Tensor::wrap(storage, 0, {5, 1}, DType::kU8, huge * 2), Error);
  EXPECT_THROW(Tensor::wrap(nullptr, 0, {0}, DType::kU8, 0), Error);
}

TEST(TensorOf, a_bf16_copy_follows_every_write) {
  for (const Device device : devices()) {
    const Tensor t = randn({6, 5}, 1).to(device);
    EXPECT_FALSE(t.bf16_copy().defined());
    t.keep_bf16_copy();
    const void* const place = t.bf16_copy().raw();
    const auto expect_right = [&](const char* what) {
      EXPECT_TRUE(same_bytes(t.bf16_copy(), t.to(DType::kBF16))) << what << " " << name_of(device);
      EXPECT_EQ(t.bf16_copy().raw(), place) << what;
    };
    expect_right("kept");
    t.copy_from(randn({6, 5}, 2));
    expect_right("copied from the host");
    t.detach().slice(2, 4).copy_from(randn({2, 5}, 3).to(device));
    expect_right("a part, through a view");
    EXPECT_TRUE(same_bytes(t.slice(2, 4).bf16_copy(), t.slice(2, 4).to(DType::kBF16)));
    t.copy_from(randn({6, 5}, 4, DType::kF64).to(device));
    expect_right("of another dtype");
    t.slice(0, 1).fill(0);
    t.slice(1, 2).fill(3.3);
    expect_right("filled");
    fill_normal(t, {.seed = 6});
    expect_right("drawn");
    add_into(t, randn({6, 5}, 5).to(device), 0.7);
    expect_right("added into");
    t.keep_bf16_copy();
    expect_right("kept twice");
    EXPECT_FALSE(t.clone().bf16_copy().defined());
    EXPECT_THROW(t.slice(0, 2).keep_bf16_copy(), Error);
    EXPECT_THROW(Tensor::zeros({2}, DType::kF64, device).keep_bf16_copy(), Error);
  }
}

TEST(TensorOf, consumed_content_cannot_be_read) {
  const Tensor t = Tensor::zeros({2});
  t.storage()->consumed_by = "loss";
  try {
    t.raw();
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("loss"), std::string::npos);
  }
}

TEST(AllocatorOf, statistics_by_role) {
  for (const Device device : devices()) {
    const MemoryStatistics before = memory_statistics(device);
    {
      const MemoryRoleScope role(MemoryRole::kOptimizer);
      const Tensor t = Tensor::zeros({1000}, DType::kF32, device);
      const MemoryStatistics now = memory_statistics(device);
      EXPECT_EQ(now.current_bytes - before.current_bytes, 4000u);
      const auto i = static_cast<std::size_t>(MemoryRole::kOptimizer);
      EXPECT_EQ(now.current_by_role[i] - before.current_by_role[i], 4000u);
      EXPECT_GE(now.peak_bytes, now.current_bytes);
    }
    EXPECT_EQ(memory_statistics(device).current_bytes, before.current_bytes);
  }
}

TEST(AllocatorOf, the_steady_state_asks_the_system_for_nothing) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "nothing is cached in sanitizer builds";
#endif
  for (const Device device : devices()) {
    const auto step = [&] {
      std::vector<Tensor> kept;
      for (const std::int64_t n : {1, 100, 5000, 5001, 1 << 20})
        kept.push_back(Tensor::empty({n}, DType::kF32, device));
    };
    step();
    const auto before = memory_statistics(device).system_allocations;
    for (int i = 0; i < 5; ++i) step();
    EXPECT_EQ(memory_statistics(device).system_allocations, before);
    const auto reserved = memory_statistics(device).reserved_bytes;
    release_cached_memory(device);
    EXPECT_LT(memory_statistics(device).reserved_bytes, reserved);
  }
}

TEST(AllocatorOf, memory_is_aligned) {
  for (int i = 0; i < 20; ++i) {
    const Tensor t = Tensor::empty({i * 37 + 1}, DType::kU8);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.raw()) % 64, 0u);
  }
}

TEST(AllocatorOf, out_of_memory_is_an_error_with_the_roles) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "sanitizers stop the program at such a request";
#endif
  try {
    Tensor::empty({std::int64_t{1} << 46}, DType::kF64);
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMemory);
    EXPECT_NE(std::string(e.what()).find("activations"), std::string::npos);
  }
}

}  // namespace
}  // namespace retort::test
