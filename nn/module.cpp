#include "nn/module.h"

#include <unordered_map>

#include "engine/runtime/allocator.h"

namespace retort::nn {

void Module::train(bool on) {
  training_ = on;
  for (const Child& child : children_) child.module->train(on);
}

void Module::to(Device device) {
  const MemoryRoleScope role(MemoryRole::kParameters);
  const auto move = [device](const std::string&, Tensor& tensor) {
    if (tensor.device() == device) return;
    Tensor moved = tensor.detach().to(device);
    moved.set_requires_grad(tensor.requires_grad());
    tensor = moved;
  };
  visit_parameters(move);
  visit_buffers(move);
}

void Module::walk(const std::string& prefix, std::deque<Entry> Module::*list,
                  const EntryVisitor& visit) {
  for (Entry& entry : this->*list) visit(prefix + entry.name, entry);
  for (const Child& child : children_) child.module->walk(prefix + child.name + ".", list, visit);
}

Module::Named Module::named_parameters() const {
  Named list;
  const_cast<Module*>(this)->visit_parameters(
      [&](const std::string& path, Tensor& tensor) { list.emplace_back(path, tensor); });
  return list;
}

Module::Named Module::named_buffers() const {
  Named list;
  const_cast<Module*>(this)->visit_buffers(
      [&](const std::string& path, Tensor& tensor) { list.emplace_back(path, tensor); });
  return list;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [path, tensor] : named_parameters()) count += tensor.numel();
  return count;
}

void Module::visit_parameters(const Visitor& visit) {
  walk("", &Module::parameters_,
       [&](const std::string& path, Entry& entry) { visit(path, entry.tensor); });
}

void Module::visit_buffers(const Visitor& visit) {
  walk("", &Module::buffers_,
       [&](const std::string& path, Entry& entry) { visit(path, entry.tensor); });
}

void Module::requires_grad(bool on) {
  visit_parameters([on](const std::string&, Tensor& tensor) { tensor.set_requires_grad(on); });
}

void Module::initialize(std::uint64_t seed) {
  std::unordered_map<std::uint32_t, std::string> hashes;
  walk("", &Module::parameters_, [&](const std::string& path, Entry& entry) {
    if (!entry.has_init) return;
    const auto [slot, is_new] = hashes.emplace(init_hash(path), path);
    RETORT_CHECK(is_new, "[initialize] '", path, "' and '", slot->second,
                 "' have the same hash: rename one");
    nn::initialize(entry.tensor, entry.init, seed, path);
  });
}

void Module::check_name(const std::string& name) const {
  RETORT_CHECK(!name.empty() && name.find('.') == std::string::npos,
               "[module] expected a name without dots, got '", name, "'");
  for (const Entry& entry : parameters_)
    RETORT_CHECK(entry.name != name, "[module] '", name, "' was added before");
  for (const Entry& entry : buffers_)
    RETORT_CHECK(entry.name != name, "[module] '", name, "' was added before");
  for (const Child& child : children_)
    RETORT_CHECK(child.name != name, "[module] '", name, "' was added before");
}

Tensor& Module::add_parameter(const std::string& name, Tensor value) {
  check_name(name);
  value.set_requires_grad(true);
  return parameters_.emplace_back(Entry{name, std::move(value), {}, false}).tensor;
}

Tensor& Module::add_parameter(const std::string& name, const Shape& shape, const Init& init) {
  const MemoryRoleScope role(MemoryRole::kParameters);
  Tensor& tensor = add_parameter(name, Tensor::zeros(shape));
  parameters_.back().init = init;
  parameters_.back().has_init = true;
  return tensor;
}

Tensor& Module::add_buffer(const std::string& name, Tensor value) {
  check_name(name);
  return buffers_.emplace_back(Entry{name, std::move(value), {}, false}).tensor;
}

void Module::add_child(const std::string& name, std::shared_ptr<Module> child) {
  check_name(name);
  RETORT_CHECK(child != nullptr, "[module] expected a module for '", name, "', got null");
  children_.push_back({name, std::move(child)});
}

void Model::check_want(const char* who, const Want& want) const {
  const std::int64_t hidden = facts().hidden_layers;
  RETORT_CHECK(want.layers >= 0 && want.layers <= hidden, "[", who, "] expected 1 to ", hidden,
               " hidden layers, got ", want.layers);
}

}  // namespace retort::nn
