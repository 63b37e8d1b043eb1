#include "engine/runtime/allocator.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/ops/elementwise.h"
#include "engine/runtime/device.h"
#include "kernels/common/thread_space.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

// Steps of two threads in turn.
class Turns {
 public:
  void wait_for(int turn) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return turn_ == turn; });
  }
  void next() {
    const std::lock_guard lock(mutex_);
    ++turn_;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int turn_ = 0;
};

TEST(Allocator, working_memory_of_cpu_kernels_is_workspace) {
  const auto workspace = [] {
    return memory_statistics(Device::kCpu)
        .current_by_role[static_cast<std::size_t>(MemoryRole::kWorkspace)];
  };
  const std::size_t before = workspace();
  constexpr std::size_t kFloats = 100'000;
  std::thread([&] {
    float* const small = kernels::thread_space(10);
    EXPECT_EQ(small[9], 0.0f);
    EXPECT_EQ(workspace(), before + 10 * sizeof(float));
    float* const space = kernels::thread_space(kFloats);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(space) % 64, 0u);
    EXPECT_EQ(space[kFloats - 1], 0.0f);
    EXPECT_EQ(kernels::thread_space(20), space);
    EXPECT_EQ(workspace(), before + kFloats * sizeof(float));
  }).join();
  EXPECT_EQ(workspace(), before);
}

// What one thread freed may still be in use on its stream: no other thread gets it, until the
// thread has ended.
TEST(Allocator, a_thread_on_cuda_does_not_get_what_another_one_freed) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "nothing is cached in sanitizer builds";
#endif
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  for (const std::size_t bytes : {std::size_t{5000}, std::size_t{3} << 20}) {
    Turns turns;
    void *freed = nullptr, *again = nullptr;
    std::thread worker([&] {
      void* const kept = allocate(Device::kCuda, 64);
      freed = allocate(Device::kCuda, bytes);
      release(Device::kCuda, freed);
      turns.next();
      turns.wait_for(2);
      again = allocate(Device::kCuda, bytes);
      release(Device::kCuda, again);
      release(Device::kCuda, kept);
    });
    turns.wait_for(1);
    void* const other = allocate(Device::kCuda, bytes);
    EXPECT_NE(other, freed);
    turns.next();
    worker.join();
    EXPECT_EQ(again, freed) << "its own it does get";
    release(Device::kCuda, other);
  }
}

TEST(Allocator, threads_that_train_side_by_side_on_cuda_do_not_disturb_each_other) {
  if (!cuda_available()) GTEST_SKIP() << cuda_unavailable_reason();
  const auto work = [](std::uint64_t seed) {
    Tensor sum = Tensor::zeros({257}, DType::kF32, Device::kCuda);
    for (std::uint64_t i = 0; i < 20; ++i) {
      const Tensor x = randn({257}, seed + i).to(Device::kCuda);
      sum = add(sum, multiply(x, x));
    }
    return sum.to_vector<float>();
  };
  const std::vector<float> want[2] = {work(1), work(1000)};
  std::vector<float> got[2];
  Tensor handed_over;  // freed by the main thread after its maker has ended
  std::thread first([&] {
    got[0] = work(1);
    handed_over = Tensor::full({1000}, 3, DType::kF32, Device::kCuda);
  });
  std::thread second([&] { got[1] = work(1000); });
  first.join();
  second.join();
  EXPECT_EQ(got[0], want[0]);
  EXPECT_EQ(got[1], want[1]);
  EXPECT_EQ(handed_over.to_vector<float>(), std::vector<float>(1000, 3));
  handed_over = Tensor();
}

}  // namespace
}  // namespace retort::test
