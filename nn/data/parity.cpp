#include "nn/data/parity.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>

#include "kernels/common/parallel.h"
#include "kernels/common/philox.h"
#include "nn/data/permutation.h"

namespace retort::nn {

ParityDataset::ParityDataset(const ParityOptions& options) : options_(options) {
  RETORT_CHECK(options.n >= 1 && options.n <= 65536, "[parity] expected n in [1, 65536], got ",
               options.n);
  RETORT_CHECK(options.k >= 1 && options.k <= options.n, "[parity] expected k in [1, ", options.n,
               "], got ", options.k);
  RETORT_CHECK(options.size >= 0 && options.epoch_size >= 1,
               "[parity] expected at least one sample, got ", options.size, " and epochs of ",
               options.epoch_size);
  for (std::int64_t j = 0; j < options.k; ++j)
    support_.push_back(
        options.support_seed
            ? static_cast<std::int64_t>(
                  permute(static_cast<std::uint64_t>(j), static_cast<std::uint64_t>(options.n),
                          *options.support_seed, 0, path_hash("parity support")))
            : j);
  std::sort(support_.begin(), support_.end());
  facts_.gives = Reads::kFeatures;
  facts_.size = options.size;
  facts_.epoch_size = options.size > 0 ? options.size : options.epoch_size;
  facts_.classes = 2;
  facts_.input = {options.n};
  facts_.labelled = !facts_.endless();
  facts_.scalar_target = true;
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  const std::int64_t header[5] = {options.n, options.k, options.size,
                                  static_cast<std::int64_t>(options.seed), options.held_out};
  XXH3_64bits_update(&state, "parity", 6);
  XXH3_64bits_update(&state, header, sizeof header);
  XXH3_64bits_update(&state, support_.data(), support_.size() * sizeof support_[0]);
  hash_ = XXH3_64bits_digest(&state);
}

std::string ParityDataset::describe() const {
  if (facts_.endless())
    return join("parity (", options_.n, ", ", options_.k, "), fresh samples, hash ", hex(hash_));
  return join("parity (", options_.n, ", ", options_.k, "), ", size(), " samples, hash ",
              hex(hash_));
}

std::int32_t ParityDataset::draw(std::uint64_t seed, std::int64_t i, float* x) const {
  const std::uint32_t path = options_.held_out ? path_hash("parity held out") : path_hash("parity");
  if (!kept_.empty()) i = kept_[static_cast<std::size_t>(i)];
  Philox4 r{};
  for (std::int64_t j = 0; j < options_.n; ++j) {
    if (j % 128 == 0)
      r = philox(seed, static_cast<std::uint32_t>(j / 128), static_cast<std::uint32_t>(i),
                 static_cast<std::uint32_t>(static_cast<std::uint64_t>(i) >> 32), path);
    x[j] = (r.v[j / 32 % 4] >> (j % 32) & 1u) != 0 ? -1.0f : 1.0f;
  }
  std::int32_t odd = 0;
  for (const std::int64_t j : support_) odd ^= x[j] < 0;
  return odd;
}

std::vector<std::int32_t> ParityDataset::labels() const {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(facts_.size));
  std::vector<float> x(static_cast<std::size_t>(options_.n));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = draw(options_.seed, static_cast<std::int64_t>(i), x.data());
  return labels;
}

std::shared_ptr<const Dataset> ParityDataset::subset(std::span<const std::int64_t> samples) const {
  check_samples(samples);
  RETORT_CHECK(!facts_.endless() && !samples.empty(),
               "[data] expected a subset of at least one sample of data that has an end");
  auto part = std::make_shared<ParityDataset>(options_);
  for (const std::int64_t i : samples)
    part->kept_.push_back(kept_.empty() ? i : kept_[static_cast<std::size_t>(i)]);
  part->facts_.size = part->facts_.epoch_size = static_cast<std::int64_t>(samples.size());
  part->hash_ =
      XXH3_64bits_withSeed(part->kept_.data(), part->kept_.size() * sizeof(std::int64_t), hash_);
  return part;
}

class ParitySource : public Source {
 public:
  ParitySource(std::shared_ptr<const ParityDataset> data, SourceOptions options)
      : data_(std::move(data)), options_(std::move(options)) {
    complete("parity", {}, options_.treatment);
    for (const Reading& reading : options_.readings) complete("parity", {}, reading.options);
  }

  const DataFacts& facts() const override { return data_->facts(); }
  const SourceOptions& options() const override { return options_; }

  Batch make(std::span<const std::int64_t> samples, std::uint32_t /*epoch*/) const override {
    data_->check_samples(samples);
    Batch batch;
    batch.sample.assign(samples.begin(), samples.end());
    batch.variant.resize(samples.size());
    const std::uint64_t seed = facts().endless() ? options_.seed : data_->options().seed;
    const auto rows = static_cast<std::int64_t>(samples.size());
    const std::int64_t n = data_->options().n;
    const Tensor inputs = Tensor::empty({rows, n}), targets = Tensor::empty({rows}, DType::kI32);
    parallel_for(rows, 1 + 65536 / n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b)
        targets.data<std::int32_t>()[b] =
            data_->draw(seed, samples[static_cast<std::size_t>(b)], inputs.data<float>() + b * n);
    });
    for (const Reading& reading : options_.readings) {
      const auto same = std::find(options_.readings.begin(), options_.readings.end(), reading) -
                        options_.readings.begin();
      const auto before = static_cast<std::size_t>(same);
      batch.inputs.push_back(before < batch.inputs.size()
                                 ? batch.inputs[before]
                                 : Inputs(inputs.to(reading.dtype).to(options_.device)));
    }
    batch.targets = targets.to(options_.device);
    return batch;
  }

 private:
  std::shared_ptr<const ParityDataset> data_;
  SourceOptions options_;
};

std::shared_ptr<const Source> ParityDataset::source(const SourceOptions& options) const {
  return std::make_shared<ParitySource>(
      std::static_pointer_cast<const ParityDataset>(shared_from_this()), options);
}

DataKind parity_kind() {
  DataKind kind;
  kind.names = {"parity"};
  kind.gives = Reads::kFeatures;
  kind.endless = true;
  kind.doc = "sparse parity: fresh samples without end, a fixed test set";
  kind.options = {
      count_option("bits", 40, 1, 4096, "bits", "Parity: length n of an input.")
          .with(kChangesCost)
          .not_in_arm(),
      count_option("support", 5, 1, 4096, "bits", "Parity: size k of the secret subset.")
          .not_in_arm(),
      count_option("support_seed", 0, 0, 1e9, "",
                   "Parity: draws the secret subset; 0: bits 0 .. k-1.")
          .not_in_arm(),
      count_option("epoch_size", 3200, 1, 1e9, "samples",
                   "Parity: fresh samples that count as one epoch.")
          .not_in_arm(),
      count_option("test_size", 2048, 1, 1e7, "samples", "Parity: size of the fixed test set.")
          .not_in_arm()};
  kind.check = [](const Options& o) -> std::optional<OptionFault> {
    if (o.integer("support") <= o.integer("bits")) return std::nullopt;
    return OptionFault{"support", "expected at most bits = " + std::to_string(o.integer("bits"))};
  };
  kind.open = [](const DataRequest& request) -> std::shared_ptr<const Dataset> {
    const Options& o = request.options;
    ParityOptions options;
    options.n = o.integer("bits");
    options.k = o.integer("support");
    if (const std::int64_t seed = o.integer("support_seed"); seed != 0)
      options.support_seed = static_cast<std::uint64_t>(seed);
    if (request.split == "train") {
      options.epoch_size = o.integer("epoch_size");
    } else if (request.split == "test") {
      options.size = o.integer("test_size");
      options.held_out = true;
    } else {
      return nullptr;
    }
    return std::make_shared<ParityDataset>(options);
  };
  return kind;
}

}  // namespace retort::nn
