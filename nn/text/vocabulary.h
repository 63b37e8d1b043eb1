// The words that a model's ids stand for, as the files beside its weights have them.
#pragma once
#include <span>
#include <string>
#include <vector>

namespace retort::nn {

/// Tokens by id; "" where an id has none.
struct Vocabulary {
  std::string name;  // for messages: the file
  std::vector<std::string> tokens;
};

/// Of a folder's vocab.txt, else its tokenizer.json (of any model with a map of tokens), else
/// vocab.json; without tokens if it has none of them.
/// Errors    those of Tokenizer's readers; kBadInput for JSON of another make.
Vocabulary read_vocabulary(const std::string& folder);

/// Error(kBadInput) naming the first id that stands for two words: "... id 7 is 'cat' in A and
/// 'dog' in B", or for a word in one and for none in the other, beyond its end. Ids without a word
/// agree with everything, and so do vocabularies without tokens.
void check_same_words(const Vocabulary& a, const Vocabulary& b);

}  // namespace retort::nn
