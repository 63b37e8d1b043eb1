#include "nn/optim/optimizer.h"

#include <cmath>
#include <unordered_map>

#include "engine/autograd/autograd.h"
#include "engine/distributed/communicator.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/adamw/adamw.h"
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/sgd/sgd.h"

namespace retort::nn {
namespace {

// Overwrites a device scalar without waiting for the device: a copy from pageable memory returns as
// soon as that memory may be reused.
template <class T>
void upload(const Tensor& scalar, T value) {
  if (scalar.device() == Device::kCpu) {
    *scalar.data<T>() = value;
    return;
  }
  const Status status =
      cuda_runtime.copy(scalar.raw(), &value, sizeof value, CopyKind::kHostToDevice,
                        context_of(scalar.device()).stream);
  RETORT_CHECK_AS(kDevice, status.code == ErrorCode::kOk, "[optimizer] ", status.message);
}

int group_of(const OptimizerConfig& config, const Tensor& parameter) {
  return !config.decay_norm_and_bias && parameter.rank() <= 1 ? 1 : 0;
}

}  // namespace

Optimizer::Optimizer(const TrainedModules& modules, const OptimizerConfig& config)
    : arena_(
          modules, 2, [&](const std::string&, const Tensor& p) { return group_of(config, p); },
          config.slices > 1),
      config_(config),
      learning_rate_(config.learning_rate) {
  RETORT_CHECK(std::isfinite(config.weight_decay) && config.weight_decay >= 0,
               "[optimizer] expected a weight decay >= 0, got ", config.weight_decay);
  RETORT_CHECK(std::isfinite(config.clip_norm) && config.clip_norm >= 0,
               "[optimizer] expected clip_norm >= 0, got ", config.clip_norm);
  RETORT_CHECK(config.slices >= 1 && config.slices <= kMostSlices, "[optimizer] expected 1 to ",
               kMostSlices, " slices, got ", config.slices);
  if (config.ranks != nullptr) RankExchange::check_ranks(config.slices, config.ranks->size());
  if (config.slices > 1)
    slices_ = std::make_unique<BatchSlices>(arena_, config.slices, config.ranks);
  if (config.bf16_copy) {
    const MemoryRoleScope role(MemoryRole::kParameters);
    arena_.values().keep_bf16_copy();
    copy_ = arena_.parameters().bf16_copy();
  }
  const MemoryRoleScope role(MemoryRole::kOptimizer);
  const Device device = arena_.parameters().device();
  if (config.clip_norm > 0 || config.skip_not_finite) {
    norm_ = Tensor::zeros({}, DType::kF32, device);
    clip_ = Tensor::zeros({}, DType::kF32, device);
    not_finite_ = Tensor::zeros({}, DType::kI32, device);
    ticket_ = Tensor::zeros({}, DType::kI32, device);
  }
  own_ = {Tensor::zeros({}, DType::kF32, device), Tensor::zeros({}, DType::kI64, device)};
  set_learning_rate(config.learning_rate);
}

void Optimizer::read_from(const Tensor& learning_rate, const Tensor& step) {
  const Device device = arena_.parameters().device();
  const auto fits = [&](const Tensor& t, DType dtype) {
    return t.defined() && t.dtype() == dtype && t.numel() == 1 && t.device() == device;
  };
  RETORT_CHECK((!learning_rate.defined() && !step.defined()) ||
                   (fits(learning_rate, DType::kF32) && fits(step, DType::kI64)),
               "[optimizer] expected f32 and i64 scalars on ", name_of(device));
  elsewhere_ = {learning_rate, step};
  set_learning_rate(learning_rate_);
}

void Optimizer::add_moments(const std::string& name) {
  const MemoryRoleScope role(MemoryRole::kOptimizer);
  const Tensor& like = arena_.parameters();
  moments_.push_back({name, Tensor::zeros({own().size()}, like.dtype(), like.device())});
}

RankExchange::Range Optimizer::own() const {
  return slices_ ? slices_->own() : RankExchange::Range{0, arena_.numel()};
}

// Laid out like the arena.
Tensor Optimizer::whole(const Moments& moments) const {
  if (!slices_ || slices_->exchange() == nullptr) return moments.values;
  const Tensor all = Tensor::zeros({arena_.numel()});
  all.slice(own().begin, own().end).copy_from(moments.values);
  slices_->exchange()->share(all);
  return all;
}

void Optimizer::set_learning_rate(double learning_rate) {
  const auto rate = static_cast<float>(learning_rate);
  RETORT_CHECK(std::isfinite(rate) && rate >= 0,
               "[optimizer] expected a finite learning rate >= 0, got ", learning_rate);
  learning_rate_ = learning_rate;
  if (!elsewhere_.rate.defined()) upload(own_.rate, rate);
}

void Optimizer::step() {
  begin_step();
  try {
    update();
  } catch (...) {
    cancel_step();
    throw;
  }
}

void Optimizer::begin_step() {
  arena_.check_leaves();
  ++steps_;
  if (!elsewhere_.rate.defined()) upload(own_.step, steps_);
}

void Optimizer::zero_grad() {
  arena_.zero_gradients();
  if (slices_) slices_->clear();
}

void Optimizer::update() {
  const Numbers& numbers = elsewhere_.rate.defined() ? elsewhere_ : own_;
  const Tensor gradients = slices_ ? slices_->finish() : arena_.gradients();
  const auto [begin, end] = own();
  Scalars scalars{numbers.rate.data<float>(),
                  numbers.step.data<std::int64_t>(),
                  nullptr,
                  nullptr,
                  gradients.raw(),
                  begin,
                  end};
  if (norm_.defined()) {
    measure(gradients);
    if (config_.clip_norm > 0) scalars.clip = clip_.data<float>();
    if (config_.skip_not_finite) scalars.skip = not_finite_.data<std::int32_t>();
  }
  apply(scalars);
  if (!slices_) return;
  slices_->update_statistics(scalars.skip);
  slices_->share();
}

void Optimizer::measure(const Tensor& gradients) {
  if (slices_ && slices_->exchange() != nullptr) {
    const std::vector<double> squares = slices_->exchange()->squares(gradients, arena_.numel());
    kernels::grad_norm_of_squares_cpu(squares, config_.clip_norm, norm_.data<float>(),
                                      clip_.data<float>(), not_finite_.data<std::int32_t>());
    return;
  }
  const kernels::GradientSegment all{gradients.raw(), gradients.numel()};
  kernels::GradNormArgs args;
  args.segments = {&all, 1};
  args.norm = norm_.data<float>();
  args.clip = clip_.data<float>();
  args.not_finite = not_finite_.data<std::int32_t>();
  args.ticket = reinterpret_cast<std::uint32_t*>(ticket_.data<std::int32_t>());
  args.max_norm = config_.clip_norm;
  args.dtype = gradients.dtype();
  kernels::grad_norm(context_of(gradients.device()), args);
}

NamedTensors Optimizer::state() const {
  NamedTensors list;
  list.emplace_back("step", Tensor::from<std::int64_t>({steps_}, {}));
  std::vector<Tensor> all;
  for (const Moments& moments : moments_) all.push_back(whole(moments));
  for (const ParameterArena::Slice& slice : arena_.slices())
    for (std::size_t m = 0; m < moments_.size(); ++m) {
      const Tensor part = ParameterArena::view(all[m], slice);
      list.emplace_back(slice.path + "." + moments_[m].name,
                        part.device() == Device::kCpu ? part.clone() : part.to(Device::kCpu));
    }
  return list;
}

void Optimizer::load_state(const NamedTensors& state) {
  std::unordered_map<std::string, Tensor> given(state.begin(), state.end());
  std::string missing, misshaped, unexpected;
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) {
    const auto found = given.find(name);
    if (found == given.end()) {
      missing += " " + name;
      return Tensor();
    }
    const Tensor value = found->second;
    given.erase(found);
    if (!(value.shape() == shape) || value.dtype() != dtype) misshaped += " " + name;
    return value;
  };
  struct Match {
    Tensor to, from;
  };
  std::vector<Match> matches;
  std::vector<Tensor> all;
  const bool parted = slices_ && slices_->exchange() != nullptr;
  for (const Moments& moments : moments_)
    all.push_back(parted ? Tensor::zeros({arena_.numel()}) : moments.values);
  for (const ParameterArena::Slice& slice : arena_.slices())
    for (std::size_t m = 0; m < moments_.size(); ++m) {
      const Tensor part = ParameterArena::view(all[m], slice);
      matches.push_back(
          {part, take(slice.path + "." + moments_[m].name, part.shape(), part.dtype())});
    }
  const Tensor steps = take("step", {}, DType::kI64);
  for (const auto& [name, tensor] : given) unexpected += " " + escaped(name);
  const auto some = [](const char* what, const std::string& names) {
    return names.empty() ? std::string()
                         : join(what, names.substr(0, 500), names.size() > 500 ? "..." : "");
  };
  if (!missing.empty() || !misshaped.empty() || !unexpected.empty())
    fail(ErrorCode::kBadInput, "[optimizer] the saved state does not fit",
         some("; missing:", missing), some("; wrong shape or dtype:", misshaped),
         some("; unexpected:", unexpected));
  const std::int64_t count = steps.to_vector<std::int64_t>()[0];
  RETORT_CHECK_AS(kBadInput, count >= 0, "[optimizer] expected a step number >= 0, got ", count);
  for (const Match& match : matches) match.to.copy_from(match.from);
  for (std::size_t m = 0; parted && m < moments_.size(); ++m)
    moments_[m].values.copy_from(all[m].slice(own().begin, own().end));
  steps_ = count;
}

Sgd::Sgd(const TrainedModules& modules, const SgdConfig& config)
    : Optimizer(modules, config), config_(config) {
  RETORT_CHECK(config.momentum >= 0 && config.momentum < 1,
               "[sgd] expected 0 <= momentum < 1, got ", config.momentum);
  RETORT_CHECK(config.dampening >= 0 && config.dampening <= 1,
               "[sgd] expected 0 <= dampening <= 1, got ", config.dampening);
  RETORT_CHECK(!config.nesterov || (config.momentum > 0 && config.dampening == 0),
               "[sgd] expected momentum > 0 and dampening 0 with nesterov, got ", config.momentum,
               " and ", config.dampening);
  if (config.momentum > 0) add_moments("momentum_buffer");
}

void Sgd::apply(const Scalars& scalars) {
  const Tensor& parameters = arena_.parameters();
  kernels::SgdArgs args;
  args.parameter = parameters.slice(scalars.begin, scalars.end).raw();
  args.gradient = scalars.gradient;
  if (!moments_.empty()) args.momentum_buffer = moments_[0].values.raw();
  args.parameter_copy = parameter_copy(scalars.begin);
  args.n = scalars.end - scalars.begin;
  args.learning_rate = scalars.learning_rate;
  args.step = scalars.step;
  args.clip = scalars.clip;
  args.skip = scalars.skip;
  args.momentum = config_.momentum;
  args.dampening = config_.dampening;
  args.nesterov = config_.nesterov;
  args.weight_decay = config_.weight_decay;
  args.decayed = scalars.before(arena_.group(0).end);  // the second group is not
  args.dtype = parameters.dtype();
  args.gradient_dtype = parameters.dtype();
  kernels::sgd(context_of(parameters.device()), args);
}

AdamW::AdamW(const TrainedModules& modules, const AdamWConfig& config)
    : Optimizer(modules, config), config_(config) {
  RETORT_CHECK(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1,
               "[adamw] expected 0 <= beta < 1, got ", config.beta1, " and ", config.beta2);
  RETORT_CHECK(config.epsilon > 0, "[adamw] expected epsilon > 0, got ", config.epsilon);
  add_moments("exp_avg");
  add_moments("exp_avg_sq");
}

void AdamW::apply(const Scalars& scalars) {
  const Tensor& parameters = arena_.parameters();
  kernels::AdamWArgs args;
  args.parameter = parameters.slice(scalars.begin, scalars.end).raw();
  args.gradient = scalars.gradient;
  args.first_moment = moments_[0].values.raw();
  args.second_moment = moments_[1].values.raw();
  args.parameter_copy = parameter_copy(scalars.begin);
  args.n = scalars.end - scalars.begin;
  args.learning_rate = scalars.learning_rate;
  args.step = scalars.step;
  args.clip = scalars.clip;
  args.skip = scalars.skip;
  args.beta1 = config_.beta1;
  args.beta2 = config_.beta2;
  args.epsilon = config_.epsilon;
  args.weight_decay = config_.weight_decay;
  args.decayed = scalars.before(arena_.group(0).end);  // the second group is not
  args.dtype = parameters.dtype();
  args.gradient_dtype = parameters.dtype();
  kernels::adamw(context_of(parameters.device()), args);
}

Tensor clip_grad_norm(const std::vector<Tensor>& leaves, double max_norm) {
  RETORT_CHECK(max_norm > 0, "[clip_grad_norm] expected max_norm > 0, got ", max_norm);
  const NoGrad no_grad;
  std::vector<Tensor> gradients;
  for (const Tensor& leaf : leaves)
    if (leaf.grad().defined()) gradients.push_back(leaf.grad());
  if (gradients.empty()) return Tensor::zeros({});
  std::vector<kernels::GradientSegment> segments;
  for (const Tensor& g : gradients) {
    RETORT_CHECK(g.dtype() == gradients[0].dtype() && g.device() == gradients[0].device(),
                 "[clip_grad_norm] expected gradients of one dtype on one device");
    segments.push_back({g.raw(), g.numel()});
  }
  const Device device = gradients[0].device();
  const Tensor norm = Tensor::zeros({}, DType::kF32, device),
               clip = Tensor::zeros({}, DType::kF32, device);
  kernels::GradNormArgs args;
  args.segments = segments;
  args.norm = norm.data<float>();
  args.clip = clip.data<float>();
  args.max_norm = max_norm;
  args.dtype = gradients[0].dtype();
  kernels::grad_norm(context_of(device), args);
  const Tensor factor = clip.to(gradients[0].dtype());
  for (const Tensor& g : gradients) g.copy_from(multiply(g, factor));
  return norm;
}

}  // namespace retort::nn
