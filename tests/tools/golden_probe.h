// How this processor rounds, as one number.
#pragma once
#include <string>

namespace retort::tools {

/// A hash of the results of a fixed list of CPU kernel calls at shapes like those of golden_test's
/// runs. The order of additions of a product or a convolution depends on the instruction set and on
/// the caches (oneDNN, Highway), logarithms on libm and everything on the compiler's flags, so two
/// machines with one hash are expected to train the same weights, and others are not. Only entries
/// of kernels/ are called: what is built upon them is what golden_test guards. 16 digits.
std::string rounding_of_this_machine();

}  // namespace retort::tools
