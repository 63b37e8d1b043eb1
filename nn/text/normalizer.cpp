#include "nn/text/normalizer.h"

#include <algorithm>
#include <map>

#include "kernels/common/check.h"

namespace retort::nn {
namespace {

using Numbers = detail::UnicodeTables::Numbers;
using Table = std::map<char32_t, std::u32string>;

constexpr std::size_t kNowhere = std::string::npos;
constexpr char32_t kCapitalSigma = 0x3a3, kSmallSigma = 0x3c3, kFinalSigma = 0x3c2;

constexpr std::pair<char32_t, char32_t> kSpaces[] = {
    {9, 13},          {32, 32},         {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
    {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};

// The blocks that both implementations name; the sixth begins at 0x2b820 in the reference, and by a
// slip at 0x2b920 in tokenizers.
constexpr std::pair<char32_t, char32_t> kCjkBlocks[] = {
    {0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
    {0x2b740, 0x2b81f}, {0x2b820, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
constexpr char32_t kReferenceBlock = 0x2b820, kRustBlock = 0x2b920;

constexpr char32_t kHangul = 0xac00, kHangulEnd = 0xd7a4;

bool is_hangul(char32_t c) { return c >= kHangul && c < kHangulEnd; }

// The Unicode Standard, 3.12: a syllable is a leading consonant, a vowel and maybe a trailing one.
std::u32string decomposed_hangul(char32_t c) {
  const char32_t s = c - kHangul;
  std::u32string jamo{0x1100 + s / 588, 0x1161 + s % 588 / 28};
  if (s % 28 != 0) jamo += 0x11a7 + s % 28;
  return jamo;
}

char32_t code(std::int32_t number) { return static_cast<char32_t>(number); }

void read_mappings(Numbers runs, Numbers several, Table& table) {
  std::int32_t at = 0;
  for (std::size_t i = 0; i < runs.size(); i += 5) {
    at += runs[i];
    for (std::int32_t k = 0; k < runs[i + 1]; ++k) {
      const std::int32_t c = at + k * runs[i + 2];
      table[code(c)] = code(at + runs[i + 3] + k * runs[i + 4]);
    }
  }
  for (std::size_t i = 0; i < several.size();) {
    std::u32string& to = table[code(several[i])];
    to.clear();
    const auto count = static_cast<std::size_t>(several[i + 1]);
    for (std::size_t k = 0; k < count; ++k) to += code(several[i + 2 + k]);
    i += 2 + count;
  }
}

}  // namespace

CharacterSet::CharacterSet(std::span<const std::int32_t> run_lengths) {
  char32_t at = 0;
  for (const std::int32_t length : run_lengths) bounds_.push_back(at += code(length));
}

bool CharacterSet::contains(char32_t c) const {
  return (std::upper_bound(bounds_.begin(), bounds_.end(), c) - bounds_.begin()) % 2 == 1;
}

bool is_white_space(char32_t c) {
  return std::any_of(std::begin(kSpaces), std::end(kSpaces),
                     [&](const auto& range) { return c >= range.first && c <= range.second; });
}

bool is_word_character(char32_t c) {
  static const CharacterSet word(detail::unicode_tables().word_rust);
  return word.contains(c);
}

Normalizer::Normalizer(const NormalizerOptions& options) : options_(options), traits_(0x110000, 0) {
  const detail::UnicodeTables& t = detail::unicode_tables();
  const bool rust = options.rules == TextRules::kRust;
  const auto both = [&](Numbers base, Numbers difference, std::uint8_t trait) {
    set(base, trait, false);
    if (rust) set(difference, trait, true);
  };
  for (const auto& [first, last] : kSpaces)
    for (char32_t c = first; c <= last; ++c)
      traits_[c] |= options.clean_text ? kWhite | kBlank : kWhite;
  both(t.punctuation, t.punctuation_rust, kPunctuation);
  if (options.clean_text) both(t.control, t.control_rust, kRemoved);
  if (options.separate_cjk)
    for (const auto& [first, last] : kCjkBlocks)
      for (char32_t c = rust && first == kReferenceBlock ? kRustBlock : first; c <= last; ++c)
        traits_[c] |= kCjk;
  if (options.strip_accents) {
    both(t.mark, t.mark_rust, kMark);
    both(t.barrier, t.barrier_rust, kOrder);
    const Numbers runs = rust ? t.order_rust : t.order;
    char32_t at = 0;
    for (std::size_t i = 0; i < runs.size(); i += 3) {
      at += code(runs[i]);
      for (char32_t c = at; c < at + code(runs[i + 1]); ++c) {
        orders_.emplace_back(c, runs[i + 2]);
        traits_[c] |= kOrder;
      }
    }
  }
  add_mappings();
  if (!rust && options.lower_case) {
    cased_ = CharacterSet(t.cased);
    ignorable_ = CharacterSet(t.ignorable);
  }
  for (std::size_t b = 0; b < 256; ++b) {
    const std::uint8_t traits = traits_[b];
    ascii_[b] = b >= 0x80 || b == 0 || (traits & kRemoved) ? Ascii::kOther
                : traits & kWhite                          ? Ascii::kSpace
                : traits & kPunctuation                    ? Ascii::kPunctuation
                                                           : Ascii::kLetter;
    const bool capital = options.lower_case && b >= 'A' && b <= 'Z';
    ascii_lower_[b] = static_cast<std::uint8_t>(capital ? b + 32 : b);
  }
}

void Normalizer::set(Numbers run_lengths, std::uint8_t trait, bool toggle) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < run_lengths.size(); ++i) {
    const std::size_t end = at + static_cast<std::size_t>(run_lengths[i]);
    if (i % 2 == 1)
      for (std::size_t c = at; c < end; ++c)
        traits_[c] = static_cast<std::uint8_t>(toggle ? traits_[c] ^ trait : traits_[c] | trait);
    at = end;
  }
}

// What each character becomes by lower case and NFD without marks, in the order of the rules.
void Normalizer::add_mappings() {
  const detail::UnicodeTables& t = detail::unicode_tables();
  const bool rust = options_.rules == TextRules::kRust;
  Table strip, lower;
  if (options_.strip_accents) {
    read_mappings(t.strip, t.strip_several, strip);
    if (rust) read_mappings(t.strip_rust, t.strip_rust_several, strip);
    for (char32_t c = kHangul; c < kHangulEnd; ++c) traits_[c] |= kMapped;  // by arithmetic
  }
  if (options_.lower_case) {
    read_mappings(t.lower, t.lower_several, lower);
    if (rust) read_mappings(t.lower_rust, t.lower_rust_several, lower);
  }
  const auto apply = [&](const Table& table, const std::u32string& text, bool strips) {
    std::u32string out;
    for (const char32_t c : text) {
      if (strips && (traits_[c] & kMark)) continue;
      const auto found = table.find(c);
      out += found == table.end() ? std::u32string(1, c) : found->second;
    }
    return out;
  };
  Table all = strip;
  all.insert(lower.begin(), lower.end());
  for (const auto& [c, unused] : all) {
    if (traits_[c] & kMark) continue;
    const std::u32string one(1, c);
    const std::u32string to = rust ? apply(lower, apply(strip, one, options_.strip_accents), false)
                                   : apply(strip, apply(lower, one, false), options_.strip_accents);
    if (to == one) continue;
    mappings_.push_back(
        {c, static_cast<std::uint32_t>(mapped_.size()), static_cast<std::uint32_t>(to.size())});
    mapped_.insert(mapped_.end(), to.begin(), to.end());
    traits_[c] |= kMapped;
  }
}

std::span<const char32_t> Normalizer::mapping(char32_t c) const {
  const auto found = std::lower_bound(mappings_.begin(), mappings_.end(), c,
                                      [](const Mapping& m, char32_t x) { return m.from < x; });
  return std::span(mapped_).subspan(found->first, found->count);
}

int Normalizer::order(char32_t c) const {
  const auto found = std::lower_bound(orders_.begin(), orders_.end(), std::pair{c, 0});
  return found != orders_.end() && found->first == c ? found->second : 0;
}

// Writes characters and keeps NFD's order: within a run of marks without a starter, ascending by
// combining class, those of one class as they came.
class Normalizer::Output {
 public:
  Output(const Normalizer& rules, std::string& out) : rules_(rules), out_(out) {}

  void put(char32_t c) {
    if (!(rules_.traits_[c] & kOrder)) {
      end_run();
      utf8_append(out_, c);
      return;
    }
    if (run_ == kNowhere) run_ = out_.size();
    std::size_t at = out_.size();
    while (at > run_) {
      const Utf8Char before = utf8_before(out_, at);
      if (rules_.order(before.code) <= rules_.order(c)) break;
      at -= before.bytes;
    }
    std::string mark;
    utf8_append(mark, c);
    out_.insert(at, mark);
  }
  void end_run() { run_ = kNowhere; }

 private:
  const Normalizer& rules_;
  std::string& out_;
  std::size_t run_ = kNowhere;  // where the run of marks began
};

void Normalizer::append(std::string_view text, std::size_t begin, std::size_t end,
                        std::string& out) const {
  Output output(*this, out);
  for (std::size_t i = begin; i < end;) {
    const auto [c, bytes] = utf8_at(text, i);
    RETORT_CHECK_AS(kBadInput, bytes != 0, "[tokenizer] byte ", i, " of the text is not UTF-8");
    const std::uint8_t traits = traits_[c];
    const std::size_t at = i;
    i += bytes;
    if (traits & kRemoved) continue;
    if (traits & kBlank) {
      output.put(' ');
      continue;
    }
    if (traits & kMark) {
      if (traits & kOrder) output.end_run();
      continue;
    }
    if (traits & kCjk) output.put(' ');
    if (!(traits & kMapped))
      output.put(c);
    else if (is_hangul(c))
      for (const char32_t jamo : decomposed_hangul(c)) output.put(jamo);
    else if (c == kCapitalSigma && options_.rules == TextRules::kReference)
      output.put(is_final_sigma(text, at) ? kFinalSigma : kSmallSigma);
    else
      for (const char32_t x : mapping(c)) output.put(x);
    if (traits & kCjk) output.put(' ');
  }
}

std::string Normalizer::normalize(std::string_view text) const {
  std::string out;
  append(text, 0, text.size(), out);
  return out;
}

// The Unicode Standard, 3.13, Final_Sigma, as Python's str.lower has it: within the word, a cased
// character before and none after, case-ignorable ones not counted.
bool Normalizer::is_final_sigma(std::string_view text, std::size_t at) const {
  enum class Seen : std::uint8_t { kNothing, kCased, kGoOn };
  const auto look = [&](char32_t c) {
    const std::uint8_t traits = traits_[c];
    if (traits & kRemoved) return Seen::kGoOn;
    if (traits & (kWhite | kCjk)) return Seen::kNothing;  // another word
    if (ignorable_.contains(c)) return Seen::kGoOn;
    return cased_.contains(c) ? Seen::kCased : Seen::kNothing;
  };
  Seen before = Seen::kGoOn, after = Seen::kGoOn;
  for (std::size_t i = at; i > 0 && before == Seen::kGoOn;) {
    const Utf8Char c = utf8_before(text, i);
    if (c.bytes == 0) break;  // refused when it was read
    before = look(c.code);
    i -= c.bytes;
  }
  for (std::size_t i = at + 2; i < text.size() && after == Seen::kGoOn;) {
    const Utf8Char c = utf8_at(text, i);
    if (c.bytes == 0) break;  // refused when it is read
    after = look(c.code);
    i += c.bytes;
  }
  return before == Seen::kCased && after != Seen::kCased;
}

}  // namespace retort::nn
