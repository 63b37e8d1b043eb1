// libFuzzer target of the readers of tables; the first byte says which. By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -I.
//     tests/fuzz/table_fuzz.cpp -Lbuild/asan/lib -lretort -o table_fuzz
// tests/nn/data/table_test.cpp replays a fixed set of mutations in every test run.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "nn/data/table.h"

/// Any bytes: a table whose every cell is right, or one Error(kBadInput) that begins with the name.
/// True if it was a table.
inline bool fuzz_table(const std::string& bytes) {
  using namespace retort;
  if (bytes.empty()) return false;
  const std::string text = bytes.substr(1);
  try {
    nn::Table table;
    if (bytes[0] == 'c') {
      table = nn::parse_csv(text, {}, "file");
    } else {  // the labels lie behind the numbers, after a mark
      const std::size_t mark = text.find("|y|");
      if (mark == std::string::npos) return false;
      table = nn::parse_npy_pair(text.substr(0, mark), "file", text.substr(mark + 3), "file");
    }
    if (table.rows() < 1 || table.columns < 1) std::abort();
    if (table.values.size() != static_cast<std::size_t>(table.rows() * table.columns)) std::abort();
    for (const float value : table.values)
      if (!std::isfinite(value)) std::abort();
    for (const std::int32_t label : table.labels)
      if (label < 0 || label >= nn::kMostTableClasses) std::abort();
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) std::abort();
    if (std::string(error.what()).find("file:") != 0) std::abort();
    return false;
  }
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz_table({reinterpret_cast<const char*>(data), size});
  return 0;
}
#endif
