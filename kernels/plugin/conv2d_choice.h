// What a library offers to the choice of a convolution's implementation.
#pragma once
#include <functional>
#include <vector>

#include "kernels/conv2d/conv2d_choice.h"

namespace retort::kernels {

/// One call of any pass: in0 and in1 are read, out is written. Without epilogue and statistics.
struct Conv2dCall {
  Conv2dPass pass;
  Conv2dShape shape;
  DType dtype, weight_dtype;
  const void* in0;  // x, dy, x
  const void* in1;  // weight, weight, dy
  void* out;        // y, dx, dweight
};

struct Conv2dLibraryCandidate {
  Conv2dChoice choice;
  std::function<bool(const Context&, const Conv2dCall&)> run;  // false: refuses
};

/// Null where no library was built in. Candidates are deterministic, and hold for every call of the
/// same sizes and dtypes.
using Conv2dLibrary = std::vector<Conv2dLibraryCandidate> (*)(const Context&, const Conv2dCall&,
                                                              bool tf32);
extern Conv2dLibrary conv2d_library_candidates;

}  // namespace retort::kernels
