// The tape: each differentiable op records a node with what its backward needs.
//
// Note [Writing a differentiable op]
//   Tensor y = ...run the kernel...;
//   return record("op", y, {x, w}, [x = x.detach(), w = w.detach()](const Tensor& dy) {
//     return std::vector<Tensor>{dx, dw};      // one per input; undefined where none is needed
//   });
// Capture detached tensors (a captured result with its history would keep itself alive), and only
// what backward reads. needs_grad(t) tells which gradients are wanted.
//
// Note [Writing in place between forward and backward]
//   What an op saved shares memory with the tensors it was given and gave. Nothing notices when
//   they are written (copy_from, fill, add_into, an optimizer's update, raw()) before backward has
//   run: after y = square(x) and x.fill(100) the gradient is 200, whatever x was. Clone what must
//   change, or change it after backward.
#pragma once
#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort {

using BackwardFn = std::function<std::vector<Tensor>(const Tensor& dy)>;

struct Node {
  Node() = default;
  ~Node();  // frees the nodes below one after the other, not by recursion
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const char* name;
  std::uint64_t sequence;  // order of creation: backward visits the highest first
  std::vector<std::shared_ptr<Tensor::Autograd>> inputs;  // null where an input needs no gradient
  std::vector<Tensor> leaves;  // handles of leaf inputs (same index), to accumulate into
  BackwardFn backward;
  std::weak_ptr<Tensor::Autograd> output;

  // Of a backward under way: the gradient gathered so far, and how many contributions the op that
  // runs has put into it itself (gradient_place).
  Tensor pending;
  int contributions_in_place = 0;
};

/// True if gradients are recorded in this thread (default).
bool grad_enabled();

/// While one lives, this thread records nothing: teacher forwards, evaluation, updates.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// True if a gradient with respect to t is wanted: recording is on and t requires one.
inline bool needs_grad(const Tensor& t) {
  return t.defined() && t.requires_grad() && grad_enabled();
}

/// Attaches a node to `result` if any input needs a gradient; returns result. `name` must be a
/// literal.
Tensor record(const char* name, Tensor result, std::vector<Tensor> inputs, BackwardFn backward);

/// Error naming op unless `gradient` has t's shape, dtype and device.
void check_gradient(const char* op, const Tensor& t, const Tensor& gradient);

/// The leaves that backward() of this result reaches, by what handles of one leaf share.
std::unordered_set<const Tensor::Autograd*> leaves_of(const Tensor& result);

/// For use inside a backward function: memory for the gradient of input `index`, which the function
/// must write whole and return. It is the leaf's own gradient if nothing was added to that yet, so
/// that a large weight gradient is not copied; else new memory of the given shape.
Tensor gradient_memory(std::size_t index, const Shape& shape, DType dtype, Device device);

/// Where the gradient of an input is being gathered.
struct GradientPlace {
  Tensor memory;  // contiguous
  bool is_empty;  // true: to be written whole, whatever it holds; false: to be added to
};

/// gradient_memory for a backward function that can also add to what other consumers of the input
/// have left there: no memory of its own, no pass to add it. It must return `memory`.
///
/// Two consumers of one parameter (an embedding and the decoder tied to it), and one consumer in
/// two micro-batches, add in the order in which backward visits them: newest first.
GradientPlace gradient_place(std::size_t index, const Shape& shape, DType dtype, Device device);

/// The same for a function that adds to a few rows: memory that nothing was added to is cleared
/// first, so that there is always something to add to. It must return this tensor.
Tensor gradient_to_add_to(std::size_t index, const Shape& shape, DType dtype, Device device);

/// Adds `gradient` to the gradient of a leaf: in place, by copy if it is the first contribution.
void accumulate_gradient(const Tensor& leaf, const Tensor& gradient);

/// Runs f without keeping its inner nodes, and runs it again in backward: trades time for memory.
/// f must be a pure function of its inputs (its randomness keyed by counters) and of leaves that it
/// captured, such as a module's parameters: these get their gradients, too.
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs);

/// Called in backward right after the gradient of a leaf is complete (for overlapped all-reduce).
/// Returns a handle that removes the hook when destroyed.
std::shared_ptr<void> on_gradient_ready(const Tensor& leaf,
                                        std::function<void(const Tensor& gradient)> hook);
/// True while this thread has such a hook: a captured backward would call it once, not every time.
bool has_gradient_hooks();

}  // namespace retort
