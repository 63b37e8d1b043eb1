// What a frozen teacher answered with, kept per sample and variant.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kernels/common/check.h"

namespace retort::distill {

/// What a row is. Of masked words a teacher's features stand for its logits, through its head: at a
/// vocabulary of 30,000 they are a hundredth of the size (Note [Features instead of logits]).
enum class CachedRows : std::uint8_t { kLogits, kFeatures };
/// "logits", "features".
const char* name_of(CachedRows rows);

/// What the cached rows belong to. All arms and seeds of a run that share data and teacher share
/// one cache.
struct LogitCacheKey {
  std::string dataset_hash, teacher_hash;
  std::int64_t width = 0;    // of a row: V of logits, m of features
  std::string reading = {};  // how the teacher reads the samples: nn::Reading::str()
  CachedRows rows = CachedRows::kLogits;
  auto operator<=>(const LogitCacheKey&) const = default;
};

struct LogitCacheStatistics {
  std::uint64_t hits = 0, misses = 0;  // rows asked for
  std::uint64_t refused = 0;           // rows not kept because the cap was reached
  std::int64_t entries = 0;            // rows held
  std::int64_t from_file = 0;          // of them, read from the file
  std::uint64_t bytes = 0;             // of logits and keys held
  std::string note;                    // why a file was not used; empty if all is well
};

/// Rows on their way from a cache to another.
struct LogitRows {
  std::vector<std::int64_t> samples;
  std::vector<std::uint32_t> variants;
  std::vector<float> values;  // (rows, width)
};

/// Exact rows (f32, bit for bit) by (sample, variant key). Rows over the byte cap are not
/// kept and computed again. Threads: all calls may come from several threads at once.
///
/// Note [Cache file]
///   A safetensors file: sample i64 (n), variant i32 (n, the bits of the u32 key), values f32
///   (n, width), sorted by (sample, variant); metadata names the key and the XXH3-128 of the content.
///   It is written beside its place and renamed. A file that is not exactly what this cache would
///   have written (other key, damaged, larger than the cap) is left alone and not used; statistics
///   say why, and save() replaces it: it is a copy of what can be computed again.
class LogitCache {
 public:
  /// `file`: read now if it exists, written by save(). Empty: in memory only.
  explicit LogitCache(LogitCacheKey key, std::uint64_t max_bytes = std::uint64_t{1} << 30,
                      std::string file = {});

  const LogitCacheKey& key() const { return key_; }
  /// Fills the rows (B width) that are held and returns the places 0 .. B-1 of those that are not.
  /// variant may be empty: key 0 for all.
  std::vector<std::int64_t> lookup(std::span<const std::int64_t> samples,
                                   std::span<const std::uint32_t> variant, std::span<float> rows);
  /// Keeps the rows that are not held yet.
  void insert(std::span<const std::int64_t> samples, std::span<const std::uint32_t> variant,
              std::span<const float> rows);
  /// From now on rows that insert() keeps are remembered until they are taken.
  void remember_new_rows();
  /// How many were kept since the last take_new_rows(). 0 unless they are remembered.
  std::int64_t new_rows() const;
  LogitRows take_new_rows();
  /// Keeps rows that somebody else has computed: they are not new here.
  void take_over(const LogitRows& rows);
  /// Writes the file if rows were added since it was read. Throws Error(kIo).
  void save();
  LogitCacheStatistics statistics() const;

 private:
  struct RowKey {
    std::int64_t sample;
    std::uint32_t variant;
    bool operator==(const RowKey&) const = default;
    bool operator<(const RowKey& o) const {
      return std::tie(sample, variant) < std::tie(o.sample, o.variant);
    }
  };
  struct RowHash {
    std::size_t operator()(const RowKey& k) const {
      std::uint64_t h = static_cast<std::uint64_t>(k.sample) * 0x9E3779B97F4A7C15u;
      h ^= (h >> 32) ^ k.variant;
      h *= 0xD6E8FEB86659FD93u;
      return static_cast<std::size_t>(h ^ (h >> 32));
    }
  };
  RowKey row_key(std::span<const std::int64_t> samples, std::span<const std::uint32_t> variant,
                 std::size_t i) const;
  std::uint64_t row_bytes() const;
  bool keep(const RowKey& key, const float* row);
  void check_rows(std::size_t samples, std::size_t variants, std::size_t values) const;
  void read_file();

  LogitCacheKey key_;
  std::uint64_t max_bytes_;
  std::string file_;
  mutable std::mutex mutex_;
  std::unordered_map<RowKey, std::size_t, RowHash> index_;  // -> row of values_
  std::vector<float> values_;
  LogitCacheStatistics stats_;
  bool changed_ = false, remembers_ = false;
  std::vector<RowKey> new_;
};

/// One cache per key, made on first use: what arms and seeds share. With a folder, files are named
/// by the hashes. Threads: safe.
class LogitCacheStore {
 public:
  explicit LogitCacheStore(std::uint64_t max_bytes_each = std::uint64_t{1} << 30,
                           std::string folder = {})
      : max_bytes_(max_bytes_each), folder_(std::move(folder)) {}
  std::shared_ptr<LogitCache> get(const LogitCacheKey& key);
  /// Saves every cache; nothing to do without a folder.
  void save();
  /// Sum over the caches.
  LogitCacheStatistics statistics() const;

 private:
  std::uint64_t max_bytes_;
  std::string folder_;
  mutable std::mutex mutex_;
  std::map<LogitCacheKey, std::shared_ptr<LogitCache>> caches_;
};

}  // namespace retort::distill
