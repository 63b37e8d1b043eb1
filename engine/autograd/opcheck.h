// Checks of an op that its author need not write: one call, every promise that ops make here.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/autograd/custom_op.h"
#include "engine/tensor/tensor.h"

namespace retort {

struct OpcheckOptions {
  double rtol = 0, atol = 0;  // of CUDA against CPU; 0: by dtype, as the project's own tests
  double eps = 1e-6, gradient_atol = 1e-5, gradient_rtol = 1e-3;  // of the gradient check
  bool cuda = true;       // compare with CUDA where there is a backend and the op has a version
  bool gradients = true;  // false: the op is not meant to be differentiated
};

struct OpcheckLine {
  enum Outcome { kPassed, kFailed, kSkipped } outcome;
  std::string check;  // "inputs are left alone", ...
  std::string text;   // what was found, or why it was skipped
};

struct OpcheckReport {
  std::vector<OpcheckLine> lines;
  bool ok() const;
  explicit operator bool() const { return ok(); }
  std::string str() const;  // one line per check
};

/// Runs the op on each sample (a list of inputs) and checks that
///   - the shape rule is what forward produces, and inputs that do not fit throw Error;
///   - every element of the result and of the gradients is written (memory poisoned two ways);
///   - inputs, saved tensors and the incoming gradient are left alone;
///   - two runs give the same bits, forward and backward, and a gradient does not depend on which
///     others are wanted;
///   - rows with a pitch, pointers off 16-byte alignment and empty inputs work (an Error for empty
///     inputs is fine);
///   - CUDA agrees with the CPU, forward and backward;
///   - backward agrees with central differences in f64 (skipped if the op refuses f64).
///
/// Floating inputs take part in the gradients if they require one, or all of them if none does.
/// Errors    none for a bad op: what it throws becomes a failed line.
OpcheckReport opcheck(const CustomOp& op, const std::vector<std::vector<Tensor>>& samples,
                      const OpcheckOptions& options = {});

/// The same for any function on tensors; of the poison check only what needs no hook is done.
OpcheckReport opcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                      const std::vector<std::vector<Tensor>>& samples,
                      const OpcheckOptions& options = {});

}  // namespace retort
