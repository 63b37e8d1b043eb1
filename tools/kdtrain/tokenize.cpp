// kdtrain tokenize: a text a line in, a JSON list of ids a line out.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "kernels/common/check.h"
#include "nn/text/tokenizer.h"
#include "nn/text/utf8.h"
#include "tools/kdtrain/command_line.h"

namespace retort::tools {
namespace {

nn::Tokenizer tokenizer_of(const CommandLine& line) {
  RETORT_CHECK(line.vocab.empty() != line.tokenizer.empty(),
               "tokenize: expected either --vocab FILE or --tokenizer FILE");
  if (!line.tokenizer.empty()) {
    RETORT_CHECK(!line.cased && !line.uncased,
                 "tokenize: --cased and --uncased go with --vocab; tokenizer.json says it itself");
    return nn::Tokenizer::from_json(line.tokenizer);
  }
  RETORT_CHECK(line.cased != line.uncased, "tokenize: --vocab needs either --cased or --uncased");
  return nn::Tokenizer::from_vocab(line.vocab, line.uncased);
}

void append_list(const std::vector<std::int32_t>& ids, std::string& out) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    char digits[16];
    if (i > 0) out += ", ";
    out.append(digits, std::to_chars(digits, digits + sizeof digits, ids[i]).ptr);
  }
  out += "]\n";
}

// What has to be said before a line is looked at: a file that is no text is named by its byte.
void check_text(std::string_view text, std::uint64_t line, std::uint64_t offset) {
  const std::size_t fault = nn::utf8_fault(text), zero = text.find('\0');
  const std::size_t at = std::min(fault, zero);
  RETORT_CHECK_AS(kBadInput, at == std::string_view::npos, "standard input:", line, ": byte ",
                  offset + at + 1, " of the input: expected UTF-8 text, got ",
                  at == zero ? "U+0000" : "an invalid byte");
}

}  // namespace

int tokenize_command(const CommandLine& line) {
  const nn::Tokenizer tokenizer = tokenizer_of(line);
  std::string waiting, out;  // the start of a line that is not all here yet; what is to be printed
  std::vector<std::int32_t> ids;
  std::uint64_t lines = 0, offset = 0;
  const auto one = [&](std::string_view text) {
    check_text(text, ++lines, offset);
    offset += text.size() + 1;
    ids.clear();
    tokenizer.append_ids(text, ids);
    append_list(ids, out);
  };
  const auto print = [&] {
    RETORT_CHECK_AS(kIo, std::fwrite(out.data(), 1, out.size(), stdout) == out.size(),
                    "writing to standard output failed");
    out.clear();
  };
  std::vector<char> block(std::size_t{1} << 18);
  try {
    while (const std::size_t n = std::fread(block.data(), 1, block.size(), stdin)) {
      std::string_view rest(block.data(), n);
      for (std::size_t end = rest.find('\n'); end != std::string_view::npos;
           end = rest.find('\n')) {
        if (waiting.empty()) {
          one(rest.substr(0, end));
        } else {
          waiting += rest.substr(0, end);
          one(waiting);
          waiting.clear();
        }
        rest.remove_prefix(end + 1);
      }
      waiting += rest;
      print();
    }
    RETORT_CHECK_AS(kIo, std::ferror(stdin) == 0, "reading standard input failed");
    if (!waiting.empty()) one(waiting);
  } catch (...) {
    std::fwrite(out.data(), 1, out.size(), stdout);  // the lines before the one that is refused
    throw;
  }
  print();
  return 0;
}

}  // namespace retort::tools
