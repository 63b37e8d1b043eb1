// libFuzzer targets of nn/text: vocab.txt, tokenizer.json, and text. By hand, for one of
// fuzz_vocab, fuzz_tokenizer_json, fuzz_text:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRETORT_FUZZ_MAIN=fuzz_text -I.
//     tests/fuzz/wordpiece_fuzz.cpp nn/text/*.cpp engine/io/*.cpp -lxxhash -o wordpiece_fuzz &&
//     ./wordpiece_fuzz
// tests/nn/text/tokenizer_test.cpp replays a fixed set of mutations in every test run.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/common/check.h"
#include "nn/text/tokenizer.h"

inline void expect_sound(const retort::nn::Tokenizer& tokenizer, const std::string& text) {
  for (const std::int32_t id : tokenizer.encode(text))
    if (id < 0 || id >= tokenizer.size()) std::abort();
}

/// Any bytes: one Error(kBadInput), or a tokenizer whose ids are in its vocabulary and whose
/// tokens are found again.
inline int fuzz_vocab(const std::string& bytes) {
  using namespace retort;
  try {
    const nn::Tokenizer tokenizer = nn::Tokenizer::parse_vocab(bytes, "fuzz.txt", true);
    for (std::int32_t id = 0; id < tokenizer.size(); ++id)
      if (!tokenizer.token(id).empty() && tokenizer.id(tokenizer.token(id)) != id) std::abort();
    expect_sound(tokenizer, bytes);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) std::abort();
  }
  return 0;
}

inline int fuzz_tokenizer_json(const std::string& bytes) {
  using namespace retort;
  try {
    const nn::Tokenizer tokenizer = nn::Tokenizer::parse_json(bytes, "fuzz.json");
    expect_sound(tokenizer, bytes);
    const nn::Encoding pair = tokenizer.encode_pair("a b", "c");
    if (pair.ids.size() != pair.types.size()) std::abort();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) std::abort();
  }
  return 0;
}

/// Any bytes as text: Error(kBadInput) exactly if they are not UTF-8; else ids of the vocabulary,
/// and the words of the text one by one give the same.
inline int fuzz_text(const std::string& bytes) {
  using namespace retort;
  static const nn::Tokenizer tokenizer = nn::Tokenizer::parse_vocab(
      "[UNK]\na\nb\n##a\n##b\n##ab\ne\n##e\n!\n\xcf\x82\n##\xcf\x82\n\xe4\xb8\xad\n", "v", true);
  try {
    expect_sound(tokenizer, bytes);
    if (nn::utf8_fault(bytes) != std::string::npos) std::abort();
    std::vector<std::int32_t> one_by_one;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t end = std::min(bytes.find(' ', at), bytes.size());
      tokenizer.append_ids(std::string_view(bytes).substr(at, end - at), one_by_one);
      at = end + 1;
    }
    if (one_by_one != tokenizer.encode(bytes)) std::abort();
    // Normalising twice is normalising once, but for lower case that has accents of its own.
    expect_sound(tokenizer, tokenizer.normalize(bytes));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput || nn::utf8_fault(bytes) == std::string::npos)
      std::abort();
  }
  return 0;
}

#if defined(RETORT_FUZZ_MAIN)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return RETORT_FUZZ_MAIN({reinterpret_cast<const char*>(data), size});
}
#endif
