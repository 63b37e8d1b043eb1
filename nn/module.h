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
#include "nn/inputs.h"

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

  /// Spellings of public code bases: {theirs, this module's}. "linear." is read as "fc." at the
  /// start of a name, ".shortcut." as ".downsample." wherever it stands.
  using NamePairs = std::vector<std::pair<std::string, std::string>>;
  virtual NamePairs file_names() const { return {}; }

  /// How files of others' stand to this module, beyond the spellings of names. A name begins with a
  /// prefix or is it; all names are this module's own (spellings applied).
  struct FileRules {
    using Names = std::vector<std::string>;
    Names ignored = {};         // prefixes of what carries nothing, or belongs to other heads
    Names ignored_at_end = {};  // the same at the end of a name: ".attn.bias"
    /// Prefixes of parts that may lack as a whole, in a file of a model with another head: what is
    /// in them keeps the values it has.
    Names may_lack = {};
    /// {name, parameter}: a tied weight written out under a second name. It must be equal, and
    /// stands in for the first where that lacks.
    NamePairs tied = {};
    Names transposed = {};  // ends of names of matrices that files hold as (in, out)
  };
  virtual FileRules file_rules() const { return {}; }

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

/// A module in evaluation mode for as long as this lives, whatever is thrown; then in the mode that
/// it had.
class Evaluating {
 public:
  explicit Evaluating(Module& module) : module_(module), training_(module.training()) {
    module_.eval();
  }
  ~Evaluating() { module_.train(training_); }
  Evaluating(const Evaluating&) = delete;
  Evaluating& operator=(const Evaluating&) = delete;

 private:
  Module& module_;
  bool training_;
};

/// Modules that are trained together. The prefix goes in front of their parameters' paths; it is ""
/// where there is one module only.
using TrainedModules = std::vector<std::pair<std::string, Module*>>;

/// What a model is, as those who join it with data, losses and other models need to know.
struct ModelFacts {
  Reads reads = Reads::kFeatures;
  std::int64_t classes = 0;        // V: columns of the logits
  std::int64_t hidden_layers = 0;  // that Want may ask for
  std::string vocabulary = {};     // hash of the words that ids stand for; "": none
};

/// Mixed precision: give bf16 inputs to a model with f32 parameters. Activations are then bf16,
/// statistics, logits, gradients of parameters and the parameters themselves stay f32.
class Model : public Module {
 public:
  /// Models compute nothing behind the layers that are wanted.
  /// Errors    kUsage for inputs of another kind or shape, or more layers than there are.
  virtual Outputs forward(const Inputs& inputs, const Want& want = {}) = 0;
  virtual ModelFacts facts() const = 0;
  std::int64_t classes() const { return facts().classes; }
  /// The last layer, where it is linear and all that it reads is Outputs::features; undefined: other
  /// models, and what a forward pass alone can tell.
  virtual Head head() const { return {}; }

  /// Text files that belong beside its weights, so that other programs know what they are:
  /// {"config.json", ...}.
  virtual std::vector<std::pair<std::string, std::string>> companions() const { return {}; }

  /// For a model whose weights are final: evaluation without gradients may use other weights with
  /// the same outputs up to rounding, in fewer passes (batch norms folded into the convolutions in
  /// front of them). A model that has nothing of the kind ignores it.
  ///   kOff      as before
  ///   kBeside   a second copy of what changes; the parameters stay as they are
  ///   kForGood  parameters and buffers change value, and no second copy is held
  enum class Frozen : std::uint8_t { kOff, kBeside, kForGood };
  virtual void freeze(Frozen /*how*/) {}

 protected:
  /// Error(kUsage) unless want.layers is one of the model's hidden layers (or 0).
  void check_want(const char* who, const Want& want) const;
};

}  // namespace retort::nn
