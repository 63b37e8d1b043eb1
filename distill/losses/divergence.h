// Divergences by the names that recipes use.
#pragma once
#include <string>
#include <vector>

#include "kernels/distill_loss/distill_loss.h"
#include "nn/registry.h"

namespace retort::distill {

using kernels::AnyDivergence;
using kernels::Divergence;

/// D(p, q) between teacher and student: one row of the registry, made of a functor, which says its
/// name, formula, parameter and power of tau (kernels/distill_loss/divergence.h).
struct DivergenceKind {
  std::vector<std::string> names;
  AnyDivergence divergence;

  const kernels::DivergenceFacts& facts() const { return kernels::facts_of(divergence); }
  bool on_cuda() const {
    return divergence.outside == nullptr || divergence.outside->cuda != nullptr;
  }
  /// "in [0, 1)": what the parameter may be.
  std::string range() const;
  bool in_range(double parameter) const;
  /// "skew_kl: KL(p || k p + (1 - k) q), k (share of p in the mixture) in [0, 1), 0.1".
  std::string describe() const;
};

/// The rows: those of the library, then those from outside. See nn/registry.h.
nn::Registry<DivergenceKind>& divergence_kinds();

namespace detail {
void check_facts(const kernels::DivergenceFacts& facts);
}

/// The row of a functor from outside: divergence_kinds().add(divergence_kind<MyDivergence>()). It
/// takes part in the fused loss on the CPU; on CUDA where `cuda` is its kernel, that is
/// kernels::divergence_cuda<MyDivergence>() from a file that nvcc compiled. Without, asking for it
/// there is an error: nothing slower takes its place.
///
/// Errors    kUsage for a default outside the range, or a range that goes below 0 (recipes say -1
///           for the default).
template <kernels::DivergenceFunctor D>
DivergenceKind divergence_kind(CudaOp<kernels::DistillLossArgs> cuda = nullptr) {
  detail::check_facts(D::facts);
  static const kernels::DivergenceOps ops = kernels::divergence_ops<D>(cuda);
  return {{D::facts.name}, ops};
}

}  // namespace retort::distill
