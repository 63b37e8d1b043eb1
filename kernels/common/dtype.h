// Element types of tensors, their sizes and names, and the step from a run-time dtype to a C++
// type.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/common/bf16.h"
#include "kernels/common/check.h"

namespace retort {

enum class DType : std::uint8_t { kF64, kF32, kBF16, kF16, kI64, kI32, kU8 };

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64: return 8;
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16: return 2;
    case DType::kU8: return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kF64: return "f64";
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF16: return "f16";
    case DType::kI64: return "i64";
    case DType::kI32: return "i32";
    case DType::kU8: return "u8";
  }
  return "?";
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16 ||
         dtype == DType::kF16;
}

template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, double>)
    return DType::kF64;
  else if constexpr (std::is_same_v<T, float>)
    return DType::kF32;
  else if constexpr (std::is_same_v<T, bf16>)
    return DType::kBF16;
  else if constexpr (std::is_same_v<T, f16>)
    return DType::kF16;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return DType::kI64;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return DType::kI32;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return DType::kU8;
  else
    static_assert(!sizeof(T), "no DType for this C++ type");
}();

/// The type sums are kept in: double for f64, else float.
template <class T>
struct accumulator {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};
template <class T>
using accumulator_t = typename accumulator<T>::type;

/// Calls f.operator()<T>() for the three types that training uses: double, float, bf16.
template <class F>
decltype(auto) dispatch_float(DType dtype, const char* op, F&& f) {
  switch (dtype) {
    case DType::kF64: return std::forward<F>(f).template operator()<double>();
    case DType::kF32: return std::forward<F>(f).template operator()<float>();
    case DType::kBF16: return std::forward<F>(f).template operator()<bf16>();
    default: fail(ErrorCode::kUsage, "[", op, "] expected f64, f32 or bf16, got ", name_of(dtype));
  }
}

/// Calls f with std::true_type or std::false_type.
template <class F>
decltype(auto) dispatch_bool(bool value, F&& f) {
  if (value) return std::forward<F>(f)(std::true_type{});
  return std::forward<F>(f)(std::false_type{});
}

}  // namespace retort
