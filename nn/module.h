// Module: named parameters and buffers in a tree. Model: a module that turns inputs into logits.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tensor/tensor.h"
#include "nn/init.h"

namespace retort::nn {

/// A part of a network. Parameters are learned; buffers (running statistics) are state that is
/// saved but not learned. Paths join names with dots, as PyTorch's state_dict does:
/// "layer1.0.conv1.weight".
class Module {
 public:
  using Named = std::vector<std::pair<std::string, Tensor>>;
  using Visitor = std::function<void(const std::string& path, Tensor& tensor)>;

  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// Training or evaluation mode, of this module and all below it. New modules are in training
  /// mode.
  void train(bool on = true);
  void eval() { train(false); }
  bool training() const { return training_; }

  /// Moves parameters and buffers. Gradients are dropped: do this before an optimizer is made.
  void to(Device device);

  /// Own ones first, then those of the children, in the order in which they were added.
  Named named_parameters() const;
  Named named_buffers() const;
  std::int64_t parameter_count() const;  // elements

  /// Gives access to the handles themselves: an optimizer makes them views of its arena.
  void visit_parameters(const Visitor& visit);
  void visit_buffers(const Visitor& visit);

  /// Parameters get gradients (default) or not: a frozen teacher needs none. An optimizer made
  /// before refuses its next step if this changes what it trains.
  void requires_grad(bool on);

  /// Expires with this module: for whoever keeps handles that visit_parameters() gave.
  std::weak_ptr<const void> life() const { return life_; }

  /// Draws every parameter anew, keyed by (seed, path). Buffers keep their values. Throws if two
  /// paths have the same 32-bit hash.
  void initialize(std::uint64_t seed);

 protected:
  /// The reference stays valid for the module's life.
  Tensor& add_parameter(const std::string& name, Tensor value);
  /// A parameter whose first values initialize() draws; until then it is zero.
  Tensor& add_parameter(const std::string& name, const Shape& shape, const Init& init);
  Tensor& add_buffer(const std::string& name, Tensor value);
  template <class M>
  M& add_module(const std::string& name, std::shared_ptr<M> child) {
    M& added = *child;
    add_child(name, std::move(child));
    return added;
  }

 private:
  struct Entry {
    std::string name;
    Tensor tensor;
    Init init;
    bool has_init = false;
  };
  struct Child {
    std::string name;
    std::shared_ptr<Module> module;
  };
  using EntryVisitor = std::function<void(const std::string& path, Entry& entry)>;

  void add_child(const std::string& name, std::shared_ptr<Module> child);
  void check_name(const std::string& name) const;
  void walk(const std::string& prefix, std::deque<Entry> Module::*list, const EntryVisitor& visit);

  std::deque<Entry> parameters_, buffers_;  // deque: references survive push_back
  std::vector<Child> children_;
  bool training_ = true;
  std::shared_ptr<const void> life_ = std::make_shared<char>();
};

/// Modules that are trained together. The prefix goes in front of their parameters' paths; it is ""
/// where there is one module only.
using TrainedModules = std::vector<std::pair<std::string, Module*>>;

/// What a model returns. pre and post are filled on request: the hidden activations before and
/// after the nonlinearity, from the input side on.
///
/// Shapes    logits (B, V). mlp: one (B, width) each per hidden layer. ResNets: one (B, H, W, C)
/// each
///           per stage, of the stage's last block.
struct ForwardResult {
  Tensor logits;
  std::vector<Tensor> pre, post;
};

/// Mixed precision: give bf16 inputs to a model with f32 parameters. Activations are then bf16,
/// statistics, logits, gradients of parameters and the parameters themselves stay f32.
class Model : public Module {
 public:
  virtual ForwardResult forward(const Tensor& x, bool want_hidden = false) = 0;
  virtual std::int64_t classes() const = 0;  // V

  /// The first `layers` >= 1 hidden layers, and no logits: for losses on a hidden layer. Models
  /// compute nothing behind it (this one only leaves it out of the result).
  virtual ForwardResult forward_hidden(const Tensor& x, std::int64_t layers);

  /// For a model whose weights are final: evaluation without gradients may fold batch norms into
  /// the convolutions in front of them. The same outputs up to rounding, in fewer passes. A model
  /// that has none ignores it.
  virtual void fold_batch_norms(bool /*on*/) {}

  /// The same for good: parameters and buffers change value, the function stays the same up to
  /// rounding, and no second copy of the weights is held (in their own dtype).
  virtual void fold_batch_norms_for_good() {}
};

}  // namespace retort::nn
