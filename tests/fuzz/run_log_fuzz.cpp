// libFuzzer target of the readers of metrics.jsonl and curriculum files. By hand:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN -I.
//     tests/fuzz/run_log_fuzz.cpp tools/report/run_log.cpp engine/io/json.cpp engine/io/file.cpp
//     -lxxhash -o run_log_fuzz && ./run_log_fuzz
// tests/tools/report_test.cpp replays a fixed set of mutations in every test run.
#include <cstdlib>
#include <sstream>

#include "kernels/common/check.h"
#include "tools/report/run_log.h"

/// Any bytes: records, or one Error(kBadInput) that names the place.
int fuzz_run_log(const std::string& bytes) {
  using namespace retort;
  const auto never_else = [&](auto&& parse) {
    std::istringstream in(bytes);
    try {
      parse(in);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kBadInput) std::abort();
      if (std::string(error.what()).find("log:") == std::string::npos) std::abort();
    }
  };
  never_else([](std::istream& in) {
    for (const tools::LogRecord& record : tools::parse_run_log(in, "log"))
      for (const auto& [key, value] : record.numbers)
        if (record.texts.contains(key)) std::abort();  // a key is one of the two
  });
  never_else([](std::istream& in) { tools::parse_curriculum(in, "log"); });
  return 0;
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz_run_log({reinterpret_cast<const char*>(data), size});
}
#endif
