// Samples of text in files: lines, JSON lines, columns of a table, questions of BioASQ.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/data/dataset.h"

namespace retort::nn {

/// A sample as its file has it: one text, a pair, or for multiple choice what the choices are about
/// and then the choices, each of which makes a pair with the first.
struct TextSample {
  std::vector<std::string> texts;
  std::int32_t label = -1;  // -1: none
};

/// Where samples stand in files, and which texts are theirs.
struct TextFormat {
  std::string kind = {};  // "text", "jsonl", "tsv", "bioasq"
  TextTask task = TextTask::kMaskedLm;
  // Fields (jsonl) or columns (tsv: a name or a number from 0).
  std::string text = {}, second = {}, label = {};
  std::vector<std::string> choices = {};  // fields of the choices; text is what they are about
  bool header = true;                     // tsv: the first line names the columns
  bool by_snippet = false;                // bioasq: a row a snippet; else a row a question

  bool labelled() const {
    return task == TextTask::kClassification || task == TextTask::kMultipleChoice;
  }
  std::size_t texts_per_sample() const;
  /// All of it as text: what a cache is made from beside the files.
  std::string str() const;
};

/// Labels are below this, so that one damaged cell does not ask for a layer of 2^31 classes.
inline constexpr std::int32_t kMostTextClasses = 65536;

/// Gives the samples of a file one after the other.
class TextReader {
 public:
  virtual ~TextReader() = default;
  /// False behind the last. Errors    kBadInput "FILE:LINE: byte B of the file: ..." for what is
  /// not as the format says; those of PackedLines.
  virtual bool next(TextSample* sample) = 0;
};

/// Opens a file, packed or not, in bounded memory (bioasq: the whole file, at most 1 GiB).
///
///   text    a line is a sample; empty lines count for nothing
///   jsonl   a line is a JSON object, of which the named fields are read
///   tsv     a line is a row of cells between tabs (no quotes, as GLUE has them)
///   bioasq  a JSON list of {question, answer: yes or no, snippets: [{text}]}, or an object that has
///           it as "questions". Pairs (question, context) of class 1 for yes; for multiple choice the
///           context and the question with " yes" and " no" behind it, 0 and 1.
std::unique_ptr<TextReader> open_text(const TextFormat& format, const std::string& path);

}  // namespace retort::nn
