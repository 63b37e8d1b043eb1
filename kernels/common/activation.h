// The functions that may follow a matrix product, and their derivatives: one formula each for the
// CPU loops, the CUDA kernels and the elementwise ops.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/hd.h"

namespace retort::kernels {

enum class Activation : std::uint8_t {
  kNone,      // z
  kRelu,      // max(z, 0); derivative at 0 is 0
  kGelu,      // z Phi(z), by erf
  kGeluTanh,  // z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))): "gelu_new"
  kTanh,
};

constexpr const char* name_of(Activation a) {
  switch (a) {
    case Activation::kNone: return "none";
    case Activation::kRelu: return "relu";
    case Activation::kGelu: return "gelu";
    case Activation::kGeluTanh: return "gelu_tanh";
    case Activation::kTanh: return "tanh";
  }
  return "?";
}

/// True if the derivative is a function of the result y = f(z): then z need not be kept.
constexpr bool backward_reads_result(Activation a) {
  return a != Activation::kGelu && a != Activation::kGeluTanh;
}

/// f(z). A is float or double; NaN goes through every one of them.
///
/// Source    Hendrycks, Gimpel 2016, arXiv:1606.08415, section 2 (both forms of GELU).
template <Activation kF, class A>
RETORT_HD A activate(A z) {
  if constexpr (kF == Activation::kNone) return z;
  if constexpr (kF == Activation::kRelu) return z < A(0) ? A(0) : z;
  if constexpr (kF == Activation::kGelu)
    return A(0.5) * z * (A(1) + std::erf(z * A(0.70710678118654752)));
  if constexpr (kF == Activation::kGeluTanh)
    return A(0.5) * z * (A(1) + std::tanh(A(0.79788456080286536) * (z + A(0.044715) * z * z * z)));
  if constexpr (kF == Activation::kTanh) return std::tanh(z);
}

/// dz from dy and what was saved: y = f(z), or z where backward_reads_result is false.
template <Activation kF, class A>
RETORT_HD A activate_backward(A dy, A s) {
  if constexpr (kF == Activation::kNone) return dy;
  if constexpr (kF == Activation::kRelu) return s > A(0) ? dy : A(0);
  if constexpr (kF == Activation::kGelu) {
    const A phi = A(0.5) * (A(1) + std::erf(s * A(0.70710678118654752)));
    return dy * (phi + s * A(0.39894228040143268) * std::exp(A(-0.5) * s * s));
  }
  if constexpr (kF == Activation::kGeluTanh) {
    const A t = std::tanh(A(0.79788456080286536) * (s + A(0.044715) * s * s * s));
    const A slope = A(0.79788456080286536) * (A(1) + A(0.134145) * s * s);
    return dy * A(0.5) * (A(1) + t + s * (A(1) - t * t) * slope);
  }
  if constexpr (kF == Activation::kTanh) return dy * (A(1) - s * s);
}

/// Calls f.operator()<kF>().
template <class F>
decltype(auto) dispatch_activation(Activation a, F&& f) {
  switch (a) {
    case Activation::kRelu: return f.template operator()<Activation::kRelu>();
    case Activation::kGelu: return f.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh: return f.template operator()<Activation::kGeluTanh>();
    case Activation::kTanh: return f.template operator()<Activation::kTanh>();
    default: return f.template operator()<Activation::kNone>();
  }
}

}  // namespace retort::kernels
