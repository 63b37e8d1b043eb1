#include "distill/own_rows.h"

#include <cstdint>

namespace retort::distill {
namespace {

// What every allocation is aligned to (engine/runtime/allocator.h).
std::uintptr_t alignment(Device device) { return device == Device::kCpu ? 64 : 256; }

bool begins_like_fresh_memory(const Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.raw()) % alignment(t.device()) == 0;
}

}  // namespace

Tensor own_rows(const Tensor& t) {
  return !t.defined() || t.numel() == 0 || begins_like_fresh_memory(t) ? t : t.clone();
}

nn::Inputs own_rows(nn::Inputs inputs) {
  for (Tensor* t :
       {&inputs.values, &inputs.starts, &inputs.segments, &inputs.rows, &inputs.drawn_by})
    *t = own_rows(*t);
  return inputs;
}

nn::Batch own_rows(nn::Batch batch) {
  std::vector<nn::Inputs> own;
  for (std::size_t r = 0; r < batch.inputs.size(); ++r) {
    const bool shared = r > 0 && batch.inputs[r].defined() && batch.inputs[0].defined() &&
                        batch.inputs[r].values.raw() == batch.inputs[0].values.raw();
    own.push_back(shared ? own[0] : own_rows(batch.inputs[r]));
    own.back().activations = batch.inputs[r].activations;
  }
  batch.inputs = std::move(own);
  batch.targets = own_rows(batch.targets);
  batch.sample_of_row = own_rows(batch.sample_of_row);
  return batch;
}

}  // namespace retort::distill
