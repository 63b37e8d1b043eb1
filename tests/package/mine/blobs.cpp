#include "mine/blobs.h"

#include <numeric>

#include "kernels/common/philox.h"

namespace mine {

using namespace retort::nn;
using retort::join;
using retort::Tensor;

Blobs::Blobs(std::int64_t classes, double noise, std::int64_t size, std::uint64_t stream)
    : noise_(noise), stream_(stream), number_(static_cast<std::size_t>(size)) {
  std::iota(number_.begin(), number_.end(), 0);
  facts_.gives = Reads::kFeatures;
  facts_.size = facts_.epoch_size = size;
  facts_.classes = classes;
  facts_.input = {classes};
}

std::uint64_t Blobs::hash() const {
  std::uint64_t h = stream_;
  const auto mix = [&h](std::uint64_t v) { h = (h ^ v) * 0x9e3779b97f4a7c15u + (h >> 29); };
  mix(static_cast<std::uint64_t>(facts_.classes));
  mix(static_cast<std::uint64_t>(noise_ * 1e9));
  for (const std::int64_t n : number_) mix(static_cast<std::uint64_t>(n));
  return h;
}

std::string Blobs::describe() const {
  return join("blobs of ", classes(), " classes, ", size(), " samples, hash ", hex(hash()));
}

std::int32_t Blobs::label(std::int64_t i) const {
  return static_cast<std::int32_t>(number_[static_cast<std::size_t>(i)] % classes());
}

void Blobs::draw(std::int64_t i, float* x) const {
  const auto number = static_cast<std::uint32_t>(number_[static_cast<std::size_t>(i)]);
  for (std::int64_t j = 0; j < classes(); ++j) {
    const std::uint32_t bits =
        retort::philox(stream_, static_cast<std::uint32_t>(j), number, 0, 0).v[0];
    x[j] = static_cast<float>((j == label(i)) + noise_ * (bits / 2147483648.0 - 1));
  }
}

std::vector<std::int32_t> Blobs::labels() const {
  std::vector<std::int32_t> all;
  for (std::int64_t i = 0; i < size(); ++i) all.push_back(label(i));
  return all;
}

std::shared_ptr<const Dataset> Blobs::subset(std::span<const std::int64_t> samples) const {
  check_samples(samples);
  auto part = std::make_shared<Blobs>(*this);
  part->number_.clear();
  for (const std::int64_t i : samples)
    part->number_.push_back(number_[static_cast<std::size_t>(i)]);
  part->facts_.size = part->facts_.epoch_size = static_cast<std::int64_t>(samples.size());
  return part;
}

namespace {

class BlobSource : public Source {
 public:
  BlobSource(std::shared_ptr<const Blobs> data, SourceOptions options)
      : data_(std::move(data)), options_(std::move(options)) {
    complete("blobs", {}, options_.treatment);  // it has no such keys: an error names the wrong one
    for (const Reading& reading : options_.readings) complete("blobs", {}, reading.options);
  }
  const DataFacts& facts() const override { return data_->facts(); }
  const SourceOptions& options() const override { return options_; }

  Batch make(std::span<const std::int64_t> samples, std::uint32_t /*epoch*/) const override {
    const auto rows = static_cast<std::int64_t>(samples.size());
    const Tensor x = Tensor::empty({rows, facts().classes});
    const Tensor targets = Tensor::empty({rows}, retort::DType::kI32);
    for (std::int64_t b = 0; b < rows; ++b) {
      const std::int64_t i = samples[static_cast<std::size_t>(b)];
      RETORT_CHECK(i >= 0 && i < facts().size, "[blobs] expected samples in [0, ", facts().size,
                   "), got ", i);
      data_->draw(i, x.data<float>() + b * facts().classes);
      targets.data<std::int32_t>()[b] = data_->label(i);
    }
    Batch batch;
    batch.sample.assign(samples.begin(), samples.end());
    batch.targets = targets.to(options_.device);
    for (const Reading& reading : options_.readings)
      batch.inputs.emplace_back(x.to(reading.dtype).to(options_.device));
    return batch;
  }

 private:
  std::shared_ptr<const Blobs> data_;
  SourceOptions options_;
};

}  // namespace

std::shared_ptr<const Source> Blobs::source(const SourceOptions& options) const {
  return std::make_shared<BlobSource>(std::static_pointer_cast<const Blobs>(shared_from_this()),
                                      options);
}

DataKind blobs_kind() {
  DataKind kind;
  kind.names = {"blobs"};
  kind.gives = Reads::kFeatures;
  kind.options = {
      count_option("blob_classes", 4, 2, 1000, "", "Blobs: classes, and features.").not_in_arm(),
      number_option("blob_noise", 0.5, 0, 100, "", "Blobs: half the width of the noise.")
          .not_in_arm(),
      count_option("blob_train", 256, 1, 1e6, "samples", "Blobs: size of train.").not_in_arm(),
      count_option("blob_test", 128, 1, 1e6, "samples", "Blobs: size of test.").not_in_arm()};
  kind.doc = "noisy unit vectors";
  kind.open = [](const DataRequest& r) -> std::shared_ptr<const Dataset> {
    if (r.split != "train" && r.split != "test") return nullptr;
    const bool train = r.split == "train";
    return std::make_shared<Blobs>(
        r.options.integer("blob_classes"), r.options.number("blob_noise"),
        r.options.integer(train ? "blob_train" : "blob_test"), train ? 1 : 2);
  };
  return kind;
}

}  // namespace mine
