// Copies of large arrays: what memory gives a kernel that reads as much as it writes. bench/peers
// times them in turn with the cases that memory bounds.
#include <cstring>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/ceilings.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"

namespace retort::bench {
namespace {

using Copy = void (*)(void*, const void*, std::size_t);

Work make_copy(std::int64_t n, Copy copy, const Case& c) {
  const Tensor from = normal({n}, c.seed, DType::kF32, c.device),
               to = Tensor::empty({n}, DType::kF32, c.device);
  Work w;
  w.run = [=] {
    if (to.device() == Device::kCuda) return to.copy_from(from);
    parallel_for(n, std::int64_t{1} << 19, [&](std::int64_t begin, std::int64_t end) {
      copy(to.data<float>() + begin, from.data<float>() + begin,
           static_cast<std::size_t>(end - begin) * sizeof(float));
    });
  };
  w.outputs = [=] { return std::vector<Tensor>{to}; };
  w.error = [=] {
    const Host a(from), b(to);
    Error64 e;
    for (const std::int64_t at : sampled(n, 10000))
      e.add(b[static_cast<std::size_t>(at)], a[static_cast<std::size_t>(at)]);
    return e.value();
  };
  return w;
}

void plain(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace

void add_copy_cases(Plan& plan) {
  const std::int64_t n = plan.pick<std::int64_t>(1 << 12, 1 << 25, 1 << 28);
  const auto add = [&](const std::string& kind, Copy copy) {
    plan.add("copy/" + kind + "/" + shape_name(n), DType::kF32, 8.0 * static_cast<double>(n), 0,
             [=](const Case& c) { return make_copy(n, copy, c); });
  };
  add("plain", plain);
  if (plan.device == Device::kCpu) add("streaming", detail::streaming_copy);
}

}  // namespace retort::bench
