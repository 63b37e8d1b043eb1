#include "nn/data/open.h"

#include "nn/data/cifar.h"
#include "nn/data/parity.h"

namespace retort::nn {

std::shared_ptr<const Dataset> open_dataset(const DataConfig& c, bool train) {
  if (c.format == "parity")
    return std::make_shared<ParityDataset>(ParityOptions{
        c.n, c.k, train ? c.train_size : c.test_size, c.seed, !train, c.support_seed});
  RETORT_CHECK(c.format == "cifar10" || c.format == "cifar100",
               "[data] expected format cifar10, cifar100 or parity, got '", c.format, "'");
  const CifarFormat format = c.format == "cifar10" ? CifarFormat::kCifar10 : CifarFormat::kCifar100;
  const std::vector<std::string>& named = train ? c.train_files : c.test_files;
  const auto all =
      read_cifar(format, c.root, named.empty() ? cifar_standard_files(format, train) : named);
  const std::string& range = train ? c.train_range : c.test_range;
  if (range.empty()) return all;
  return all->subset(parse_index_ranges(range, all->size()));
}

}  // namespace retort::nn
