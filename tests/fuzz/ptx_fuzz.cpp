// libFuzzer target of the PTX parser and of lowering. By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -mavx2 -mfma
//     -mf16c -I. tests/fuzz/ptx_fuzz.cpp
//     tools/ptx/{parse,lower,fuse,registers,classes,alu,integers,floats,conversions,
//     address,load_store,async,collective,matrix,wgmma,machine,step}.cpp -o ptx_fuzz && ./ptx_fuzz
// tests/ptx/parse_test.cpp replays a fixed set of mutations in every test run.
#include <cstdint>
#include <string>

#include "tools/ptx/module.h"

/// Any bytes: a module whose kernels can each be lowered or are refused, or one Fault.
inline int fuzz_ptx(const std::string& bytes) {
  using namespace retort::ptx;
  try {
    const auto module = parse(bytes);
    for (const auto& [name, f] : module->functions) try {
        lower(*module, *f, bytes.size() % 2 == 0);
      } catch (const Fault&) {
      }
  } catch (const Fault&) {
  }
  return 0;
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz_ptx({reinterpret_cast<const char*>(data), size});
}
#endif
