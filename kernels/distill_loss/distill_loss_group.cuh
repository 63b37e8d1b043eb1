// What the row kernels of the distillation loss share: merges over a row's threads, and sums that
// can be moved from one maximum to another.
#pragma once
#include "kernels/common/row_io.cuh"
#include "kernels/distill_loss/distill_loss_math.h"
#include "kernels/simt/simt.h"

namespace retort::kernels {
namespace SIMT_NS {
using namespace simt;
using namespace distill;

inline constexpr float kLog2E = 1.4426950408889634f;

// ---- whose elements a row's kernel sums ---------------------------------------------------------

// element() is as a functor's, with what the launch and the row are told beside it.
struct ForwardElements {  // the forward KL: by its own sums, in the first pass
  static constexpr bool kForward = true;
};
struct LibraryElements {  // any other of the library, one for the whole launch
  static constexpr bool kForward = false;
};
template <class D>
struct FunctorElements {  // one from outside
  static constexpr bool kForward = false;
};
template <class D>
SIMT_D Element<float> element_by(FunctorElements<D>, const DistillLossArgs&, float p, float q,
                                 float lp, float lq, float k) {
  return D::element(p, q, lp, lq, k);
}
template <class Elements>
SIMT_D Element<float> element_by(Elements, const DistillLossArgs& a, float p, float q, float lp,
                                 float lq, float k) {
  return element_of(a.divergence.built_in, p, q, lp, lq, k);
}

// ---- a row's group of threads: a few lanes, one warp, or the whole block ------------------------

/// Merges over the group, in an order fixed by the number of threads; every thread gets the result.
template <int kThreads>
struct Group {
  static constexpr int kLanes = kThreads < 32 ? kThreads : 32;
  static constexpr int kWarps = kThreads / kLanes;
  static constexpr int kSlots = 8;
  float* shared;  // kSlots * kWarps floats; unused within a warp

  SIMT_D int rank() const { return kWarps == 1 ? threadIdx.x % kLanes : threadIdx.x; }
  /// The lanes of a warp that belong to one group; others of the warp may have returned.
  SIMT_D static unsigned mask() {
    return kLanes == 32 ? ~0u : ((1u << (kLanes % 32)) - 1u) << (threadIdx.x % 32 & ~(kLanes - 1));
  }
  SIMT_D static float lane_sum(float v) {
#pragma unroll
    for (int d = kLanes / 2; d > 0; d >>= 1) v += __shfl_xor_sync(mask(), v, d);
    return v;
  }

  template <int kCount>
  SIMT_D void sum(float (&x)[kCount]) const {
    static_assert(kCount <= kSlots);
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[k] = lane_sum(x[k]);
    if constexpr (kWarps > 1) {
      __syncthreads();
      if (threadIdx.x % 32 == 0)
        for (int k = 0; k < kCount; ++k) shared[k * kWarps + threadIdx.x / 32] = x[k];
      __syncthreads();
      const int lane = threadIdx.x % 32;
#pragma unroll
      for (int k = 0; k < kCount; ++k)
        x[k] = warp_sum(lane < kWarps ? shared[k * kWarps + lane] : 0.0f);
    }
  }

  /// Largest, its lowest index, and second largest.
  SIMT_D void top(float& max, float& next, int& argmax) const {
    warp_top(max, next, argmax);
    if constexpr (kWarps > 1) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      __syncthreads();
      if (lane == 0) {
        shared[warp] = max, shared[kWarps + warp] = next;
        shared[2 * kWarps + warp] = __int_as_float(argmax);
      }
      __syncthreads();
      max = lane < kWarps ? shared[lane] : lowest<float>();
      next = lane < kWarps ? shared[kWarps + lane] : lowest<float>();
      argmax = lane < kWarps ? __float_as_int(shared[2 * kWarps + lane]) : -1;
      warp_top(max, next, argmax);
    }
  }

  SIMT_D static void warp_top(float& max, float& next, int& argmax) {
#pragma unroll
    for (int d = kLanes / 2; d > 0; d >>= 1)
      take_top(max, next, argmax, __shfl_xor_sync(mask(), max, d), __shfl_xor_sync(mask(), next, d),
               __shfl_xor_sync(mask(), argmax, d));
  }

  /// Index -1 means none.
  SIMT_D static void take_top(float& max, float& next, int& argmax, float max2, float next2,
                              int argmax2) {
    const float low = fminf(max, max2);
    next = fmaxf(low, fmaxf(next, next2));
    if (max2 > max ||
        (max2 == max && static_cast<unsigned>(argmax2) < static_cast<unsigned>(argmax)))
      argmax = argmax2;
    max = fmaxf(max, max2);
  }
};

// ---- one row --------------------------------------------------------------------------------

/// How exp(x) follows from exp(x / tau): the same for tau 1, a square for 2, two squares for 4.
SIMT_D float one_from_tau(float e, float x, float tau) {
  if (tau == 1.0f) return e;
  if (tau == 2.0f) return e * e;
  if (tau == 4.0f) return (e * e) * (e * e);
  return exp2_approx(x * kLog2E);
}

/// Sums of the logits one thread has seen, relative to the largest of them.
struct ThreadSums {
  LogitSums<float> s, t;
  float kd = 0;  // sum e_t ((t - m_t) - (s - m_s)), tau not yet divided out
};

/// Moves the sums to other maxima.
SIMT_D void rebase(ThreadSums& a, float max_s, float max_t, float scale) {
  const float ds = max_s - a.s.max, dt = max_t - a.t.max;
  if (ds != 0.0f) {
    a.s.sum *= exp2_approx(-ds * scale);
    a.s.sum1 *= exp2_approx(-ds * kLog2E);
  }
  if (a.t.sum != 0.0f) {  // nothing to move (and huge differences) before the first element
    const float f = exp2_approx(-dt * scale), f1 = exp2_approx(-dt * kLog2E);
    // What underflows against the new maximum has p = 0 and counts as 0, even times an infinity.
    a.kd = f == 0.0f ? 0.0f : f * (a.kd + a.t.sum * (ds - dt));
    a.t.dot1 = f1 == 0.0f ? 0.0f : f1 * (a.t.dot1 - a.t.sum1 * dt);
    a.t.sum *= f;
    a.t.sum1 *= f1;
  }
  a.s.max = max_s;
  a.t.max = max_t;
}

template <int kVec>
SIMT_D void track_top(LogitSums<float>& a, float& max, const float (&x)[kVec], int v) {
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    if (x[j] > max) {
      a.next = max;
      max = x[j];
      a.argmax = v + j;
    } else {
      a.next = fmaxf(a.next, x[j]);
    }
  }
}

}  // namespace SIMT_NS
}  // namespace retort::kernels
