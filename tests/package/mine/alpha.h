// A divergence of one's own: the functor, for the host and for a .cu file alike.
#pragma once
#include "kernels/distill_loss/divergence.h"

namespace mine {

/// Amari's alpha divergence, from the reverse KL (k to 0) to the forward one (k to 1).
struct Alpha {
  static constexpr retort::kernels::DivergenceFacts facts{
      "alpha", "(1 - sum p^k q^(1 - k)) / (k (1 - k))", 0.5, 0, 1, true, "power of the teacher"};
  template <class A>
  RETORT_HD static retort::kernels::divergence::Element<A> element(A p, A q, A lp, A lq, A k) {
    const A both = retort::kernels::divergence::hd_exp(k * lp + (A(1) - k) * lq);  // p^k q^(1 - k)
    return {(k * p + (A(1) - k) * q - both) / (k * (A(1) - k)), (q - both) / k};
  }
};

}  // namespace mine
