// Batch norms folded into the convolutions in front of them: Model::freeze().
#include <gtest/gtest.h>

#include "engine/autograd/autograd.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "nn/models/registry.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::randn;
using test::same_bytes;

// A model whose running statistics are not the initial ones.
std::shared_ptr<Model> trained_a_little(const std::string& arch) {
  const auto model = make_model({.arch = arch, .classes = 7, .seed = 5});
  for (const std::uint64_t seed : {1, 2, 3}) model->forward(randn({4, 32, 32, 3}, seed));
  model->visit_parameters([](const std::string& path, Tensor& p) {  // scales and shifts that differ
    if (p.rank() == 1)
      p.copy_from(randn(p.shape(), path_hash(path.c_str()), DType::kF32, 0.2, 0.7));
  });
  model->eval();
  model->requires_grad(false);
  return model;
}

TEST(Folding, folded_batch_norms_change_rounding_only) {
  for (const char* arch : {"resnet8", "resnet18_cifar", "resnet50", "plain4"})
    for (const Device device : test::devices()) {
      if (device == Device::kCuda && std::string(arch) != "resnet8") continue;  // time
      const auto model = trained_a_little(arch);
      model->to(device);
      const NoGrad no_grad;
      const Tensor x = randn({2, 32, 32, 3}, 9).to(device);
      const Outputs plain = model->forward(x, {.hidden = true});
      model->freeze(Model::Frozen::kBeside);
      const Outputs folded = model->forward(x, {.hidden = true}),
                    again = model->forward(x, {.hidden = true});
      EXPECT_TRUE(all_close(folded.logits, plain.logits, {1e-3, 1e-3})) << arch;
      EXPECT_FALSE(same_bytes(folded.logits, plain.logits)) << arch << ": nothing was folded";
      EXPECT_TRUE(same_bytes(folded.logits, again.logits)) << arch;
      for (std::size_t i = 0; i < plain.pre.size(); ++i) {
        EXPECT_TRUE(all_close(folded.pre[i], plain.pre[i], {1e-3, 1e-3})) << arch << " " << i;
        EXPECT_TRUE(all_close(folded.post[i], plain.post[i], {1e-3, 1e-3})) << arch << " " << i;
      }
      // bf16 uses a copy of its own.
      const Tensor narrow = model->forward(x.to(DType::kBF16)).logits;
      EXPECT_TRUE(all_close(narrow, plain.logits, {0.1, 0.1})) << arch;
      model->freeze(Model::Frozen::kOff);
      EXPECT_TRUE(same_bytes(model->forward(x).logits, plain.logits)) << arch;
    }
}

TEST(Folding, batch_norms_folded_for_good_leave_one_copy_of_the_weights) {
  for (const char* arch : {"resnet8", "resnet50", "plain4"})
    for (const Device device : test::devices()) {
      if (device == Device::kCuda && std::string(arch) != "resnet8") continue;  // time
      const auto model = trained_a_little(arch);
      model->to(device);
      const NoGrad no_grad;
      const Tensor x = randn({2, 32, 32, 3}, 9).to(device);
      const Tensor plain = model->forward(x).logits;
      model->freeze(Model::Frozen::kBeside);
      const auto held = [&] { return memory_statistics(device).current_bytes; };
      const std::size_t before = held();
      const Tensor folded = model->forward(x).logits;
      const std::size_t copies = held() - before;
      model->freeze(Model::Frozen::kForGood);
      const std::size_t alone = held();
      const Tensor for_good = model->forward(x).logits;
      EXPECT_TRUE(same_bytes(for_good, folded)) << arch;
      EXPECT_LT(held() - alone, copies / 10) << arch;  // shifts, and the logits
      model->freeze(Model::Frozen::kOff);              // layer by layer, it is the same function
      EXPECT_TRUE(all_close(model->forward(x).logits, plain, {1e-3, 1e-3})) << arch;
      model->freeze(Model::Frozen::kForGood);  // twice is once
      EXPECT_TRUE(all_close(model->forward(x).logits, for_good, {1e-5, 1e-5})) << arch;
      EXPECT_TRUE(all_close(model->forward(x.to(DType::kBF16)).logits, plain, {0.1, 0.1})) << arch;
    }
}

TEST(Folding, a_training_pass_drops_folded_weights) {
  const auto model = trained_a_little("resnet8");
  const Tensor x = randn({2, 32, 32, 3}, 9);
  const NoGrad no_grad;
  model->freeze(Model::Frozen::kBeside);
  const Tensor before = model->forward(x).logits;
  model->train();
  model->forward(randn({4, 32, 32, 3}, 11));  // moves the running statistics
  model->eval();
  const Tensor after = model->forward(x).logits;
  model->freeze(Model::Frozen::kOff);
  const Tensor plain = model->forward(x).logits;
  EXPECT_TRUE(all_close(after, plain, {1e-3, 1e-3}));
  EXPECT_FALSE(all_close(before, plain, {1e-3, 1e-3}));
}

TEST(Folding, folding_does_not_touch_passes_with_gradients) {
  const auto model = trained_a_little("resnet8");
  Tensor x = randn({2, 32, 32, 3}, 9);
  x.set_requires_grad(true);
  const Tensor plain = model->forward(x).logits.detach();
  model->freeze(Model::Frozen::kBeside);
  const Tensor y = model->forward(x).logits;
  EXPECT_TRUE(same_bytes(y.detach(), plain));
  sum(y).backward();
  EXPECT_TRUE(x.grad().defined());
}

}  // namespace
}  // namespace retort::nn
