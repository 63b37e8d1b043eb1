// Which convolutions CUDA runs in a test program.
#pragma once
#include <cstdlib>
#include <string_view>

namespace retort::test {

/// Asks for the hand-written kernels unless RETORT_CONV2D is set: on a GPU the choice between them
/// and a library's is measured (kernels/conv2d/conv2d_choice.h), so a first call launches
/// candidates, and two shapes or alignments may get different algorithms. To be called before the
/// first convolution.
inline void ask_for_own_convolutions() { setenv("RETORT_CONV2D", "own", /*overwrite=*/0); }

/// For tests that count launches or compare bytes across alignments or kinds of epilogue.
inline bool convolutions_are_own() {
  const char* const mode = std::getenv("RETORT_CONV2D");
  return mode != nullptr && std::string_view(mode) == "own";
}

}  // namespace retort::test
