// BioASQ's yes/no questions: rows of a file, and the splits that were made of them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/data/text/text_files.h"

namespace retort::nn {

/// A row: a question with a context, and which question of the file it is.
struct BioasqRow {
  std::string question, context;
  bool yes = false;
  std::int64_t number = 0;  // of the question
};

/// The rows of a file in its order: a row a snippet, or a row a question with all its snippets, a
/// space between two. Questions without a snippet have no row of the first kind, and an empty
/// context in the second.
/// Errors    kBadInput with file and JSON pointer.
std::vector<BioasqRow> read_bioasq(const std::string& path, bool by_snippet);

/// Which rows are whose: parts "train", "validation", "test".
struct BioasqSplit {
  enum class Kind : std::uint8_t {
    kOfficial,  // the files as they are
    kPaper,     // the first per_class rows of each answer, shuffled, cut 1500 : 100 : 166
    kGrouped,   // the same rows and shares, but no question in two parts
  };
  Kind kind = Kind::kOfficial;
  bool undersample = false;      // kOfficial, "train": as many rows of each answer, the first ones
  std::int64_t per_class = 883;  // kPaper, kGrouped; fewer where there are fewer
  std::uint64_t seed = 42;       // of the shuffle, which is ours: which rows the paper drew is lost
};

/// The rows of one part, in the order in which they are fed.
///
/// kPaper     part sizes are floor(n 1500 / 1766), floor(n 100 / 1766) and the rest of n rows
/// kGrouped   questions are shuffled and dealt to test, validation and train, each until it has its
///            rows: parts are larger than those by less than one question's rows.
/// Source     the split of the curriculum paper of 2023 of language models.
/// Errors     kUsage for another part; kBadInput if there are not rows of both answers.
std::vector<BioasqRow> part_of(std::vector<BioasqRow> rows, const BioasqSplit& split,
                               const std::string& part);

/// Rows as samples (text_files.h says which texts are theirs).
std::unique_ptr<TextReader> samples_of(const TextFormat& format, std::vector<BioasqRow> rows);
std::unique_ptr<TextReader> open_bioasq(const TextFormat& format, const std::string& path);

}  // namespace retort::nn
