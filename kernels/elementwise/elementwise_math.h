// The arithmetic of the elementwise ops, shared by the CPU loops and the CUDA kernels.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels/common/activation.h"
#include "kernels/common/bf16.h"
#include "kernels/common/dtype.h"
#include "kernels/common/hd.h"

namespace retort::kernels {

enum class Unary : std::uint8_t {
  kAffine,  // a * x + b
  kRelu,
  kExp,
  kLog,
  kSquare,
  kSqrt,
  kTanh,
  kAbs,
  kSigmoid,
  kGelu,  // x * Phi(x), by erf
  kGeluTanh,
};
enum class Binary : std::uint8_t { kAdd, kSubtract, kMultiply, kDivide };

constexpr const char* name_of(Unary op) {
  switch (op) {
    case Unary::kAffine: return "affine";
    case Unary::kRelu: return "relu";
    case Unary::kExp: return "exp";
    case Unary::kLog: return "log";
    case Unary::kSquare: return "square";
    case Unary::kSqrt: return "sqrt";
    case Unary::kTanh: return "tanh";
    case Unary::kAbs: return "abs";
    case Unary::kSigmoid: return "sigmoid";
    case Unary::kGelu: return "gelu";
    case Unary::kGeluTanh: return "gelu_tanh";
  }
  return "?";
}
constexpr const char* name_of(Binary op) {
  switch (op) {
    case Binary::kAdd: return "add";
    case Binary::kSubtract: return "subtract";
    case Binary::kMultiply: return "multiply";
    case Binary::kDivide: return "divide";
  }
  return "?";
}

/// True if the backward of `op` reads the result y, false if it reads the input x.
constexpr bool backward_reads_result(Unary op) {
  return op == Unary::kRelu || op == Unary::kExp || op == Unary::kSqrt || op == Unary::kTanh ||
         op == Unary::kSigmoid;
}

// A is the accumulation type, float or double. NaN goes through every one of them.
template <Unary kOp, class A>
RETORT_HD A unary_forward(A x, A a, A b) {
  if constexpr (kOp == Unary::kAffine) return a * x + b;
  if constexpr (kOp == Unary::kRelu) return activate<Activation::kRelu>(x);
  if constexpr (kOp == Unary::kExp) return std::exp(x);
  if constexpr (kOp == Unary::kLog) return std::log(x);
  if constexpr (kOp == Unary::kSquare) return x * x;
  if constexpr (kOp == Unary::kSqrt) return std::sqrt(x);
  if constexpr (kOp == Unary::kTanh) return activate<Activation::kTanh>(x);
  if constexpr (kOp == Unary::kAbs) return std::abs(x);
  if constexpr (kOp == Unary::kSigmoid) return A(1) / (A(1) + std::exp(-x));
  if constexpr (kOp == Unary::kGelu) return activate<Activation::kGelu>(x);
  if constexpr (kOp == Unary::kGeluTanh) return activate<Activation::kGeluTanh>(x);
}

/// dx from dy and what was saved: y or x, see backward_reads_result.
template <Unary kOp, class A>
RETORT_HD A unary_backward(A dy, A s, A a) {
  if constexpr (kOp == Unary::kAffine) return a * dy;
  if constexpr (kOp == Unary::kRelu) return activate_backward<Activation::kRelu>(dy, s);
  if constexpr (kOp == Unary::kExp) return dy * s;
  if constexpr (kOp == Unary::kLog) return dy / s;
  if constexpr (kOp == Unary::kSquare) return A(2) * s * dy;
  if constexpr (kOp == Unary::kSqrt) return dy / (A(2) * s);
  if constexpr (kOp == Unary::kTanh) return activate_backward<Activation::kTanh>(dy, s);
  if constexpr (kOp == Unary::kAbs) return s > A(0) ? dy : (s < A(0) ? -dy : A(0));
  if constexpr (kOp == Unary::kSigmoid) return dy * s * (A(1) - s);
  if constexpr (kOp == Unary::kGelu) return activate_backward<Activation::kGelu>(dy, s);
  if constexpr (kOp == Unary::kGeluTanh) return activate_backward<Activation::kGeluTanh>(dy, s);
}

template <Binary kOp, class A>
RETORT_HD A binary_forward(A x, A y) {
  if constexpr (kOp == Binary::kAdd) return x + y;
  if constexpr (kOp == Binary::kSubtract) return x - y;
  if constexpr (kOp == Binary::kMultiply) return x * y;
  if constexpr (kOp == Binary::kDivide) return x / y;
}

/// Calls f.operator()<kOp>().
template <class F>
void dispatch_unary(Unary op, F&& f) {
  switch (op) {
    case Unary::kAffine: return f.template operator()<Unary::kAffine>();
    case Unary::kRelu: return f.template operator()<Unary::kRelu>();
    case Unary::kExp: return f.template operator()<Unary::kExp>();
    case Unary::kLog: return f.template operator()<Unary::kLog>();
    case Unary::kSquare: return f.template operator()<Unary::kSquare>();
    case Unary::kSqrt: return f.template operator()<Unary::kSqrt>();
    case Unary::kTanh: return f.template operator()<Unary::kTanh>();
    case Unary::kAbs: return f.template operator()<Unary::kAbs>();
    case Unary::kSigmoid: return f.template operator()<Unary::kSigmoid>();
    case Unary::kGelu: return f.template operator()<Unary::kGelu>();
    case Unary::kGeluTanh: return f.template operator()<Unary::kGeluTanh>();
  }
}
template <class F>
void dispatch_binary(Binary op, F&& f) {
  switch (op) {
    case Binary::kAdd: return f.template operator()<Binary::kAdd>();
    case Binary::kSubtract: return f.template operator()<Binary::kSubtract>();
    case Binary::kMultiply: return f.template operator()<Binary::kMultiply>();
    case Binary::kDivide: return f.template operator()<Binary::kDivide>();
  }
}

/// Calls f.operator()<T>() for every element type.
template <class F>
void dispatch_any(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF64: return f.template operator()<double>();
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<bf16>();
    case DType::kF16: return f.template operator()<f16>();
    case DType::kI64: return f.template operator()<std::int64_t>();
    case DType::kI32: return f.template operator()<std::int32_t>();
    case DType::kU8: return f.template operator()<std::uint8_t>();
  }
}

/// One element from one type to another: floating types round to nearest even (f64 to a 16-bit type
/// by way of f32), floating to integer truncates towards zero and saturates (NaN becomes 0),
/// integer to integer keeps the low bits.
template <class To, class From>
RETORT_HD To convert(From x) {
  constexpr bool kFromFloat = !std::is_integral_v<From>;
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<To, bf16> || std::is_same_v<To, f16>) {
    if constexpr (kFromFloat)
      return from_float<To>(static_cast<float>(to_float(x)));
    else
      return from_float<To>(static_cast<float>(x));
  } else if constexpr (kFromFloat && std::is_integral_v<To>) {
    const double v = static_cast<double>(to_float(x));
    constexpr double kLow = std::is_same_v<To, std::uint8_t>   ? 0.0
                            : std::is_same_v<To, std::int32_t> ? -2147483648.0
                                                               : -9223372036854775808.0;
    constexpr double kHigh = std::is_same_v<To, std::uint8_t>   ? 255.0
                             : std::is_same_v<To, std::int32_t> ? 2147483647.0
                                                                : 9223372036854774784.0;
    if (!(v > kLow)) return v <= kLow ? static_cast<To>(kLow) : To(0);
    return static_cast<To>(v < kHigh ? v : kHigh);
  } else if constexpr (kFromFloat) {
    return static_cast<To>(to_float(x));
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace retort::kernels
