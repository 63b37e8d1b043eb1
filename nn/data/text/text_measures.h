// What can be said of a text without a model: the heuristics of curricula for language.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nn/text/tokenizer.h"

namespace retort::nn {

/// A word is a token that does not go on another one, with those that go on it (##...); tokens of
/// ASCII punctuation alone are none. A sentence ends with ".", "!" or "?".
///
///   text_length      tokens, special ones aside
///   sentence_length  words / sentences; a text that ends without a mark has one more sentence
///   word_frequency   mean over words of -log(count of the word in all texts / words in all texts),
///                    nats: high for rare words
///   diction          distinct words among the first 100 / their number, (0, 1]
///
/// (N) each; NaN where a text has no word, text_length aside. High is hard.
/// Source    proposed as text heuristics by the curriculum paper of 2023; the type-token ratio of a
///           fixed number of words, so that it does not fall with length.
struct TextMeasures {
  std::vector<float> text_length, sentence_length, word_frequency, diction;
};

/// ids(i) are those of text i. Memory    a count for each distinct word (about 50 bytes), and 4
/// numbers a text.
TextMeasures measure_texts(const Tokenizer& tokenizer, std::int64_t texts,
                           const std::function<std::vector<std::int32_t>(std::int64_t)>& ids);

}  // namespace retort::nn
