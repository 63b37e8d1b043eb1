#include "distill/teacher/logit_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/safetensors.h"

namespace retort::distill {
namespace {

constexpr const char* kVersion = "retort-logits-3";

std::string digest_of(const Tensor& sample, const Tensor& variant, const Tensor& values) {
  Hasher hasher;
  for (const Tensor& t : {sample, variant, values})
    if (t.numel() > 0) hasher.update(t.raw(), t.bytes());
  return hasher.hex();
}

std::string hash_hex(const std::string& text) {
  Hasher hasher;
  hasher.update(text.data(), text.size());
  return hasher.hex();
}

}  // namespace

const char* name_of(CachedRows rows) { return rows == CachedRows::kLogits ? "logits" : "features"; }

LogitCache::LogitCache(LogitCacheKey key, std::uint64_t max_bytes, std::string file)
    : key_(std::move(key)), max_bytes_(max_bytes), file_(std::move(file)) {
  RETORT_CHECK(key_.width >= 1, "[logit_cache] expected rows of at least 1 value, got ",
               key_.width);
  std::error_code error;  // a name too long, a folder that may not be entered: no file
  if (file_.empty() || !std::filesystem::exists(file_, error)) return;
  try {
    read_file();
  } catch (const Error& error) {
    index_.clear();
    values_.clear();
    stats_ = {};
    stats_.note = join("the logit cache ", file_, " was not used: ", error.what());
  }
}

LogitCache::RowKey LogitCache::row_key(std::span<const std::int64_t> samples,
                                       std::span<const std::uint32_t> variant,
                                       std::size_t i) const {
  return {samples[i], variant.empty() ? 0u : variant[i]};
}

std::uint64_t LogitCache::row_bytes() const {
  return static_cast<std::uint64_t>(key_.width) * sizeof(float) + sizeof(RowKey);
}

bool LogitCache::keep(const RowKey& key, const float* row) {
  if (index_.contains(key)) return false;
  if ((index_.size() + 1) * row_bytes() > max_bytes_) {
    ++stats_.refused;
    return false;
  }
  index_.emplace(key, index_.size());
  values_.insert(values_.end(), row, row + key_.width);
  return true;
}

std::vector<std::int64_t> LogitCache::lookup(std::span<const std::int64_t> samples,
                                             std::span<const std::uint32_t> variant,
                                             std::span<float> rows) {
  const auto width = static_cast<std::size_t>(key_.width);
  check_rows(samples.size(), variant.size(), rows.size());
  const std::lock_guard lock(mutex_);
  std::vector<std::int64_t> missing;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto it = index_.find(row_key(samples, variant, i));
    if (it == index_.end()) {
      missing.push_back(static_cast<std::int64_t>(i));
      continue;
    }
    std::memcpy(&rows[i * width], &values_[it->second * width], width * sizeof(float));
  }
  stats_.hits += samples.size() - missing.size();
  stats_.misses += missing.size();
  return missing;
}

void LogitCache::insert(std::span<const std::int64_t> samples,
                        std::span<const std::uint32_t> variant, std::span<const float> rows) {
  const auto width = static_cast<std::size_t>(key_.width);
  check_rows(samples.size(), variant.size(), rows.size());
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const RowKey key = row_key(samples, variant, i);
    if (!keep(key, &rows[i * width])) continue;
    changed_ = true;
    if (remembers_) new_.push_back(key);
  }
}

void LogitCache::check_rows(std::size_t samples, std::size_t variants, std::size_t values) const {
  const auto width = static_cast<std::size_t>(key_.width);
  RETORT_CHECK(values == samples * width, "[logit_cache] expected ", samples * width,
               " values, got ", values);
  RETORT_CHECK(variants == 0 || variants == samples, "[logit_cache] expected ", samples,
               " variants, got ", variants);
}

void LogitCache::remember_new_rows() {
  const std::lock_guard lock(mutex_);
  remembers_ = true;
}

std::int64_t LogitCache::new_rows() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(new_.size());
}

LogitRows LogitCache::take_new_rows() {
  const auto width = static_cast<std::size_t>(key_.width);
  const std::lock_guard lock(mutex_);
  LogitRows rows;
  for (const RowKey& key : new_) {
    rows.samples.push_back(key.sample);
    rows.variants.push_back(key.variant);
    const float* const row = &values_[index_.at(key) * width];
    rows.values.insert(rows.values.end(), row, row + width);
  }
  new_.clear();
  return rows;
}

void LogitCache::take_over(const LogitRows& rows) {
  const auto width = static_cast<std::size_t>(key_.width);
  check_rows(rows.samples.size(), rows.variants.size(), rows.values.size());
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < rows.samples.size(); ++i)
    if (keep(row_key(rows.samples, rows.variants, i), &rows.values[i * width])) changed_ = true;
}

LogitCacheStatistics LogitCache::statistics() const {
  const std::lock_guard lock(mutex_);
  LogitCacheStatistics s = stats_;
  s.entries = static_cast<std::int64_t>(index_.size());
  s.bytes = index_.size() * row_bytes();
  return s;
}

void LogitCache::save() {
  const std::lock_guard lock(mutex_);
  if (file_.empty() || !changed_) return;
  std::vector<std::pair<RowKey, std::size_t>> rows(index_.begin(), index_.end());
  std::sort(rows.begin(), rows.end());
  const auto n = static_cast<std::int64_t>(rows.size());
  const Tensor sample = Tensor::empty({n}, DType::kI64), variant = Tensor::empty({n}, DType::kI32),
               values = Tensor::empty({n, key_.width}, DType::kF32);
  const auto width = static_cast<std::size_t>(key_.width);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    sample.data<std::int64_t>()[i] = rows[i].first.sample;
    variant.data<std::int32_t>()[i] = std::bit_cast<std::int32_t>(rows[i].first.variant);
    std::memcpy(values.data<float>() + i * width, &values_[rows[i].second * width],
                width * sizeof(float));
  }
  make_folders(parent_folder(file_));
  write_safetensors(file_, {{"sample", sample}, {"variant", variant}, {"values", values}},
                    {{"format", kVersion},
                     {"dataset", key_.dataset_hash},
                     {"teacher", key_.teacher_hash},
                     {"reading", key_.reading},
                     {"rows", name_of(key_.rows)},
                     {"digest", digest_of(sample, variant, values)}});
  changed_ = false;
}

void LogitCache::read_file() {
  const SafetensorsReader reader(file_);
  const auto& metadata = reader.header().metadata;
  const auto expect = [&](const char* name, const std::string& want) {
    const auto it = metadata.find(name);
    const std::string got = it == metadata.end() ? "nothing" : it->second;
    RETORT_CHECK_AS(kBadInput, got == want, "expected ", name, " '", want, "', got '", escaped(got),
                    "'");
  };
  expect("format", kVersion);
  expect("dataset", key_.dataset_hash);
  expect("teacher", key_.teacher_hash);
  expect("reading", key_.reading);
  expect("rows", name_of(key_.rows));
  const auto entry = reader.header().find("values");
  RETORT_CHECK_AS(kBadInput,
                  entry && entry->dtype == DType::kF32 && entry->shape.rank() == 2 &&
                      entry->shape[1] == key_.width,
                  "expected f32 rows of ", key_.width, " values");
  const std::int64_t n = entry->shape[0];
  RETORT_CHECK_AS(kBadInput, static_cast<std::uint64_t>(n) <= max_bytes_ / row_bytes(), n,
                  " rows are more than the cap of ", max_bytes_, " bytes allows");
  const Tensor sample = reader.read("sample"), variant = reader.read("variant"),
               values = reader.read("values");
  RETORT_CHECK_AS(kBadInput,
                  sample.dtype() == DType::kI64 && sample.shape() == Shape({n}) &&
                      variant.dtype() == DType::kI32 && variant.shape() == Shape({n}),
                  "expected ", n, " i64 samples and i32 variants");
  expect("digest", digest_of(sample, variant, values));
  for (std::int64_t i = 0; i < n; ++i)
    keep({sample.data<std::int64_t>()[i],
          std::bit_cast<std::uint32_t>(variant.data<std::int32_t>()[i])},
         values.data<float>() + i * key_.width);
  stats_.from_file = static_cast<std::int64_t>(index_.size());
}

std::shared_ptr<LogitCache> LogitCacheStore::get(const LogitCacheKey& key) {
  const std::lock_guard lock(mutex_);
  auto& cache = caches_[key];
  if (!cache)
    cache = std::make_shared<LogitCache>(
        key, max_bytes_,
        folder_.empty() ? std::string()
                        : join(folder_, "/", name_of(key.rows), "_", key.teacher_hash.substr(0, 16),
                               "_", key.dataset_hash.substr(0, 16), "_",
                               hash_hex(key.reading).substr(0, 16), ".safetensors"));
  return cache;
}

void LogitCacheStore::save() {
  const std::lock_guard lock(mutex_);
  for (const auto& [key, cache] : caches_) cache->save();
}

LogitCacheStatistics LogitCacheStore::statistics() const {
  const std::lock_guard lock(mutex_);
  LogitCacheStatistics sum;
  for (const auto& [key, cache] : caches_) {
    const LogitCacheStatistics s = cache->statistics();
    sum.hits += s.hits;
    sum.misses += s.misses;
    sum.refused += s.refused;
    sum.entries += s.entries;
    sum.from_file += s.from_file;
    sum.bytes += s.bytes;
    if (!s.note.empty()) sum.note += (sum.note.empty() ? "" : "; ") + s.note;
  }
  return sum;
}

}  // namespace retort::distill
