// How this processor and the emulated device round, as one number each.
#pragma once
#include <string>

namespace retort::tools {

/// A hash of the results of a fixed list of CPU kernel calls at shapes like those of golden_test's
/// runs. The order of additions of a product or a convolution depends on the instruction set and on
/// the caches (oneDNN, Highway), logarithms on libm and everything on the compiler's flags, so two
/// machines with one hash are expected to train the same weights, and others are not. Only entries
/// of kernels/ are called: what is built upon them is what golden_test guards. 16 digits.
std::string rounding_of_this_machine();

/// The same for a few calls on the emulated device. Its kernels are compiled for one instruction set
/// and order their sums themselves, so only compiler and libm are in it, and no processor.
std::string rounding_of_the_emulated_device();

/// What the two hang on besides our sources: processor's features and caches, libm, compiler and preset,
/// and of the emulated device the last three. 16 digits. The same machine that rounds otherwise has other
/// kernels.
std::string this_machine();
std::string machine_of_the_emulated_device();

}  // namespace retort::tools
