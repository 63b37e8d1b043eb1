// Optimizers over flat arenas: SGD and AdamW.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "nn/optim/arena.h"
#include "nn/optim/batch_slices.h"

namespace retort::nn {

/// What every optimizer has.
struct OptimizerConfig {
  double learning_rate = 0.1;
  double weight_decay = 0;
  /// false: parameters of rank 0 and 1 (norms, biases) are not decayed.
  bool decay_norm_and_bias = true;
  double clip_norm = 0;          // the gradients' global norm is cut to this; 0: never
  bool skip_not_finite = false;  // leave everything as it is when that norm is NaN or infinite
  /// Mixed precision on CUDA: f32 parameters keep a bf16 copy (Note [bf16 copies]) that update()
  /// writes in its own pass, so that no convolution of bf16 images rounds them again. The same
  /// bytes, 2 more per parameter.
  bool bf16_copy = false;
  /// Slices that a batch comes in (f32 parameters only): the gradient of an update is then the sum
  /// that slices() was given, and running statistics move with the update. 1: as the passes leave
  /// them.
  std::int64_t slices = 1;
  /// The ranks that share each batch, a power of two of slices on each of them (rank_exchange.h);
  /// null, or one rank: nobody does. They begin with equal parameters: the same seed, or the same
  /// file.
  Communicator* ranks = nullptr;
};

/// Owns the memory of its parameters' values and gradients (ParameterArena) from its construction
/// on. Move modules to their device, and freeze or unfreeze parameters, before. A second optimizer
/// on the same module takes over its parameters with their values. An optimizer whose parameters
/// were frozen, unfrozen, moved or taken over since throws Error(kUsage) at its next step.
///
/// The kernels read learning rate and step number from device memory, so a captured step can be
/// replayed: begin_step() writes them, update() only launches. On CUDA update() is one launch, two
/// with clip_norm or skip_not_finite, whatever the number of parameters and groups.
///
/// With several ranks (on the CPU) each gives slices() its own slices of the batch. update() then
/// adds all ranks' sums, measures and clips their norm, updates the part of the parameters that
/// this rank owns, and sends it to all: weights, statistics, norm and state() are the bytes of one
/// rank that has all slices. Only what a rank owns has moments there. update(), step(), state() and
/// load_state() are then called by all ranks alike.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update with the gradients as they are: begin_step() and update().
  void step();
  void begin_step();  // checks the parameters, counts the step, uploads the numbers that change
  void update();      // kernels only
  void cancel_step() { --steps_; }  // takes begin_step() back: no update() follows
  void zero_grad();                 // of a batch in slices: what was added, too
  /// To be given every slice of a batch before update(); null without OptimizerConfig::slices.
  BatchSlices* slices() { return slices_.get(); }

  /// From now on update() reads the learning rate (f32) and the number of the update (i64, from 1)
  /// in these device scalars, and the caller keeps them right: set_learning_rate() and begin_step()
  /// upload nothing. Undefined tensors: the optimizer's own again.
  void read_from(const Tensor& learning_rate, const Tensor& step);

  /// Errors    kUsage for one that is negative, or no number as a float; nothing has changed then.
  void set_learning_rate(double learning_rate);
  double learning_rate() const { return learning_rate_; }
  std::int64_t steps() const { return steps_; }  // updates so far

  /// Global norm of the gradients that the last update() saw, before clipping: f32 scalar on the
  /// device. Undefined unless clip_norm or skip_not_finite was asked for.
  const Tensor& gradient_norm() const { return norm_; }
  const ParameterArena& arena() const { return arena_; }

  /// State by parameter name, on the CPU: "<path>.<what>", and the number of steps as "step". It
  /// does not depend on how parameters are packed.
  NamedTensors state() const;
  /// Error(kBadInput) that lists missing, unexpected and mis-shaped names; nothing is changed then.
  void load_state(const NamedTensors& state);

 protected:
  Optimizer(const TrainedModules& modules, const OptimizerConfig& config);

  struct Moments {
    std::string name;
    Tensor values;  // laid out like the part of the arena that is updated here
  };
  void add_moments(const std::string& name);

  /// What the update of all parameters reads in device memory.
  struct Scalars {
    const float* learning_rate;
    const std::int64_t* step;
    const float* clip;         // null: none
    const std::int32_t* skip;  // null: never
    const void* gradient;      // of elements [begin, end) of the arena, like the moments
    std::int64_t begin, end;   // to be updated; all but with several ranks
    /// Of these elements the first ones, that lie before `limit` in the arena.
    std::int64_t before(std::int64_t limit) const {
      return limit < begin ? 0 : (limit < end ? limit : end) - begin;
    }
  };
  virtual void apply(const Scalars& scalars) = 0;
  /// The bf16 copy of the parameters from element `begin` on, null without one.
  bf16* parameter_copy(std::int64_t begin) const {
    return copy_.defined() ? copy_.data<bf16>() + begin : nullptr;
  }

  ParameterArena arena_;
  std::vector<Moments> moments_;

 private:
  RankExchange::Range own() const;
  Tensor whole(const Moments& moments) const;
  void measure(const Tensor& gradients);  // norm, clip, not_finite

  OptimizerConfig config_;
  double learning_rate_;
  std::int64_t steps_ = 0;
  struct Numbers {
    Tensor rate, step;  // device scalars: f32, i64
  };
  Numbers own_, elsewhere_;  // elsewhere_ is read where it is defined
  Tensor norm_, clip_, not_finite_, ticket_;
  Tensor copy_;  // laid out like the arena; undefined without bf16_copy
  std::unique_ptr<BatchSlices> slices_;
};

/// Stochastic gradient descent as PyTorch's: formula in kernels/sgd/sgd.h.
struct SgdConfig : OptimizerConfig {
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;
};
class Sgd : public Optimizer {
 public:
  Sgd(Module& module, const SgdConfig& config) : Sgd(TrainedModules{{"", &module}}, config) {}
  Sgd(const TrainedModules& modules, const SgdConfig& config);

 protected:
  void apply(const Scalars& scalars) override;

 private:
  SgdConfig config_;
};

/// Adam with decoupled weight decay: formula in kernels/adamw/adamw.h.
struct AdamWConfig : OptimizerConfig {
  AdamWConfig() {
    learning_rate = 1e-3;
    weight_decay = 1e-2;
  }
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};
class AdamW : public Optimizer {
 public:
  AdamW(Module& module, const AdamWConfig& config) : AdamW(TrainedModules{{"", &module}}, config) {}
  AdamW(const TrainedModules& modules, const AdamWConfig& config);

 protected:
  void apply(const Scalars& scalars) override;

 private:
  AdamWConfig config_;
};

/// Scales the gradients of all leaves so that their global norm is at most max_norm, for code that
/// has no Optimizer; the norm before, as an f32 scalar on their device. Optimizers clip by
/// themselves (clip_norm), without writing the gradients again.
Tensor clip_grad_norm(const std::vector<Tensor>& leaves, double max_norm);

}  // namespace retort::nn
