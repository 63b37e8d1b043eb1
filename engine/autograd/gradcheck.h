// Backward against central differences, in double on the CPU.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"

namespace retort {

struct GradcheckResult {
  bool ok = false;
  std::string message;     // what was compared, or the worst entry if it failed
  double worst_error = 0;  // largest |analytic - numeric| / (atol + rtol * |numeric|)
  explicit operator bool() const { return ok; }
};

/// Compares the gradients of f with central differences (f(x + eps) - f(x - eps)) / (2 eps).
///
/// f must be a pure function of its inputs. Checked are the inputs that require a gradient, or all
/// f64 inputs if none does. A result of at most 64 elements has its whole Jacobian checked; a
/// larger one has 8 fixed random projections of it checked. An entry passes if
/// |analytic - numeric| <= atol + rtol * |numeric|; NaN fails. Move inputs off kinks first.
///
/// Shapes    any; cost is (2 * elements of the inputs) forwards, plus a backward per row.
/// Errors    Error if an input to check is not f64 on the CPU.
/// Source    PyTorch torch.autograd.gradcheck: the defaults of eps, atol and rtol.
GradcheckResult gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                          const std::vector<Tensor>& inputs, double eps = 1e-6, double atol = 1e-5,
                          double rtol = 1e-3);

}  // namespace retort
