#include "kernels/slice_sum/slice_sum.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using kernels::RunningAverageArgs;
using kernels::SliceSumArgs;

void sum_into(const Tensor& out, const std::vector<Tensor>& nodes) {
  SliceSumArgs args;
  for (const Tensor& node : nodes) args.push(node.data<float>());
  args.out = out.data<float>();
  args.n = out.numel();
  kernels::slice_sum(context_of(out.device()), args);
}

std::vector<Tensor> some_nodes(int count, std::int64_t n) {
  std::vector<Tensor> nodes;
  for (int k = 0; k < count; ++k)
    nodes.push_back(randn({n}, static_cast<std::uint64_t>(k) + 1, DType::kF32, 1 + 3.0 * k));
  return nodes;
}

TEST(SliceSum, hand_checked_numbers_are_folded_from_the_right) {
  for (const Device device : devices()) {
    const auto row = [&](float a, float b) { return Tensor::from<float>({a, b}, {2}, device); };
    const Tensor out = row(9, 9);
    sum_into(out, {row(1, 2)});
    EXPECT_EQ(out.to_vector<float>(), (std::vector<float>{1, 2})) << name_of(device);
    // From the left 2^24 would swallow each of the ones.
    sum_into(out, {row(16777216, 1), row(1, 1), row(1, 16777216)});
    EXPECT_EQ(out.to_vector<float>(), (std::vector<float>{16777218, 16777216})) << name_of(device);
  }
}

TEST(SliceSum, the_sum_may_take_the_place_of_any_node) {
  for (const Device device : devices())
    for (std::size_t place = 0; place < 4; ++place) {
      std::vector<Tensor> nodes;
      for (const Tensor& node : some_nodes(4, 1500)) nodes.push_back(node.to(device).clone());
      const Tensor want = Tensor::empty({1500}, DType::kF32, device);
      sum_into(want, nodes);
      sum_into(nodes[place], nodes);
      EXPECT_EQ(nodes[place].to_vector<float>(), want.to_vector<float>()) << name_of(device);
    }
}

TEST(SliceSum, every_device_adds_in_the_same_order) {
  for (const Device device : devices())
    for (const int count : {1, 2, 3, 5, kernels::kMaxSliceNodes})
      for (const std::int64_t n : {1, 2, 31, 32, 33, 255, 256, 257, 1023, 1025, 70001}) {
        if (count > 3 && n > 1025) continue;
        const std::vector<Tensor> nodes = some_nodes(count, n);
        std::vector<float> want = nodes.back().to_vector<float>();
        for (std::size_t k = nodes.size() - 1; k-- > 0;)
          for (std::size_t i = 0; i < want.size(); ++i)
            want[i] = nodes[k].data<float>()[i] + want[i];
        std::vector<Tensor> there;
        for (const Tensor& node : nodes) there.push_back(node.to(device));
        const Tensor out = Tensor::full({n + 2}, 7, DType::kF32, device);
        sum_into(out.slice(1, n + 1), there);
        const std::vector<float> got = out.to_vector<float>();
        EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin() + 1))
            << name_of(device) << " " << count << " nodes of " << n;
        EXPECT_TRUE(got.front() == 7 && got.back() == 7) << name_of(device) << n;
      }
}

TEST(SliceSum, what_is_no_number_goes_into_the_sum) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  for (const Device device : devices()) {
    const Tensor out = Tensor::zeros({2}, DType::kF32, device);
    sum_into(out, {Tensor::from<float>({nan, inf}, {2}, device),
                   Tensor::from<float>({1, 1}, {2}, device)});
    const std::vector<float> got = out.to_vector<float>();
    EXPECT_TRUE(std::isnan(got[0]) && got[1] == inf) << name_of(device);
  }
}

TEST(SliceSum, running_statistics_move_by_the_mean_of_the_slices) {
  for (const Device device : devices()) {
    const Tensor running = Tensor::from<float>({1, -2, 0}, {3}, device),
                 sum = Tensor::from<float>({8, 4, 2}, {3}, device);
    RunningAverageArgs args{running.data<float>(), sum.data<float>(), 2, 4, 0.25, nullptr};
    kernels::running_average(context_of(device), args);
    EXPECT_EQ(running.to_vector<float>(), (std::vector<float>{1.25F, -1.25F, 0}))
        << name_of(device);
    const Tensor skip = Tensor::from<std::int32_t>({1}, {1}, device);
    args.skip = skip.data<std::int32_t>();
    kernels::running_average(context_of(device), args);
    EXPECT_EQ(running.to_vector<float>(), (std::vector<float>{1.25F, -1.25F, 0}))
        << name_of(device);
    skip.fill(0);
    args.momentum = 1;
    kernels::running_average(context_of(device), args);
    EXPECT_EQ(running.to_vector<float>(), (std::vector<float>{2, 1, 0})) << name_of(device);
  }
}

TEST(SliceSum, running_statistics_of_the_devices_agree_at_edge_sizes) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  for (const std::int64_t n : {1, 31, 33, 256, 257, 4000}) {
    const Tensor sum = randn({n}, 2), here = randn({n}, 1), there = here.to(Device::kCuda);
    const Tensor sum_there = sum.to(Device::kCuda);
    kernels::running_average(context_of(Device::kCpu),
                             {here.data<float>(), sum.data<float>(), n, 3, 0.1, nullptr});
    kernels::running_average(context_of(Device::kCuda),
                             {there.data<float>(), sum_there.data<float>(), n, 3, 0.1, nullptr});
    EXPECT_EQ(there.to(Device::kCpu).to_vector<float>(), here.to_vector<float>()) << n;
  }
}

// Ranks update parts that begin anywhere, with the bits of one that has them all.
TEST(SliceSum, running_statistics_do_not_depend_on_where_a_part_begins) {
  constexpr std::int64_t kN = 67;
  const Tensor sum = randn({kN}, 2), start = randn({kN}, 1);
  for (const Device device : devices()) {
    const Tensor sums = sum.to(device), whole = start.to(device).clone();
    kernels::running_average(context_of(device),
                             {whole.data<float>(), sums.data<float>(), kN, 3, 0.1, nullptr});
    // Whole sectors on a device: its traffic is measured in these tests.
    const std::int64_t step = device == Device::kCpu ? 1 : 8;
    for (std::int64_t cut = step; cut < kN; cut += step) {
      const Tensor parts = start.to(device).clone();
      for (const auto& [begin, end] : {std::pair{std::int64_t{0}, cut}, {cut, kN}})
        kernels::running_average(context_of(device),
                                 {parts.data<float>() + begin, sums.data<float>() + begin,
                                  end - begin, 3, 0.1, nullptr});
      EXPECT_EQ(parts.to_vector<float>(), whole.to_vector<float>()) << name_of(device) << cut;
    }
  }
}

TEST(SliceSum, nothing_to_add_is_a_no_op_and_what_does_not_fit_throws) {
  const Context& cpu = context_of(Device::kCpu);
  float x[2] = {};
  SliceSumArgs args;
  EXPECT_THROW(kernels::slice_sum(cpu, args), Error);  // no node
  args.push(nullptr);
  kernels::slice_sum(cpu, args);
  args.n = 2;
  args.out = x;
  EXPECT_THROW(kernels::slice_sum(cpu, args), Error);
  args.nodes[0] = x;
  args.n = -1;
  EXPECT_THROW(kernels::slice_sum(cpu, args), Error);
  while (args.count < kernels::kMaxSliceNodes) args.push(x);
  EXPECT_THROW(args.push(x), Error);
  kernels::running_average(cpu, {nullptr, nullptr, 0, 1, 0.1, nullptr});
  EXPECT_THROW(kernels::running_average(cpu, {x, nullptr, 2, 1, 0.1, nullptr}), Error);
  EXPECT_THROW(kernels::running_average(cpu, {x, x, 2, 0, 0.1, nullptr}), Error);
}

}  // namespace
}  // namespace retort::test
