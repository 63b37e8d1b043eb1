// Parameters of modules packed into one block of memory, their gradients into another.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace retort::nn {

/// Makes the parameters of the modules (those that require a gradient) views of one flat tensor,
/// and their gradients views of another: the optimizer's kernels and the gradient norm then see a
/// few long arrays. Values are kept. Each parameter starts at a multiple of 16 elements; the gaps
/// are 0 and stay 0 under every optimizer.
///
/// With `statistics` the modules' buffers (running statistics) become views, too, of a group behind
/// the parameters; in the gradients that group is what a slice of a batch leaves there
/// (slices.h).
///
/// Errors    Error(kUsage) if there is no parameter, dtypes or devices differ, or a path is there
///           twice.
class ParameterArena {
 public:
  struct Slice {
    std::string path;
    Tensor parameter;  // the leaf that the module uses; its gradient is in the arena
    std::int64_t offset = 0;
  };
  struct Group {  // neighbours in the arena
    std::int64_t begin = 0, end = 0;
  };
  struct Statistic {
    std::string path;
    Tensor running;  // what the module uses
    std::int64_t offset = 0, end = 0;
  };

  /// group_of(path, parameter) gives each parameter's group, 0 <= group < groups.
  ParameterArena(const TrainedModules& modules, int groups,
                 const std::function<int(const std::string&, const Tensor&)>& group_of,
                 bool statistics = false);

  const std::vector<Slice>& slices() const { return slices_; }
  const Group& group(int i) const { return groups_[static_cast<std::size_t>(i)]; }
  int groups() const { return static_cast<int>(groups_.size()); }
  const Tensor& parameters() const { return parameters_; }  // (n)
  const Tensor& gradients() const;                          // (n); parts never written are zero
  std::int64_t numel() const { return parameters_.numel(); }

  const std::vector<Statistic>& statistics() const { return statistics_; }
  /// Parameters and statistics; gradients and what a slice leaves of statistics: (n + s).
  const Tensor& values() const { return values_; }
  const Tensor& sums() const;
  const Tensor& sums_in_place() const { return sums_; }  // as they lie there, stale gradients too

  /// The part of an array laid out like the arena that belongs to one parameter, in its shape.
  static Tensor view(const Tensor& flat, const Slice& slice);

  /// Error(kUsage) naming the first parameter whose module no longer uses the leaf in this arena:
  /// frozen, even if unfrozen since, moved, or taken over by another arena. The same for statistics
  /// that were moved or taken over.
  void check_leaves() const;

  /// Gradients := 0, without touching their memory: see Tensor::zero_grad.
  void zero_gradients();

 private:
  struct Origin {
    Tensor* handle;  // inside its module
    std::weak_ptr<const void> module;
  };
  struct FoundStatistic {
    std::string path;
    Origin origin;
  };
  static std::vector<FoundStatistic> find_statistics(const TrainedModules& modules,
                                                     const Tensor& like);
  void pack_statistics(const std::vector<FoundStatistic>& found);

  std::vector<Slice> slices_;
  std::vector<Origin> origins_;  // of each slice
  std::vector<Group> groups_;
  std::vector<Statistic> statistics_;
  std::vector<Origin> statistic_origins_;
  Tensor values_, sums_;           // (n + s)
  Tensor parameters_, gradients_;  // the first n of them
};

}  // namespace retort::nn
