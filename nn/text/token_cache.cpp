#include "nn/text/token_cache.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "engine/io/json.h"
#include "kernels/common/check.h"

namespace retort::nn {
namespace {

constexpr char kMagic[] = "RTOK0001";
constexpr std::uint64_t kHeader = 24, kHash = 32;
constexpr std::uint64_t kProgressTexts = 1024;

std::string shard_path(const std::string& folder, std::size_t index) {
  const std::string digits = std::to_string(index);
  return folder + "/shard-" + std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits +
         ".tok";
}

template <class T>
void write_values(FileWriter& to, const std::vector<std::int32_t>& values) {
  std::vector<T> narrow(values.begin(), values.end());
  to.write(narrow.data(), narrow.size() * sizeof(T));
}

void write_shard(const std::string& path, const std::vector<std::int32_t>& ids,
                 const std::vector<std::uint32_t>& ends, std::uint32_t width) {
  AtomicFile file(path);
  FileWriter& to = file.writer();
  const std::uint32_t counts[] = {static_cast<std::uint32_t>(ends.size()), width};
  const std::uint64_t total = ids.size();
  to.write(std::string_view(kMagic, 8));
  to.write(counts, sizeof counts);
  to.write(&total, sizeof total);
  to.write(ends.data(), ends.size() * sizeof ends[0]);
  width == 2 ? write_values<std::uint16_t>(to, ids) : write_values<std::uint32_t>(to, ids);
  to.write(to.hash());
  file.commit();
}

template <class T>
void read_values(const FileReader& file, std::uint64_t at, T* to, std::size_t count) {
  file.read_at(at, std::as_writable_bytes(std::span(to, count)));
}

bool verifies(const FileReader& file) {
  if (file.size() < kHeader + kHash) return false;
  Hasher hasher;
  std::vector<std::byte> block(std::size_t{1} << 20);
  const std::uint64_t end = file.size() - kHash;
  for (std::uint64_t at = 0; at < end;) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), end - at));
    file.read_at(at, std::span(block).first(n));
    hasher.update(block.data(), n);
    at += n;
  }
  std::string hash(kHash, ' ');
  read_values(file, end, hash.data(), hash.size());
  return hash == hasher.hex();
}

// Whether done.json is there and speaks of so many. A damaged one is none.
bool says(const std::string& done, std::uint64_t texts, std::uint64_t tokens) {
  if (!std::filesystem::exists(done)) return false;
  try {
    const Json said = Json::read(done);
    return said.at("texts").as_unsigned() == texts && said.at("tokens").as_unsigned() == tokens;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kBadInput) throw;
    return false;
  }
}

}  // namespace

// Takes a shard in if it is there and whole.
bool TokenCache::add(const std::string& path) {
  if (!std::filesystem::exists(path)) return false;
  Shard shard;
  shard.file = std::make_unique<FileReader>(path);
  const FileReader& file = *shard.file;
  if (!verifies(file)) return false;
  char magic[8];
  std::uint64_t total = 0;
  read_values(file, 0, magic, 8);
  read_values(file, 8, &shard.texts, 1);
  read_values(file, 12, &shard.width, 1);
  read_values(file, 16, &total, 1);
  shard.first_id_at = kHeader + std::uint64_t{4} * shard.texts;
  if (std::memcmp(magic, kMagic, 8) != 0 || (shard.width != 2 && shard.width != 4) ||
      shard.texts == 0 || shard.texts > shard_texts_ || total > file.size() ||
      file.size() != shard.first_id_at + total * shard.width + kHash)
    return false;
  std::vector<std::uint32_t> ends(shard.texts);
  read_values(file, kHeader, ends.data(), ends.size());
  if (!std::is_sorted(ends.begin(), ends.end()) || ends.back() != total) return false;
  ends_.insert(ends_.end(), ends.begin(), ends.end());
  tokens_ += total;
  shards_.push_back(std::move(shard));
  return true;
}

TokenCache TokenCache::open_or_build(const std::string& root, const TokenCacheKey& key,
                                     const Tokenizer& tokenizer, const Texts& texts,
                                     const Progress& progress, std::uint32_t shard_texts) {
  RETORT_CHECK(key.tokenizer == tokenizer.hash(),
               "[token cache] the key is of another tokenizer than the one given");
  RETORT_CHECK(shard_texts > 0, "[token cache] expected at least one text a shard");
  const std::string folder =
      root + "/" + hash_bytes(join(key.corpus, "\n", key.tokenizer, "\n", shard_texts));
  const std::string done = folder + "/done.json";
  TokenCache cache;
  cache.shard_texts_ = shard_texts;
  // A shard that is not full is the last: nothing can follow it.
  while (cache.ends_.size() % shard_texts == 0 &&
         cache.add(shard_path(folder, cache.shards_.size()))) {
  }
  if (says(done, cache.size(), cache.tokens())) return cache;

  // A last shard that is not full may be that of a corpus which was cut off: it is made again.
  if (cache.ends_.size() % shard_texts != 0) {
    cache.tokens_ -= cache.ends_.back();
    cache.ends_.resize(cache.ends_.size() - cache.shards_.back().texts);
    cache.shards_.pop_back();
  }
  make_folders(folder);
  const std::uint32_t width = tokenizer.size() <= 65536 ? 2 : 4;
  std::string text;
  std::vector<std::int32_t> ids;
  std::vector<std::uint32_t> ends;
  std::uint64_t count = 0;
  const auto finish_shard = [&] {
    const std::string path = shard_path(folder, cache.shards_.size());
    write_shard(path, ids, ends, width);
    RETORT_CHECK_AS(kIo, cache.add(path), escaped(path, 4096),
                    ": what was written is not what is there");
    ids.clear();
    ends.clear();
  };
  for (const std::uint64_t cached = cache.size(); texts(text); ++count) {
    if (progress && count % kProgressTexts == 0) progress(count);
    if (count < cached) continue;
    try {
      tokenizer.append_ids(text, ids);
    } catch (const Error& e) {
      fail(e.code(), "text ", count + 1, ": ", e.what());
    }
    RETORT_CHECK_AS(kBadInput, ids.size() <= UINT32_MAX, "[token cache] text ", count + 1,
                    ": a shard holds at most 2^32 ids");
    ends.push_back(static_cast<std::uint32_t>(ids.size()));
    if (ends.size() == shard_texts) finish_shard();
  }
  RETORT_CHECK_AS(kBadInput, count >= cache.size(), "[token cache] expected at least the ",
                  cache.size(), " texts that are cached, got ", count);
  if (!ends.empty()) finish_shard();
  if (progress) progress(count);
  Json said = Json::object();
  said.set("format", 1).set("corpus", key.corpus).set("tokenizer", key.tokenizer);
  said.set("texts", cache.size()).set("tokens", cache.tokens());
  write_file_atomically(done, said.dump() + "\n");
  return cache;
}

std::uint32_t TokenCache::length(std::uint64_t text) const {
  RETORT_CHECK(text < size(), "[token cache] expected a text below ", size(), ", got ", text);
  const std::uint32_t begin = text % shard_texts_ == 0 ? 0 : ends_[text - 1];
  return ends_[text] - begin;
}

std::vector<std::int32_t> TokenCache::ids(std::uint64_t text, std::uint32_t most) const {
  const std::uint32_t all = length(text), count = most == 0 ? all : std::min(all, most);
  const Shard& shard = shards_[text / shard_texts_];
  const std::uint64_t at = shard.first_id_at + std::uint64_t{ends_[text] - all} * shard.width;
  if (shard.width == 2) {
    std::vector<std::uint16_t> narrow(count);
    read_values(*shard.file, at, narrow.data(), count);
    return {narrow.begin(), narrow.end()};
  }
  std::vector<std::int32_t> wide(count);
  read_values(*shard.file, at, wide.data(), count);
  return wide;
}

}  // namespace retort::nn
