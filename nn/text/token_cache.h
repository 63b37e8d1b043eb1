// A corpus tokenised once, on disk, read a text at a time.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/file.h"
#include "nn/text/tokenizer.h"

namespace retort::nn {

/// What a cache was made of. Another corpus or another tokenizer is another cache.
struct TokenCacheKey {
  std::string corpus;     // a hash of the files and of how texts are taken from them
  std::string tokenizer;  // Tokenizer::hash()
};

/// The ids of every text of a corpus, without special tokens and whole.
///
/// Files    root/<hash of the key>/shard-00000.tok ...: of kShardTexts texts each (the last may
///          hold fewer): "RTOK0001", u32 texts, u32 bytes an id (2 if all are below 65,536, else
///          4), u64 ids; u32 ends[texts], counted from the shard's first id; the ids; XXH3-128 of
///          all that in hex. Little-endian.
///          done.json, written last, says how many there are.
/// Crash    shards appear whole or not at all; building goes on after the last that verifies.
/// Memory   8 bytes a text when open, one shard while building (about 64 MB at 250 ids a text).
/// Thread   reading from many threads is safe.
class TokenCache {
 public:
  static constexpr std::uint32_t kShardTexts = 65536;

  /// Gives the next text, false after the last; the same texts each time it is asked from the
  /// start.
  using Texts = std::function<bool(std::string& text)>;
  /// Told how many texts are done, now and then; what it throws stops building.
  using Progress = std::function<void(std::uint64_t texts)>;

  /// Opens the cache of this key, after making what is missing of it from `texts` (which is not
  /// called if nothing is). Throws Error(kBadInput), with the text's number from 1, if one is not
  /// UTF-8; Error(kBadInput) if `texts` ends before what is cached already; Error(kIo) as file.h.
  static TokenCache open_or_build(const std::string& root, const TokenCacheKey& key,
                                  const Tokenizer& tokenizer, const Texts& texts,
                                  const Progress& progress = {},
                                  std::uint32_t shard_texts = kShardTexts);

  std::uint64_t size() const { return ends_.size(); }  // texts
  std::uint64_t tokens() const { return tokens_; }
  std::uint32_t length(std::uint64_t text) const;  // ids of one
  /// The first `most` ids of a text (0: all). Throws Error(kUsage) if there is no such text.
  std::vector<std::int32_t> ids(std::uint64_t text, std::uint32_t most = 0) const;

 private:
  struct Shard {
    std::unique_ptr<FileReader> file;
    std::uint32_t texts = 0, width = 0;
    std::uint64_t first_id_at = 0;  // in the file
  };
  TokenCache() = default;
  bool add(const std::string& path);

  std::vector<Shard> shards_;
  std::vector<std::uint32_t> ends_;  // within the text's shard
  std::uint32_t shard_texts_ = kShardTexts;
  std::uint64_t tokens_ = 0;
};

}  // namespace retort::nn
