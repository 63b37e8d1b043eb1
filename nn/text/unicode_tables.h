// The tables that make_unicode_tables.py writes: Unicode 14.0.0, and what the Rust tokenizers
// library does otherwise (`_rust`). Read by nn/text/normalizer.cpp alone.
#pragma once
#include <cstdint>
#include <span>

namespace retort::nn::detail {

/// Sets of characters are run lengths: so many outside, so many inside, and so on from U+0000. Of
/// the Rust library they are the characters on which it disagrees.
///
/// Mappings to one character are runs of five: gap from the start of the run before, count, step of
/// the character, distance to what it becomes, step of that. `_several` are (character, count,
/// characters ...). Those of the Rust library come on top.
struct UnicodeTables {
  using Numbers = std::span<const std::int32_t>;
  Numbers control, control_rust;          // removed by clean_text
  Numbers punctuation, punctuation_rust;  // a word of its own
  Numbers mark, mark_rust;                // removed with the accents
  Numbers barrier, barrier_rust;          // of those: marks are not reordered across it
  Numbers strip, strip_several, strip_rust, strip_rust_several;  // NFD without marks, but Hangul
  Numbers lower, lower_several, lower_rust, lower_rust_several;  // lower case
  Numbers order, order_rust;  // (gap, count, class): marks that stay and that NFD sorts
  Numbers cased, ignorable;   // what the final sigma of the reference looks at
  Numbers word_rust;          // \w of Rust's regular expressions
};

const UnicodeTables& unicode_tables();

}  // namespace retort::nn::detail
