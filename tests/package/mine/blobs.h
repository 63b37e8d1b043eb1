// A data set of one's own.
#pragma once
#include <vector>

#include "nn/data/registry.h"

namespace mine {

/// Sample i is of class i mod classes; coordinate j is [j = class] + noise u, u uniform in [-1, 1),
/// a function of (stream, i, j) alone.
class Blobs : public retort::nn::Dataset {
 public:
  /// Samples first, first + 1, ... of a stream: training and test data have two.
  Blobs(std::int64_t classes, double noise, std::int64_t size, std::uint64_t stream);
  const retort::nn::DataFacts& facts() const override { return facts_; }
  std::uint64_t hash() const override;
  std::string describe() const override;
  std::vector<std::int32_t> labels() const override;
  std::shared_ptr<const retort::nn::Dataset> subset(
      std::span<const std::int64_t> samples) const override;
  std::shared_ptr<const retort::nn::Source> source(
      const retort::nn::SourceOptions& options) const override;

  std::int32_t label(std::int64_t i) const;
  void draw(std::int64_t i, float* x) const;  // `classes` values

 private:
  retort::nn::DataFacts facts_;
  double noise_;
  std::uint64_t stream_;
  std::vector<std::int64_t> number_;  // of each sample in the stream
};

/// "blobs", for the registry.
retort::nn::DataKind blobs_kind();

}  // namespace mine
