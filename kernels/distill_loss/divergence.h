// Divergences D(p, q) between a teacher's p and a student's q, as functors: those of the library, a
// list of them, and what it takes to bring one from outside.
#pragma once
#if !defined(__CUDACC_RTC__)
#include <cmath>
#include <concepts>
#endif
#include <cstdint>

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"
#include "kernels/common/hd.h"

namespace retort::kernels {

namespace divergence {

RETORT_HD float hd_exp(float x) { return ::expf(x); }
RETORT_HD double hd_exp(double x) { return ::exp(x); }
RETORT_HD float hd_log(float x) { return ::logf(x); }
RETORT_HD double hd_log(double x) { return ::log(x); }

/// Smallest normal number: probabilities below it count as 0 in the divergences.
template <class A>
RETORT_HD A tiny() {
  return sizeof(A) == 4 ? static_cast<A>(1.17549435e-38f) : static_cast<A>(2.2250738585072014e-308);
}

/// One element's part of D, and of h = q dD/dq. Constants added to h / q change no gradient.
template <class A>
struct Element {
  A d, h;
};

}  // namespace divergence

/// What a divergence says of itself.
struct DivergenceFacts {
  const char* name;      // in recipes: "skew_kl"
  const char* formula;   // "KL(p || k p + (1 - k) q)"
  double parameter = 0;  // k where nothing else is asked for
  double least = 0, most = 1;
  bool above_least = false;    // k in (least, most); false: in [least, most)
  const char* role = nullptr;  // what k is: "share of the teacher in the mixture"; null: no k
  int tau_power = 2;           // the loss has tau^tau_power D(p, q), 0, 1 or 2, unless it is told
                               // otherwise (Note [Powers of tau])
};

// Note [Powers of tau]
//   A divergence with a second derivative at p = q falls as tau^-2 when tau grows, and its gradient
//   with respect to a logit as tau^-2 too: a factor tau^2 keeps both where they are (Hinton et al.
//   2015). One whose gradient there is a step, such as the total variation, falls as tau^-1: with
//   tau^2 its gradient would grow with tau.

/// The functors. A functor is a type with
///
///   facts                          DivergenceFacts, static constexpr
///   element(p, q, lp, lq, k)       static, for float and double: D = sum_v d, and h = q dd/dq
///                                  (what is added to h / q of all elements changes nothing)
///
/// p, q are probabilities, lp, lq their logarithms (-inf where a logit is), k the parameter. One
/// source serves host and device: RETORT_HD, arithmetic, hd_exp and hd_log. NaN in p or q
/// must give NaN; p = 0 or q = 0 must give the limit, where there is one.
namespace divergence {

/// Hinton's soft targets.
struct ForwardKl {
  static constexpr DivergenceFacts facts{"forward_kl", "sum p log(p / q)"};
  template <class A>
  RETORT_HD static Element<A> element(A p, A, A lp, A lq, A) {
    return {!(p < tiny<A>()) ? p * (lp - lq) : A(0), -p};  // NaN is not below
  }
};

struct ReverseKl {
  static constexpr DivergenceFacts facts{"reverse_kl", "sum q log(q / p)"};
  template <class A>
  RETORT_HD static Element<A> element(A, A q, A lp, A lq, A) {
    const A d = !(q < tiny<A>()) ? q * (lq - lp) : A(0);
    return {d, d};
  }
};

struct JensenShannon {
  static constexpr DivergenceFacts facts{"jensen_shannon",
                                         "k KL(p || m) + (1 - k) KL(q || m), m = k p + (1 - k) q",
                                         0.5,
                                         0,
                                         1,
                                         true,
                                         "share of the teacher"};
  template <class A>
  RETORT_HD static Element<A> element(A p, A q, A, A, A k) {
    const bool has_p = !(p < tiny<A>()), has_q = !(q < tiny<A>());
    const A p_over_m = has_p ? -hd_log(k + (A(1) - k) * (q / p)) : A(0);  // log(p / m)
    const A q_over_m = has_q ? -hd_log(k * (p / q) + (A(1) - k)) : A(0);
    const A h = (A(1) - k) * q * q_over_m;
    return {k * p * p_over_m + h, h};
  }
};

struct TotalVariation {
  static constexpr DivergenceFacts facts{
      .name = "total_variation", .formula = "1/2 sum |p - q|", .tau_power = 1};
  template <class A>
  RETORT_HD static Element<A> element(A p, A q, A, A, A) {
    const A difference = q - p;
    return {A(0.5) * (difference < A(0) ? -difference : difference),
            A(0.5) * (difference > A(0)   ? q
                      : difference < A(0) ? -q
                                          : A(0) * difference)};
  }
};

struct SkewKl {
  static constexpr DivergenceFacts facts{"skew_kl", "KL(p || k p + (1 - k) q)", 0.1, 0, 1,
                                         false,     "share of p in the mixture"};
  template <class A>
  RETORT_HD static Element<A> element(A p, A q, A, A, A k) {
    if (p < tiny<A>()) return {A(0), A(0)};
    const A m_over_p = k + (A(1) - k) * (q / p);
    return {-p * hd_log(m_over_p), -(A(1) - k) * q / m_over_p};
  }
};

struct SkewReverseKl {
  static constexpr DivergenceFacts facts{
      "skew_reverse_kl", "KL(q || k q + (1 - k) p)", 0.1, 0, 1, false, "share of q in the mixture"};
  template <class A>
  RETORT_HD static Element<A> element(A p, A q, A, A, A k) {
    if (q < tiny<A>()) return {A(0), A(0)};
    const A m_over_q = k + (A(1) - k) * (p / q);
    const A d = -q * hd_log(m_over_q);
    return {d, d - q * k / m_over_q};
  }
};

}  // namespace divergence

/// Those of the library, in their order: a functor and its line here are a divergence.
#define RETORT_DIVERGENCES(X) \
  X(ForwardKl)                \
  X(ReverseKl)                \
  X(JensenShannon)            \
  X(TotalVariation)           \
  X(SkewKl)                   \
  X(SkewReverseKl)

enum class Divergence : std::uint8_t {
#define RETORT_X(name) k##name,
  RETORT_DIVERGENCES(RETORT_X)
#undef RETORT_X
};
#define RETORT_X(name) +1
inline constexpr int kDivergences = 0 RETORT_DIVERGENCES(RETORT_X);
#undef RETORT_X

constexpr const DivergenceFacts& facts_of(Divergence d) {
  switch (d) {
#define RETORT_X(name) \
  case Divergence::k##name: return divergence::name::facts;
    RETORT_DIVERGENCES(RETORT_X)
#undef RETORT_X
  }
  return divergence::ForwardKl::facts;
}
constexpr bool in_range(const DivergenceFacts& facts, double k) {
  return k < facts.most && (facts.above_least ? k > facts.least : k >= facts.least);
}
constexpr const char* name_of(Divergence d) { return facts_of(d).name; }
constexpr double default_parameter(Divergence d) { return facts_of(d).parameter; }

namespace divergence {

template <Divergence kind>
struct FunctorOf;
#define RETORT_X(name)                                \
  template <>                                         \
  struct FunctorOf<Divergence::k##name> {             \
    using Type = ::retort::kernels::divergence::name; \
  };
RETORT_DIVERGENCES(RETORT_X)
#undef RETORT_X

template <Divergence kind, class A>
RETORT_HD Element<A> element_of(A p, A q, A lp, A lq, A k) {
  return FunctorOf<kind>::Type::element(p, q, lp, lq, k);
}

/// The same with the divergence known only at run time (it is one for the whole launch).
template <class A>
RETORT_HD Element<A> element_of(Divergence d, A p, A q, A lp, A lq, A k) {
  switch (d) {
#define RETORT_X(name) \
  case Divergence::k##name: return element_of<Divergence::k##name>(p, q, lp, lq, k);
    RETORT_DIVERGENCES(RETORT_X)
#undef RETORT_X
  }
  __builtin_unreachable();
}

/// Calls f<kind>().
template <class F>
decltype(auto) dispatch_divergence(Divergence d, F&& f) {
  switch (d) {
#define RETORT_X(name) \
  case Divergence::k##name: return f.template operator()<Divergence::k##name>();
    RETORT_DIVERGENCES(RETORT_X)
#undef RETORT_X
  }
  fail(ErrorCode::kUsage, "[distill_loss] expected a divergence, got ", static_cast<int>(d));
}

}  // namespace divergence

// ------------------------------------------------------------------------ divergences from outside

struct DistillLossArgs;

/// Elements of a row, for a functor: d and h are written. log_p, log_q: -inf where a logit is.
struct DivergenceBlock {
  const float *p, *q, *log_p, *log_q;  // (n)
  float k;
  std::int64_t n;
  float *d, *h;  // (n)
};

/// A functor as the kernels hold it: one that they were not compiled with. On the CPU the fused
/// kernel calls block() for a few hundred elements at a time (f32, bf16) or element() (f64); all
/// else it does as ever. On CUDA it is `cuda`, the same kernels compiled with the functor
/// (kernels/distill_loss/divergence.cuh), and null where nobody did.
struct DivergenceOps {
  DivergenceFacts facts;
  divergence::Element<double> (*element)(double p, double q, double log_p, double log_q, double k);
  void (*block)(const DivergenceBlock& elements);
  CudaOp<DistillLossArgs> cuda;
};

#if !defined(__CUDACC_RTC__)
template <class D>
concept DivergenceFunctor = requires(float x, double y) {
  { D::facts } -> std::convertible_to<DivergenceFacts>;
  { D::element(x, x, x, x, x) } -> std::same_as<divergence::Element<float>>;
  { D::element(y, y, y, y, y) } -> std::same_as<divergence::Element<double>>;
};

template <DivergenceFunctor D>
constexpr DivergenceOps divergence_ops(CudaOp<DistillLossArgs> cuda = nullptr) {
  static_assert(D::facts.tau_power >= 0 && D::facts.tau_power <= 2);
  return {D::facts,
          [](double p, double q, double log_p, double log_q, double k) {
            return D::element(p, q, log_p, log_q, k);
          },
          [](const DivergenceBlock& b) {
            for (std::int64_t i = 0; i < b.n; ++i) {
              const auto [d, h] = D::element(b.p[i], b.q[i], b.log_p[i], b.log_q[i], b.k);
              b.d[i] = d;
              b.h[i] = h;
            }
          },
          cuda};
}
#endif

/// A divergence of the library, or one from outside.
struct AnyDivergence {
  Divergence built_in = Divergence::kForwardKl;
  const DivergenceOps* outside = nullptr;  // not null: this one

  constexpr AnyDivergence() = default;
  constexpr AnyDivergence(Divergence d) : built_in(d) {}
  /// The ops must outlive whoever uses it.
  constexpr AnyDivergence(const DivergenceOps& ops) : outside(&ops) {}
  constexpr bool operator==(const AnyDivergence&) const = default;
};
constexpr const DivergenceFacts& facts_of(const AnyDivergence& d) {
  return d.outside != nullptr ? d.outside->facts : facts_of(d.built_in);
}
constexpr const char* name_of(const AnyDivergence& d) { return facts_of(d).name; }
constexpr double default_parameter(const AnyDivergence& d) { return facts_of(d).parameter; }

}  // namespace retort::kernels
