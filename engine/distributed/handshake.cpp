#include "engine/distributed/handshake.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "engine/io/file.h"
#include "retort_abi_hash.h"

namespace retort {
namespace {

using Field = Handshake::Field;

// Each string as its length and its bytes.
std::string packed(const std::vector<Field>& fields) {
  std::string out;
  const auto add = [&](const std::string& text) {
    const std::uint64_t size = text.size();
    out.append(reinterpret_cast<const char*>(&size), sizeof size).append(text);
  };
  for (const Field& field : fields) add(field.name), add(field.value);
  return out;
}

std::vector<Field> unpacked(std::string_view text) {
  const auto take = [&] {
    std::uint64_t size = 0;
    if (text.size() >= sizeof size) std::memcpy(&size, text.data(), sizeof size);
    text.remove_prefix(std::min(sizeof size, text.size()));
    const std::string word(text.substr(0, size));
    text.remove_prefix(word.size());
    return word;
  };
  std::vector<Field> fields;
  while (!text.empty()) {
    std::string name = take();
    fields.push_back({std::move(name), take()});
  }
  return fields;
}

const std::string* value_of(const std::vector<Field>& fields, const std::string& name) {
  for (const Field& field : fields)
    if (field.name == name) return &field.value;
  return nullptr;
}

// The first field in which `theirs` differs from those of rank 0, as the end of a sentence.
std::string difference_from_first(const std::vector<Field>& first,
                                  const std::vector<Field>& theirs) {
  const auto shown = [](const std::string* value) {
    return value == nullptr ? std::string("none") : value->empty() ? "''" : escaped(*value, 200);
  };
  const auto compare = [&](const std::string& name) {
    const std::string *const want = value_of(first, name), *const got = value_of(theirs, name);
    if ((want == nullptr) == (got == nullptr) && (want == nullptr || *want == *got))
      return std::string();
    return join(" has other ", escaped(name, 200), ": ", shown(got), " instead of ", shown(want));
  };
  for (const std::vector<Field>* fields : {&first, &theirs})
    for (const Field& field : *fields)
      if (std::string text = compare(field.name); !text.empty()) return text;
  return "";
}

}  // namespace

Handshake& Handshake::add(std::string name, std::string value) {
  RETORT_CHECK(!name.empty() && value_of(fields_, name) == nullptr,
               "[handshake] expected a new name, got '", escaped(name), "'");
  fields_.push_back({std::move(name), std::move(value)});
  return *this;
}

std::string Handshake::difference(std::span<const std::vector<Field>> of_ranks,
                                  std::span<const std::string> hosts) {
  std::string sentence;
  int others = 0;
  for (std::size_t rank = 1; rank < of_ranks.size(); ++rank) {
    const std::string end = difference_from_first(of_ranks[0], of_ranks[rank]);
    if (end.empty()) continue;
    if (sentence.empty())
      sentence = join("rank ", rank, " (", hosts[rank], ")", end);
    else
      ++others;
  }
  if (others > 0) sentence += join(", and ", others, " more ranks differ from rank 0");
  return sentence;
}

void Handshake::compare(Communicator& ranks) const {
  if (ranks.size() == 1) return;
  const std::string mine = packed(fields_);
  struct Digest {
    std::uint64_t bytes;
    std::array<char, 32> hash;
    bool operator==(const Digest&) const = default;
  };
  Digest digest{mine.size(), {}};
  hash_bytes(mine).copy(digest.hash.data(), digest.hash.size());
  const auto count = static_cast<std::size_t>(ranks.size());
  std::vector<Digest> digests(count);
  ranks.gather(&digest, digests.data(), sizeof digest);
  std::uint64_t longest = 0;
  for (const Digest& one : digests) longest = std::max(longest, one.bytes);
  if (std::all_of(digests.begin(), digests.end(), [&](auto& one) { return one == digests[0]; }))
    return;
  std::string padded = mine, all(count * longest, '\0');
  padded.resize(longest);
  ranks.gather(padded.data(), all.data(), longest);
  std::vector<std::vector<Field>> of_ranks;
  std::vector<std::string> hosts;
  for (std::size_t rank = 0; rank < count; ++rank) {
    of_ranks.push_back(unpacked(std::string_view(all).substr(rank * longest, digests[rank].bytes)));
    hosts.push_back(ranks.of(static_cast<int>(rank)).host);
  }
  if (const std::string text = difference(of_ranks, hosts); !text.empty())
    throw Error(ErrorCode::kUsage, text);
}

Handshake handshake_of_build() {
  Handshake build;
  build.add("kernel headers", RETORT_ABI_HASH);
  return build;
}

}  // namespace retort
