#include "engine/autograd/autograd.h"

#include <algorithm>
#include <atomic>
#include <queue>
#include <unordered_map>

#include "engine/ops/axpy.h"
#include "engine/runtime/allocator.h"

namespace retort {
namespace {

thread_local bool t_grad_enabled = true;
std::atomic<std::uint64_t> g_sequence{0};

// backward runs under NoGrad; a recomputed function records inside it.
struct RecordAgain {
  RecordAgain() { t_grad_enabled = true; }
  ~RecordAgain() { t_grad_enabled = false; }
};

struct Hook {
  std::weak_ptr<Tensor::Autograd> leaf;
  std::function<void(const Tensor&)> call;
};
std::vector<std::weak_ptr<Hook>>& hooks() {
  thread_local std::vector<std::weak_ptr<Hook>> list;
  return list;
}

void run_hooks(const Tensor& leaf) {
  for (const auto& weak : hooks())
    if (const auto hook = weak.lock(); hook && hook->leaf.lock() == leaf.autograd())
      hook->call(leaf.grad());
}

}  // namespace

Node::~Node() {
  // A chain of a hundred thousand ops would otherwise take as many stack frames to free.
  thread_local std::vector<std::shared_ptr<Tensor::Autograd>>* t_pending = nullptr;
  if (t_pending != nullptr) {
    for (auto& input : inputs)
      if (input) t_pending->push_back(std::move(input));
    return;
  }
  std::vector<std::shared_ptr<Tensor::Autograd>> pending;
  std::swap(pending, inputs);
  t_pending = &pending;
  while (!pending.empty()) {
    const std::shared_ptr<Tensor::Autograd> last = std::move(pending.back());
    pending.pop_back();
  }
  t_pending = nullptr;
}

bool grad_enabled() { return t_grad_enabled; }
NoGrad::NoGrad() : before_(t_grad_enabled) { t_grad_enabled = false; }
NoGrad::~NoGrad() { t_grad_enabled = before_; }

Tensor record(const char* name, Tensor result, std::vector<Tensor> inputs, BackwardFn backward) {
  if (!std::any_of(inputs.begin(), inputs.end(), [](const Tensor& t) { return needs_grad(t); }))
    return result;
  auto node = std::make_shared<Node>();
  node->name = name;
  node->sequence = ++g_sequence;
  node->backward = std::move(backward);
  node->inputs.resize(inputs.size());
  node->leaves.resize(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!needs_grad(inputs[i])) continue;
    node->inputs[i] = inputs[i].autograd();
    if (!inputs[i].autograd()->node) node->leaves[i] = inputs[i];
  }
  auto autograd = std::make_shared<Tensor::Autograd>();
  node->output = autograd;
  autograd->node = std::move(node);
  result.set_autograd(std::move(autograd));
  return result;
}

void accumulate_gradient(const Tensor& leaf, const Tensor& gradient) {
  Tensor::Autograd& a = *leaf.autograd();
  RETORT_CHECK(gradient.shape() == leaf.shape(), "[backward] expected a gradient ", leaf.shape(),
               ", got ", gradient.shape());
  if (!a.gradient) {
    const MemoryRoleScope role(MemoryRole::kGradients);
    a.gradient = std::make_shared<Tensor>(Tensor::empty(leaf.shape(), leaf.dtype(), leaf.device()));
    a.gradient_is_fresh = true;
  }
  if (a.gradient_is_fresh) {
    a.gradient->copy_from(gradient);
    a.gradient_is_fresh = false;
    return;
  }
  add_into(*a.gradient, gradient);
}

void Tensor::backward() const {
  RETORT_CHECK(numel() == 1, "[backward] expected a scalar, got ", shape_,
               "; pass a gradient for other shapes");
  backward(Tensor::full(shape_, 1, dtype_, device_));
}

void Tensor::backward(const Tensor& gradient) const {
  RETORT_CHECK(autograd_ != nullptr, "[backward] expected a tensor that requires a gradient");
  RETORT_CHECK(gradient.shape() == shape_, "[backward] expected a gradient ", shape_, ", got ",
               gradient.shape());
  const NoGrad no_grad;
  if (!autograd_->node) {
    accumulate_gradient(*this, gradient);
    return;
  }
  // Nodes by creation order, newest first: every consumer of a tensor was created after it.
  const auto older = [](const std::shared_ptr<Autograd>& a, const std::shared_ptr<Autograd>& b) {
    return a->node->sequence < b->node->sequence;
  };
  std::priority_queue<std::shared_ptr<Autograd>, std::vector<std::shared_ptr<Autograd>>,
                      decltype(older)>
      queue(older);
  std::unordered_map<const Autograd*, Tensor> pending;
  std::unordered_map<const Autograd*, int> uses;  // of leaves: hooks run after the last one
  std::vector<std::shared_ptr<Autograd>> stack{autograd_};
  std::unordered_map<const Autograd*, bool> seen;
  while (!stack.empty()) {
    const auto top = stack.back();
    stack.pop_back();
    if (!top->node) {
      ++uses[top.get()];
      continue;
    }
    if (seen[top.get()]) continue;
    seen[top.get()] = true;
    for (const auto& input : top->node->inputs)
      if (input) stack.push_back(input);
  }
  pending[autograd_.get()] = gradient;
  queue.push(autograd_);
  while (!queue.empty()) {
    const std::shared_ptr<Autograd> top = queue.top();
    queue.pop();
    const auto it = pending.find(top.get());
    if (it == pending.end()) continue;
    const Tensor dy = it->second;
    pending.erase(it);
    const std::shared_ptr<Node> node = top->node;
    RETORT_CHECK(node->backward != nullptr, "[backward] the history of '", node->name,
                 "' was freed by an earlier backward");
    std::vector<Tensor> gradients = node->backward(dy);
    node->backward = nullptr;  // frees what it saved
    RETORT_CHECK(gradients.size() == node->inputs.size(), "[backward] '", node->name, "' returned ",
                 gradients.size(), " gradients for ", node->inputs.size(), " inputs");
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const auto& input = node->inputs[i];
      if (!input) continue;
      if (!input->node) {
        if (gradients[i].defined()) accumulate_gradient(node->leaves[i], gradients[i]);
        if (--uses[input.get()] == 0) run_hooks(node->leaves[i]);
        continue;
      }
      if (!gradients[i].defined()) continue;
      auto [slot, first] = pending.try_emplace(input.get(), gradients[i]);
      if (first) {
        queue.push(input);
      } else {
        // In place if nobody else holds the memory (an op may have handed on its own dy).
        Tensor& sum = slot->second;
        if (sum.storage().use_count() != 1 || !sum.is_contiguous()) sum = sum.clone();
        add_into(sum, gradients[i]);
      }
    }
  }
}

Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs) {
  Tensor result;
  {
    const NoGrad no_grad;
    result = f(inputs);
  }
  return record("recompute", result, inputs, [f, inputs](const Tensor& dy) {
    std::vector<Tensor> again;
    for (const Tensor& t : inputs) {
      Tensor leaf = t.detach();
      if (t.requires_grad()) leaf.set_requires_grad(true);
      again.push_back(leaf);
    }
    {
      const RecordAgain recording;
      const Tensor y = f(again);
      if (y.requires_grad()) y.backward(dy);
    }
    std::vector<Tensor> gradients;
    for (const Tensor& t : again) gradients.push_back(t.grad());
    return gradients;
  });
}

std::shared_ptr<void> on_gradient_ready(const Tensor& leaf,
                                        std::function<void(const Tensor&)> hook) {
  RETORT_CHECK(leaf.autograd() && !leaf.autograd()->node,
               "[on_gradient_ready] expected a leaf that requires a gradient");
  auto& list = hooks();
  list.erase(std::remove_if(list.begin(), list.end(), [](const auto& w) { return w.expired(); }),
             list.end());
  auto kept = std::make_shared<Hook>(Hook{leaf.autograd(), std::move(hook)});
  list.push_back(kept);
  return kept;
}

}  // namespace retort
