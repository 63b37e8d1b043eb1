#include "nn/data/cifar.h"

#include <cstring>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/runtime/allocator.h"
#include "nn/data/packed_file.h"

namespace retort::nn {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;
constexpr std::size_t kPixels = 3 * 32 * 32;

std::size_t label_bytes(CifarFormat format) { return format == CifarFormat::kCifar10 ? 1 : 2; }

std::string archive_folder(CifarFormat format) {
  return format == CifarFormat::kCifar10 ? "cifar-10-batches-bin" : "cifar-100-binary";
}

std::string locate(CifarFormat format, const std::string& root, const std::string& file) {
  namespace fs = std::filesystem;
  const fs::path direct = fs::path(root.empty() ? "." : root) / file;  // an absolute file wins
  const fs::path unpacked = fs::path(root.empty() ? "." : root) / archive_folder(format) / file;
  if (!packed_exists(direct.string()) && packed_exists(unpacked.string())) return unpacked.string();
  return direct.string();
}

}  // namespace

const char* name_of(CifarFormat format) {
  return format == CifarFormat::kCifar10 ? "cifar10" : "cifar100";
}

std::vector<std::string> cifar_standard_files(CifarFormat format, bool train) {
  if (format == CifarFormat::kCifar100) return {train ? "train.bin" : "test.bin"};
  if (!train) return {"test_batch.bin"};
  return {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
          "data_batch_5.bin"};
}

std::shared_ptr<ImageDataset> parse_cifar(std::string_view content, CifarFormat format,
                                          const std::string& name) {
  const std::size_t header = label_bytes(format), record = header + kPixels;
  const std::string shown = escaped(name, 4096);
  RETORT_CHECK_AS(kBadInput, !content.empty(), shown, ": expected ", name_of(format),
                  " records of ", record, " bytes, got an empty file");
  RETORT_CHECK_AS(kBadInput, content.size() % record == 0, shown, ": expected ", name_of(format),
                  " records of ", record, " bytes each, got ", content.size(), " bytes: record ",
                  content.size() / record, " at offset ", content.size() / record * record,
                  " is cut after ", content.size() % record, " bytes");
  const std::size_t count = content.size() / record;
  const MemoryRoleScope role(MemoryRole::kData);
  const Tensor images = Tensor::empty({static_cast<std::int64_t>(count), 3, 32, 32}, DType::kU8);
  std::vector<std::int32_t> labels(count);
  // The last label byte is the one used; the first of CIFAR-100 is one of 20 coarse classes.
  const int limits[2] = {format == CifarFormat::kCifar10 ? 10 : 20, 100};
  for (std::size_t i = 0; i < count; ++i) {
    const char* const at = content.data() + i * record;
    for (std::size_t k = 0; k < header; ++k) {
      const int label = static_cast<unsigned char>(at[k]);
      RETORT_CHECK_AS(kBadInput, label < limits[k], shown, ": expected a ",
                      header == 2 && k == 0 ? "coarse label" : "label", " in [0, ", limits[k],
                      "), got ", label, " in record ", i, " at offset ", i * record + k);
      labels[i] = label;
    }
    std::memcpy(images.data<std::uint8_t>() + i * kPixels, at + header, kPixels);
  }
  return std::make_shared<ImageDataset>(
      images, std::move(labels), format == CifarFormat::kCifar10 ? 10 : 100, name_of(format));
}

std::shared_ptr<ImageDataset> read_cifar(CifarFormat format, const std::string& root,
                                         const std::vector<std::string>& files) {
  RETORT_CHECK(!files.empty(), "[data] expected at least one ", name_of(format), " file");
  std::vector<std::shared_ptr<const ImageDataset>> parts;
  for (const std::string& file : files) {
    const std::string path = locate(format, root, file);
    parts.push_back(parse_cifar(read_packed(path, kMaxBytes), format, path));
  }
  return ImageDataset::concatenate(parts);
}

DataKind cifar_kind() {
  DataKind kind;
  kind.names = {"cifar10", "cifar100"};
  kind.gives = Reads::kImages;
  kind.doc = "CIFAR in its binary version: 32 x 32 colour images";
  kind.options = file_options();
  kind.treatment = image_treatment_options();
  kind.reading = image_reading_options();
  kind.open = [](const DataRequest& request) -> std::shared_ptr<const Dataset> {
    const CifarFormat format =
        request.format == "cifar100" ? CifarFormat::kCifar100 : CifarFormat::kCifar10;
    const bool train = request.split == "train";
    const Strings files = files_of(
        request, request.split == "validation" ? Strings{} : cifar_standard_files(format, train));
    if (files.empty()) return nullptr;
    const std::string folder = folder_of(request, files.front(), archive_folder(format));
    const std::int64_t per_file = train ? request.options.integer("train_per_file") : 0;
    std::vector<std::shared_ptr<const ImageDataset>> parts;
    for (const std::string& file : files)
      parts.push_back(std::static_pointer_cast<const ImageDataset>(
          first_of(read_cifar(format, folder, {file}), per_file)));
    const std::shared_ptr<const Dataset> all =
        parts.size() == 1 ? parts[0] : ImageDataset::concatenate(parts);
    return first_of(all, request.options.integer(request.split + "_limit"));
  };
  return kind;
}

}  // namespace retort::nn
