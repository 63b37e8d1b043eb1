#include "nn/optim/arena.h"

#include <unordered_set>

#include "engine/runtime/allocator.h"

namespace retort::nn {
namespace {

constexpr std::int64_t kAlign = 16;  // 64 bytes of f32: whole vectors and cache lines

std::int64_t aligned(std::int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

Tensor ParameterArena::view(const Tensor& flat, const Slice& slice) {
  const Shape& shape = slice.parameter.shape();
  return Tensor::wrap(flat.storage(), flat.storage_offset() + slice.offset, shape, flat.dtype(),
                      shape.rank() == 0 ? 1 : shape[-1]);
}

ParameterArena::ParameterArena(
    const TrainedModules& modules, int groups,
    const std::function<int(const std::string&, const Tensor&)>& group_of, bool statistics) {
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

  const std::vector<FoundStatistic> buffers =
      statistics ? find_statistics(modules, *first) : std::vector<FoundStatistic>{};
  std::int64_t n = 0, all = 0;
  for (const auto& group : found) {
    const std::int64_t begin = n;
    for (const Found& f : group) {
      slices_.push_back({f.path, *f.origin.handle, n});
      origins_.push_back(f.origin);
      n += aligned(f.origin.handle->numel());
    }
    groups_.push_back({begin, n});
  }
  all = n;
  for (const FoundStatistic& b : buffers) all += aligned(b.origin.handle->numel());
  const DType dtype = first->dtype();
  const Device device = first->device();
  {
    const MemoryRoleScope role(MemoryRole::kParameters);
    values_ = Tensor::zeros({all}, dtype, device);
    parameters_ = values_.slice(0, n);
  }
  {
    const MemoryRoleScope role(MemoryRole::kGradients);
    sums_ = Tensor::zeros({all}, dtype, device);
    gradients_ = sums_.slice(0, n);
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
  pack_statistics(buffers);
  release_cached_memory(device);  // the places of the parameters until now: nothing has their sizes
  zero_gradients();
}

std::vector<ParameterArena::FoundStatistic> ParameterArena::find_statistics(
    const TrainedModules& modules, const Tensor& like) {
  std::vector<FoundStatistic> found;
  for (const auto& [prefix, module] : modules)
    module->visit_buffers([&, &prefix = prefix](const std::string& name, Tensor& tensor) {
      const std::string path = prefix + name;
      RETORT_CHECK(tensor.dtype() == like.dtype() && tensor.device() == like.device(),
                   "[optimizer] expected all statistics as ", name_of(like.dtype()), " on ",
                   name_of(like.device()), ", got '", path, "' as ", name_of(tensor.dtype()),
                   " on ", name_of(tensor.device()));
      found.push_back({path, {&tensor, module->life()}});
    });
  return found;
}

void ParameterArena::pack_statistics(const std::vector<FoundStatistic>& found) {
  std::int64_t at = parameters_.numel();
  for (const auto& [path, origin] : found) {
    Tensor& handle = *origin.handle;
    const Shape& shape = handle.shape();
    const Tensor packed = Tensor::wrap(values_.storage(), at, shape, values_.dtype(),
                                       shape.rank() == 0 ? 1 : shape[-1]);
    packed.copy_from(handle);
    handle = packed;
    statistics_.push_back({path, packed, at, at + packed.numel()});
    statistic_origins_.push_back(origin);
    at += aligned(packed.numel());
  }
}

const Tensor& ParameterArena::gradients() const {
  for (const Slice& slice : slices_) slice.parameter.autograd()->clear_fresh_gradient();
  return gradients_;
}

const Tensor& ParameterArena::sums() const {
  gradients();
  return sums_;
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
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    const auto& [handle, module] = statistic_origins_[i];
    const Tensor& running = statistics_[i].running;
    RETORT_CHECK(
        module.expired() || (handle->storage() == running.storage() &&
                             handle->storage_offset() == running.storage_offset()),
        "[optimizer] expected '", statistics_[i].path,
        "' as it was when this optimizer was made, got statistics that were moved or given "
        "to another optimizer since: make a new optimizer");
  }
}

void ParameterArena::zero_gradients() {
  // Backward writes over what is fresh; gradients() clears what it did not reach.
  for (const Slice& slice : slices_) slice.parameter.zero_grad();
}

}  // namespace retort::nn
