// libFuzzer target of the reader of curriculum files. By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -I.
//     tests/fuzz/order_file_fuzz.cpp curriculum/ordering/order*.cpp curriculum/sampling/perm*.cpp
//     curriculum/scoring/*.cpp nn/options.cpp engine/io/file.cpp -lxxhash -o order_file_fuzz
// tests/curriculum/ordering/order_file_test.cpp replays a fixed set of mutations in every test run.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "curriculum/ordering/order_file.h"
#include "kernels/common/check.h"

/// Any bytes: a file that is written and read as the same, or one Error(kBadInput) with its place.
/// True if it was a file.
inline bool fuzz_order_file(const std::string& bytes) {
  using namespace retort;
  try {
    const curriculum::OrderFile file = curriculum::read_order_csv(bytes, "file");
    const auto finite = [](float score) { return std::isfinite(score); };
    if (!std::all_of(file.scores.begin(), file.scores.end(), finite)) std::abort();
    if (!file.ranked) return true;
    const auto text = order_csv(file.order, file.labels, file.scores, file.correct);
    const curriculum::OrderFile again = curriculum::read_order_csv(text, "again");
    if (again.order != file.order || again.scores != file.scores || again.labels != file.labels ||
        again.correct != file.correct)
      std::abort();
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) std::abort();
    if (std::string(error.what()).find("file:") != 0) std::abort();
    return false;
  }
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz_order_file({reinterpret_cast<const char*>(data), size});
  return 0;
}
#endif
