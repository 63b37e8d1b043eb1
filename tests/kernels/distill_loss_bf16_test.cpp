// Every divergence on bf16 logits, in every kernel that a row may get.
#include "tests/kernels/distill_loss_cases.h"

namespace retort::test {
namespace {

TEST(DistillLossBf16, every_divergence_in_every_kernel) {
  // four lanes, a warp, a block, a cluster a row
  for (const std::int64_t classes : {10, 100, 1000, 1100})
    for (int d = 0; d < kernels::kDivergences; ++d) {
      Case c = make_case(5, classes, 11);
      c.divergence = static_cast<Divergence>(d);
      const Outcome want = run(c, Device::kCpu, DType::kF64);
      for (const Device device : devices())
        expect_close(run(c, device, DType::kBF16), want, c, 0.004,
                     join(name_of(c.divergence), ", V = ", classes, " on ", name_of(device)));
    }
}

}  // namespace
}  // namespace retort::test
