#include "engine/autograd/autograd.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "engine/ops/axpy.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/allocator.h"

namespace retort {
namespace {

thread_local bool t_grad_enabled = true;
std::atomic<std::uint64_t> g_sequence{0};

// True in the backward inside a recompute's: hooks wait for the outer one.
thread_local bool t_recomputing = false;

// backward runs under NoGrad; a recomputed function records inside it.
struct RecordAgain {
  RecordAgain() : before(std::exchange(t_recomputing, true)) { t_grad_enabled = true; }
  ~RecordAgain() {
    t_grad_enabled = false;
    t_recomputing = before;
  }
  bool before;
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

// How often the graph below `top` uses each leaf.
std::unordered_map<const Tensor::Autograd*, int> count_leaf_uses(
    const std::shared_ptr<Tensor::Autograd>& top) {
  std::unordered_map<const Tensor::Autograd*, int> uses;
  std::unordered_set<const Tensor::Autograd*> seen;
  std::vector<const Tensor::Autograd*> stack{top.get()};
  while (!stack.empty()) {
    const Tensor::Autograd* const at = stack.back();
    stack.pop_back();
    if (!at->node) {
      ++uses[at];
      continue;
    }
    if (!seen.insert(at).second) continue;
    for (const auto& input : at->node->inputs)
      if (input) stack.push_back(input.get());
  }
  return uses;
}

// Handles of the leaves below a result.
std::vector<Tensor> leaf_handles(const Tensor& result) {
  if (!result.requires_grad()) return {};
  if (!result.autograd()->node) return {result};
  std::vector<Tensor> leaves;
  std::unordered_set<const Tensor::Autograd*> seen{result.autograd().get()};
  std::vector<const Node*> stack{result.autograd()->node.get()};
  while (!stack.empty()) {
    const Node& at = *stack.back();
    stack.pop_back();
    for (std::size_t i = 0; i < at.inputs.size(); ++i) {
      if (!at.inputs[i] || !seen.insert(at.inputs[i].get()).second) continue;
      if (at.inputs[i]->node)
        stack.push_back(at.inputs[i]->node.get());
      else
        leaves.push_back(at.leaves[i]);
    }
  }
  return leaves;
}

// Leaves accumulate in place, while others may still have to read what was given as a gradient: it
// is copied if it lies in the memory of a leaf's own.
Tensor apart_from_leaves(const Tensor& gradient, const std::shared_ptr<Tensor::Autograd>& top) {
  if (gradient.storage().use_count() == 1) return gradient;
  for (const auto& [leaf, uses] : count_leaf_uses(top))
    if (leaf->gradient && leaf->gradient->storage() == gradient.storage()) return gradient.clone();
  return gradient;
}

// Nodes with a pending gradient, newest first.
class Queue {
 public:
  Queue() { heap_.reserve(16); }
  ~Queue() {  // after an error: gradients of half a backward must not meet those of the next
    for (const auto& a : heap_) {
      a->node->pending = Tensor();
      a->node->contributions_in_place = 0;
    }
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  bool empty() const { return heap_.empty(); }
  void push(const std::shared_ptr<Tensor::Autograd>& a) {
    heap_.push_back(a);
    std::push_heap(heap_.begin(), heap_.end(), older);
  }
  std::shared_ptr<Tensor::Autograd> pop() {
    std::pop_heap(heap_.begin(), heap_.end(), older);
    auto top = std::move(heap_.back());
    heap_.pop_back();
    return top;
  }

 private:
  static bool older(const std::shared_ptr<Tensor::Autograd>& a,
                    const std::shared_ptr<Tensor::Autograd>& b) {
    return a->node->sequence < b->node->sequence;
  }
  std::vector<std::shared_ptr<Tensor::Autograd>> heap_;
};

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

namespace {

// The node whose backward function runs in this thread.
thread_local Node* t_running = nullptr;
struct Running {
  explicit Running(Node* node) : before(t_running) { t_running = node; }
  ~Running() { t_running = before; }
  Node* before;
};

void make_gradient(const Tensor& leaf) {
  Tensor::Autograd& a = *leaf.autograd();
  if (a.gradient) return;
  const MemoryRoleScope role(MemoryRole::kGradients);
  a.gradient = std::make_shared<Tensor>(Tensor::empty(leaf.shape(), leaf.dtype(), leaf.device()));
  a.gradient_is_fresh = true;
  a.gradient_is_zeroed = false;
}

bool same_memory(const Tensor& a, const Tensor& b) {
  return a.storage() == b.storage() && a.storage_offset() == b.storage_offset();
}

}  // namespace

namespace {

bool is_like(const Tensor& t, const Shape& shape, DType dtype, Device device) {
  return t.defined() && t.shape() == shape && t.dtype() == dtype && t.device() == device;
}

// The leaf that is input `index` of the op whose backward runs, if its gradient is one contiguous
// piece of this kind; else null.
Tensor::Autograd* leaf_with_own_gradient(std::size_t index, const Shape& shape, DType dtype,
                                         Device device) {
  if (t_running == nullptr || index >= t_running->leaves.size()) return nullptr;
  const Tensor& leaf = t_running->leaves[index];
  if (!is_like(leaf, shape, dtype, device)) return nullptr;
  make_gradient(leaf);
  return leaf.autograd()->gradient->is_contiguous() ? leaf.autograd().get() : nullptr;
}

}  // namespace

Tensor gradient_memory(std::size_t index, const Shape& shape, DType dtype, Device device) {
  Tensor::Autograd* const leaf = leaf_with_own_gradient(index, shape, dtype, device);
  if (leaf == nullptr || !leaf->gradient_is_fresh) return Tensor::empty(shape, dtype, device);
  leaf->gradient_is_fresh = false;
  ++leaf->contributions_in_place;
  return *leaf->gradient;
}

GradientPlace gradient_place(std::size_t index, const Shape& shape, DType dtype, Device device) {
  if (Tensor::Autograd* const leaf = leaf_with_own_gradient(index, shape, dtype, device)) {
    ++leaf->contributions_in_place;
    return {*leaf->gradient, std::exchange(leaf->gradient_is_fresh, false)};
  }
  if (t_running != nullptr && index < t_running->inputs.size())
    if (const auto& input = t_running->inputs[index]; input && input->node)
      if (Node& below = *input->node;
          is_like(below.pending, shape, dtype, device) && below.pending.is_contiguous() &&
          below.pending.storage().use_count() == 1) {  // nobody else holds the memory
        ++below.contributions_in_place;
        return {below.pending, false};
      }
  return {Tensor::empty(shape, dtype, device), true};
}

Tensor gradient_to_add_to(std::size_t index, const Shape& shape, DType dtype, Device device) {
  Tensor::Autograd* const leaf = leaf_with_own_gradient(index, shape, dtype, device);
  if (leaf != nullptr) leaf->clear_fresh_gradient();
  const GradientPlace place = gradient_place(index, shape, dtype, device);
  if (place.is_empty && leaf == nullptr) place.memory.fill(0);
  return place.memory;
}

void check_gradient(const char* op, const Tensor& t, const Tensor& gradient) {
  RETORT_CHECK(gradient.defined() && gradient.shape() == t.shape() &&
                   gradient.dtype() == t.dtype() && gradient.device() == t.device(),
               "[", op, "] expected a gradient ", t.shape(), " of ", name_of(t.dtype()), " on ",
               name_of(t.device()), ", got ",
               gradient.defined() ? join(gradient.shape(), " of ", name_of(gradient.dtype()),
                                         " on ", name_of(gradient.device()))
                                  : "an empty handle");
}

void accumulate_gradient(const Tensor& leaf, const Tensor& gradient) {
  check_gradient("backward", leaf, gradient);
  make_gradient(leaf);
  Tensor::Autograd& a = *leaf.autograd();
  const bool is_own = same_memory(*a.gradient, gradient);
  if (is_own && a.contributions_in_place > 0) {
    --a.contributions_in_place;
    return;
  }
  if (a.gradient_is_fresh) {
    if (!is_own) a.gradient->copy_from(gradient);
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
  check_gradient("backward", *this, gradient);
  const NoGrad no_grad;
  if (!autograd_->node) {
    accumulate_gradient(*this, gradient);
    return;
  }
  // Nodes by creation order, newest first: every consumer of a tensor was created after it.
  Queue queue;
  // How often each leaf is still used; counted only where someone waits for the last time.
  std::unordered_map<const Autograd*, int> uses;
  if (!hooks().empty() && !t_recomputing) uses = count_leaf_uses(autograd_);
  autograd_->node->pending = apart_from_leaves(gradient, autograd_);
  queue.push(autograd_);
  while (!queue.empty()) {
    const std::shared_ptr<Autograd> top = queue.pop();
    const std::shared_ptr<Node> node = top->node;
    const Tensor dy = std::move(node->pending);
    node->pending = Tensor();
    RETORT_CHECK(node->backward != nullptr, "[backward] the history of '", node->name,
                 "' was freed by an earlier backward");
    const Running running(node.get());
    std::vector<Tensor> gradients = node->backward(dy);
    node->backward = nullptr;  // frees what it saved
    RETORT_CHECK(gradients.size() == node->inputs.size(), "[backward] '", node->name, "' returned ",
                 gradients.size(), " gradients for ", node->inputs.size(), " inputs");
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const auto& input = node->inputs[i];
      if (!input) continue;
      if (!input->node) {
        if (gradients[i].defined()) {
          Autograd& leaf = *input;
          // The first gradient of a leaf, if nobody else holds its memory, is kept as it is.
          if (!leaf.gradient && gradients[i].storage().use_count() == 1 &&
              gradients[i].is_contiguous() && gradients[i].shape() == node->leaves[i].shape() &&
              gradients[i].dtype() == node->leaves[i].dtype() &&
              gradients[i].device() == node->leaves[i].device())
            leaf.gradient = std::make_shared<Tensor>(std::move(gradients[i]));
          else
            accumulate_gradient(node->leaves[i], gradients[i]);
        }
        if (!uses.empty() && --uses[input.get()] == 0) run_hooks(node->leaves[i]);
        continue;
      }
      if (!gradients[i].defined()) continue;
      Node& below = *input->node;
      if (!below.pending.defined()) {
        below.pending = std::move(gradients[i]);
        queue.push(input);
      } else if (below.contributions_in_place > 0 && same_memory(below.pending, gradients[i])) {
        --below.contributions_in_place;
      } else if (below.pending.storage().use_count() == 1 && below.pending.is_contiguous()) {
        add_into(below.pending, gradients[i]);  // in place: nobody else holds the memory
      } else {
        below.pending = add(below.pending, gradients[i]);  // an op may have handed on its own dy
      }
    }
  }
}

std::unordered_set<const Tensor::Autograd*> leaves_of(const Tensor& result) {
  std::unordered_set<const Tensor::Autograd*> leaves;
  if (result.requires_grad())
    for (const auto& [leaf, uses] : count_leaf_uses(result.autograd())) leaves.insert(leaf);
  return leaves;
}

Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs) {
  if (!grad_enabled()) return f(inputs);
  const auto as_leaves = [](const std::vector<Tensor>& tensors) {
    std::vector<Tensor> leaves;
    for (const Tensor& t : tensors) {
      Tensor leaf = t.detach();
      if (t.requires_grad()) leaf.set_requires_grad(true);
      leaves.push_back(leaf);
    }
    return leaves;
  };
  // Recorded and forgotten: its nodes tell which leaves f captured. They are inputs of the node so
  // that there is one if nothing else needs a gradient, and so that their hooks wait for it.
  std::vector<Tensor> all = inputs;
  Tensor result;
  {
    const std::vector<Tensor> leaves = as_leaves(inputs);
    const Tensor y = f(leaves);
    for (const Tensor& leaf : leaf_handles(y))
      if (std::none_of(leaves.begin(), leaves.end(),
                       [&](const Tensor& t) { return t.autograd() == leaf.autograd(); }))
        all.push_back(leaf);
    result = y.detach();
  }
  return record("recompute", result, all, [f, inputs, as_leaves, n = all.size()](const Tensor& dy) {
    const std::vector<Tensor> leaves = as_leaves(inputs);
    {
      const RecordAgain recording;
      const Tensor y = f(leaves);
      if (y.requires_grad()) y.backward(dy);  // captured leaves gather theirs here
    }
    std::vector<Tensor> gradients(n);
    for (std::size_t i = 0; i < leaves.size(); ++i) gradients[i] = leaves[i].grad();
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

bool has_gradient_hooks() {
  const auto& list = hooks();
  return std::any_of(list.begin(), list.end(), [](const auto& weak) { return !weak.expired(); });
}

}  // namespace retort
