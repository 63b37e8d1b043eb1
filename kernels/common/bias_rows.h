// The bias and activation of some rows on the calling thread of the CPU: the end of a matrix
// product.
#pragma once
#include <cstdint>

#include "kernels/common/activation.h"

namespace retort::kernels {

/// y[r, c] = f(x[r, c] + (bias ? bias[c] : 0)), f the activation; rows `pitch` elements apart in
/// both. y may be x. T is double, float or bf16. Arithmetic of kernels::bias.
template <class T>
void bias_rows(T* y, const T* x, const T* bias, std::int64_t rows, std::int64_t columns,
               std::int64_t pitch, Activation activation);

}  // namespace retort::kernels
