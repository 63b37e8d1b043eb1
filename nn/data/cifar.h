// CIFAR-10 and CIFAR-100 in their binary version.
//
// CIFAR-10:  records of 3073 bytes: label, then 1024 red, 1024 green, 1024 blue, row by row.
// CIFAR-100: records of 3074 bytes: coarse label, fine label (the one used), then the same.
// Source: https://www.cs.toronto.edu/~kriz/cifar.html
#pragma once
#include "nn/data/image_dataset.h"
#include "nn/data/registry.h"

namespace retort::nn {

enum class CifarFormat : std::uint8_t { kCifar10, kCifar100 };
/// "cifar10", "cifar100".
const char* name_of(CifarFormat format);

/// What the files of the official archives are called: data_batch_1.bin ... data_batch_5.bin,
/// test_batch.bin; train.bin, test.bin.
std::vector<std::string> cifar_standard_files(CifarFormat format, bool train);

/// One file's content. Throws Error(kBadInput) naming file, record and byte offset: an empty file,
/// a size that is no whole number of records, a label outside the format's range.
std::shared_ptr<ImageDataset> parse_cifar(std::string_view content, CifarFormat format,
                                          const std::string& name);

/// All images of `files` in that order. A relative name is looked for in `root`, then in the
/// folder that the official archive unpacks to (root/cifar-10-batches-bin, root/cifar-100-binary);
/// each may be stored with .xz. Files above 1 GiB are refused. Throws Error(kIo, kBadInput).
std::shared_ptr<ImageDataset> read_cifar(CifarFormat format, const std::string& root,
                                         const std::vector<std::string>& files);

/// "cifar10", "cifar100", for the registry.
DataKind cifar_kind();

}  // namespace retort::nn
