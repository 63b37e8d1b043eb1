#include "nn/data/dataset.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "nn/data/device_feed.h"

namespace retort::nn {

namespace {

constexpr const char* kTextTasks[] = {"none", "masked_lm", "causal_lm", "classification",
                                      "multiple_choice"};

}  // namespace

const char* name_of(TextTask task) { return kTextTasks[static_cast<std::size_t>(task)]; }

TextTask parse_text_task(const std::string& text) {
  for (std::size_t i = 1; i < std::size(kTextTasks); ++i)
    if (text == kTextTasks[i]) return static_cast<TextTask>(i);
  fail(ErrorCode::kUsage, "[data] expected a task such as masked_lm or classification, got '", text,
       "'");
}

void Batch::check() const {
  RETORT_CHECK(!inputs.empty() && inputs[0].defined() && inputs[0].values.rank() >= 1,
               "[batch] expected inputs (B, ...)");
  const std::int64_t samples = size();
  for (const Inputs& other : inputs)
    RETORT_CHECK(!other.defined() || other.samples() == samples, "[batch] expected readings of ",
                 samples, " samples, got one of ", other.samples());
  if (targets.defined()) {
    RETORT_CHECK(targets.rank() == 1 && targets.dtype() == DType::kI32 &&
                     (sample_of_row.defined() || targets.dim(0) == samples),
                 "[batch] expected targets (", samples, ") of i32, got ", targets.shape(), " of ",
                 name_of(targets.dtype()));
  }
  if (sample_of_row.defined())
    RETORT_CHECK(
        targets.defined() && sample_of_row.rank() == 1 && sample_of_row.dtype() == DType::kI32 &&
            sample_of_row.dim(0) == targets.dim(0) &&
            sample_of_row_on_host.size() == static_cast<std::size_t>(sample_of_row.dim(0)),
        "[batch] expected sample_of_row of i32, one for each target, got ", sample_of_row.shape());
  const auto fits = [samples](std::size_t n) {
    return n == 0 || n == static_cast<std::size_t>(samples);
  };
  RETORT_CHECK(fits(sample.size()), "[batch] expected names of ", samples, " samples or none, got ",
               sample.size());
  RETORT_CHECK(fits(variant.size()), "[batch] expected variants of ", samples,
               " samples or none, got ", variant.size());
}

namespace {

template <class T>
std::vector<T> part_of(const std::vector<T>& all, std::int64_t begin, std::int64_t end) {
  if (all.empty()) return {};
  return {all.begin() + begin, all.begin() + end};
}

}  // namespace

Batch Batch::slice(std::int64_t begin, std::int64_t end) const {
  if (begin == 0 && end == size()) return *this;
  Batch part;
  for (const Inputs& reading : inputs) {
    if (!reading.defined()) {  // nobody asked for it
      part.inputs.emplace_back();
      continue;
    }
    const auto same = std::find_if(inputs.begin(), inputs.end(), [&](const Inputs& other) {
      return other.defined() && other.values.raw() == reading.values.raw();
    });
    const auto before = static_cast<std::size_t>(same - inputs.begin());
    part.inputs.push_back(before < part.inputs.size() ? part.inputs[before]
                                                      : reading.slice(begin, end));
    part.inputs.back().activations = reading.activations;
  }
  const std::vector<std::int32_t>& of_row = sample_of_row_on_host;
  std::int64_t first = begin, last = end;  // of its rows
  if (sample_of_row.defined()) {
    const auto row_of = [&](std::int64_t b) {
      return std::lower_bound(of_row.begin(), of_row.end(), b) - of_row.begin();
    };
    first = row_of(begin), last = row_of(end);
  }
  if (targets.defined()) part.targets = targets.slice(first, last);
  if (sample_of_row.defined()) {
    std::vector<std::int32_t> own(of_row.begin() + first, of_row.begin() + last);
    for (std::int32_t& b : own) b -= static_cast<std::int32_t>(begin);
    part.set_rows(std::move(own));
  }
  part.sample = part_of(sample, begin, end);
  part.variant = part_of(variant, begin, end);
  return part;
}

void Batch::set_rows(std::vector<std::int32_t> of_row) {
  RETORT_CHECK(std::is_sorted(of_row.begin(), of_row.end()) &&
                   (of_row.empty() || (of_row.front() >= 0 && of_row.back() < size())),
               "[batch] expected ascending samples of rows in [0, ", size(), ")");
  sample_of_row =
      Tensor::from(of_row, {static_cast<std::int64_t>(of_row.size())}, inputs[0].device());
  sample_of_row_on_host = std::move(of_row);
}

std::string Reading::str() const {
  std::string text = name_of(dtype);
  for (const auto& [key, value] : options) text += " " + key + "=" + to_toml(value);
  return text;
}

void Dataset::check_samples(std::span<const std::int64_t> samples) const {
  const std::int64_t count = facts().indices();
  for (const std::int64_t i : samples)
    RETORT_CHECK(i >= 0 && i < count, "[data] expected a sample in [0, ", count, "), got ", i);
}

std::vector<std::uint32_t> Source::variants(std::span<const std::int64_t> samples,
                                            std::uint32_t /*epoch*/) const {
  return std::vector<std::uint32_t>(samples.size());
}

std::unique_ptr<DeviceFeed> Source::device_feed() const { return nullptr; }

Batch first_samples(const Source& source, std::int64_t count) {
  std::vector<std::int64_t> samples(
      static_cast<std::size_t>(std::min(count, source.facts().indices())));
  std::iota(samples.begin(), samples.end(), 0);
  return source.make(samples);
}

std::string hex(std::uint64_t hash) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace retort::nn
