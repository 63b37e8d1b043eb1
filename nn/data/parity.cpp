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
  RETORT_CHECK(options.size >= 1, "[parity] expected at least one sample, got ", options.size);
  for (std::int64_t j = 0; j < options.k; ++j)
    support_.push_back(
        options.support_seed
            ? static_cast<std::int64_t>(
                  permute(static_cast<std::uint64_t>(j), static_cast<std::uint64_t>(options.n),
                          *options.support_seed, 0, path_hash("parity support")))
            : j);
  std::sort(support_.begin(), support_.end());
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
  return join("parity (", options_.n, ", ", options_.k, "), ", size(), " samples, hash ",
              hex(hash_));
}

std::int32_t ParityDataset::draw(std::int64_t i, float* x) const {
  const std::uint32_t path = options_.held_out ? path_hash("parity held out") : path_hash("parity");
  Philox4 r{};
  for (std::int64_t j = 0; j < options_.n; ++j) {
    if (j % 128 == 0)
      r = philox(options_.seed, static_cast<std::uint32_t>(j / 128), static_cast<std::uint32_t>(i),
                 static_cast<std::uint32_t>(static_cast<std::uint64_t>(i) >> 32), path);
    x[j] = (r.v[j / 32 % 4] >> (j % 32) & 1u) != 0 ? -1.0f : 1.0f;
  }
  std::int32_t odd = 0;
  for (const std::int64_t j : support_) odd ^= x[j] < 0;
  return odd;
}

std::int32_t ParityDataset::label(std::int64_t i) const {
  RETORT_CHECK(i >= 0 && i < size(), "[data] expected a sample in [0, ", size(), "), got ", i);
  std::vector<float> x(static_cast<std::size_t>(options_.n));
  return draw(i, x.data());
}

Batch ParityDataset::make_batch(std::span<const std::int64_t> samples,
                                const BatchOptions& o) const {
  check_samples(samples);
  Batch batch;
  batch.sample.assign(samples.begin(), samples.end());
  batch.augment.resize(samples.size());
  const std::int64_t rows = batch.size(), n = options_.n;
  const Tensor inputs = Tensor::empty({rows, n}), targets = Tensor::empty({rows}, DType::kI32);
  parallel_for(rows, 1 + 65536 / n, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      targets.data<std::int32_t>()[b] =
          draw(samples[static_cast<std::size_t>(b)], inputs.data<float>() + b * n);
  });
  batch.inputs = inputs.to(o.dtype).to(o.device);
  const DType teacher_dtype = o.teacher_dtype.value_or(o.dtype);
  batch.teacher_inputs =
      teacher_dtype == o.dtype ? batch.inputs : inputs.to(teacher_dtype).to(o.device);
  batch.targets = targets.to(o.device);
  return batch;
}

}  // namespace retort::nn
