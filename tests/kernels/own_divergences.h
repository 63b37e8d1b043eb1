// Divergences of a user's own, for the host file and the .cu file alike.
#pragma once
#include "kernels/distill_loss/divergence.h"

namespace retort::test {

/// Amari's alpha divergence, from the reverse KL (k to 0) to the forward one (k to 1).
struct AlphaDivergence {
  static constexpr kernels::DivergenceFacts facts{
      "alpha", "(1 - sum p^k q^(1 - k)) / (k (1 - k))", 0.25, 0, 1, true, "power of the teacher"};
  template <class A>
  RETORT_HD static kernels::divergence::Element<A> element(A p, A q, A lp, A lq, A k) {
    const A both = kernels::divergence::hd_exp(k * lp + (A(1) - k) * lq);  // p^k q^(1 - k)
    return {(k * p + (A(1) - k) * q - both) / (k * (A(1) - k)), (q - both) / k};
  }
};

/// sum |p - q| with tau^1.
struct Distance {
  static constexpr kernels::DivergenceFacts facts{
      .name = "distance", .formula = "sum |p - q|", .tau_power = 1};
  template <class A>
  RETORT_HD static kernels::divergence::Element<A> element(A p, A q, A, A, A) {
    return {q > p ? q - p : p - q, q > p ? q : q < p ? -q : A(0) * (q - p)};
  }
};

}  // namespace retort::test
