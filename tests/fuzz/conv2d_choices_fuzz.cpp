// Fuzz target of the convolution's choice file: any bytes are either refused with Error(kBadInput),
// or accepted, and then writing them and reading that gives the same choices.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//     tests/fuzz/conv2d_choices_fuzz.cpp kernels/conv2d/conv2d_choice_file.cpp
//     -Lbuild/lib -lretort -Wl,-rpath,build/lib -o conv2d_choices_fuzz
// tests/kernels/conv2d_choice_test.cpp runs it on damaged files.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/conv2d/conv2d_choice.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retort;
  const auto expect = [](bool condition) {
    if (!condition) std::abort();
  };
  try {
    const kernels::Conv2dChoiceFile file =
        kernels::parse_conv2d_choices(std::string(reinterpret_cast<const char*>(data), size));
    const kernels::Conv2dChoiceFile again =
        kernels::parse_conv2d_choices(kernels::write_conv2d_choices(file));
    expect(again.environment == file.environment && again.choices.size() == file.choices.size());
    for (const auto& [problem, choice] : file.choices) {
      const auto found = again.choices.find(problem);
      expect(found != again.choices.end() && found->second.same_as(choice));
    }
  } catch (const Error& e) {
    expect(e.code() == ErrorCode::kBadInput);
  }
  return 0;
}
