// libFuzzer target of the JSON reader (manifests, states, headers). By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -I.
//     tests/fuzz/json_fuzz.cpp engine/io/json.cpp engine/io/file.cpp -lxxhash -o json_fuzz &&
//     ./json_fuzz
// tests/engine/io/json_test.cpp replays a fixed set of mutations in every test run.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/io/json.h"

/// Any bytes: one Error(kBadInput), or a value whose text reads back as the same text.
inline int fuzz_json(const std::string& bytes) {
  using namespace retort;
  try {
    const std::string once = Json::parse(bytes, "fuzz.json").dump();
    if (Json::parse(once, "fuzz.json").dump() != once) std::abort();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) std::abort();
  }
  return 0;
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz_json({reinterpret_cast<const char*>(data), size});
}
#endif
