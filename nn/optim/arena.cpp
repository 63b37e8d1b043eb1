#include "nn/optim/arena.h"

#include <unordered_set>

#include "engine/runtime/allocator.h"

namespace retort::nn {

Tensor ParameterArena::view(const Tensor& flat, const Slice& slice) {
  const Shape& shape = slice.parameter.shape();
  return Tensor::wrap(flat.storage(), flat.storage_offset() + slice.offset, shape, flat.dtype(),
                      shape.rank() == 0 ? 1 : shape[-1]);
}

ParameterArena::ParameterArena(
    const TrainedModules& modules, int groups,
    const std::function<int(const std::string&, const Tensor&)>& group_of) {
  struct Found {
    std::string path;
    Origin origin;
  };
  std::vector<std::vector<Found>> found(static_cast<std::size_t>(groups));
  std::unordered_set<std::string> paths;
  const Tensor* first = nullptr;
  for (const auto& [prefix, module] : modules)
    module->visit_parameters([&, &prefix = prefix](const std::string& name, Tensor& tensor) {
      if (!tensor.requires_grad()) return;
      const std::string path = prefix + name;
      RETORT_CHECK(paths.insert(path).second, "[optimizer] the parameter '", path,
                   "' is there twice");
      if (first == nullptr) first = &tensor;
      RETORT_CHECK(tensor.dtype() == first->dtype() && tensor.device() == first->device(),
                   "[optimizer] expected all parameters as ", name_of(first->dtype()), " on ",
                   name_of(first->device()), ", got '", path, "' as ", name_of(tensor.dtype()),
                   " on ", name_of(tensor.device()));
      found[static_cast<std::size_t>(group_of(path, tensor))].push_back(
          {path, {&tensor, module->life()}});
    });
  RETORT_CHECK(first != nullptr, "[optimizer] expected at least one parameter with a gradient");

  constexpr std::int64_t kAlign = 16;  // 64 bytes of f32: whole vectors and cache lines
  std::int64_t n = 0;
  for (const auto& group : found) {
    const std::int64_t begin = n;
    for (const Found& f : group) {
      slices_.push_back({f.path, *f.origin.handle, n});
      origins_.push_back(f.origin);
      n += (f.origin.handle->numel() + kAlign - 1) / kAlign * kAlign;
    }
    groups_.push_back({begin, n});
  }
  const DType dtype = first->dtype();
  const Device device = first->device();
  {
    const MemoryRoleScope role(MemoryRole::kParameters);
    parameters_ = Tensor::zeros({n}, dtype, device);
  }
  {
    const MemoryRoleScope role(MemoryRole::kGradients);
    gradients_ = Tensor::zeros({n}, dtype, device);
  }
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    Slice& slice = slices_[i];
    Tensor packed = view(parameters_, slice);
    packed.copy_from(*origins_[i].handle);
    packed.set_requires_grad(true);
    packed.set_grad(view(gradients_, slice));
    *origins_[i].handle = packed;
    slice.parameter = packed;
  }
  release_cached_memory(device);  // the places of the parameters until now: nothing has their sizes
  zero_gradients();
}

const Tensor& ParameterArena::gradients() const {
  for (const Slice& slice : slices_) slice.parameter.autograd()->clear_fresh_gradient();
  return gradients_;
}

void ParameterArena::check_leaves() const {
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    const auto& [handle, module] = origins_[i];
    const Tensor& leaf = slices_[i].parameter;
    if (module.expired() ||
        (handle->autograd() == leaf.autograd() && handle->storage() == leaf.storage()))
      continue;
    fail(ErrorCode::kUsage, "[optimizer] expected '", slices_[i].path,
         "' as it was when this optimizer was made, got a parameter that ",
         handle->requires_grad() ? "was frozen, moved or given to another optimizer since"
                                 : "is frozen",
         ": make a new optimizer");
  }
}

void ParameterArena::zero_gradients() {
  // Backward writes over what is fresh; gradients() clears what it did not reach.
  for (const Slice& slice : slices_) slice.parameter.zero_grad();
}

}  // namespace retort::nn
