#include "nn/data/registry.h"

#include <filesystem>
#include <numeric>

#include "engine/io/file.h"
#include "nn/data/cifar.h"
#include "nn/data/packed_file.h"
#include "nn/data/parity.h"
#include "nn/data/table.h"
#include "nn/data/text/kinds.h"

namespace retort::nn {

Registry<DataKind>& data_kinds() {
  static Registry<DataKind> kinds(
      "data format", {cifar_kind(), parity_kind(), table_kind(), text_kind("text"),
                      text_kind("jsonl"), text_kind("tsv"), bioasq_kind(), tokens_kind()});
  return kinds;
}

std::shared_ptr<const Dataset> open_data(const DataRequest& request) {
  const DataKind& kind = data_kinds().at(request.format);
  DataRequest full = request;
  full.options = complete(request.format, kind.options, request.options);
  return kind.open(full);
}

std::vector<OptionSpec> file_options() {
  constexpr unsigned kPath = kChangesResult;  // the content decides; its hash is compared
  std::vector<OptionSpec> list{
      text_option("root", "",
                  "Folder of the data files; empty: the environment variable RETORT_DATA.")
          .without(kPath),
      strings_option("train_files", {},
                     "Training files in data.root (X may be X.xz); empty: the format's standard "
                     "names."),
      strings_option("validation_files", {}, "Held-out files, reported as split 'validation'."),
      strings_option("test_files", {},
                     "Test files, reported as split 'test'; empty: the format's standard name."),
      count_option("train_per_file", 0, 0, 1e9, "samples",
                   "Use the first n samples of every training file; 0: all."),
      count_option("train_limit", 0, 0, 1e9, "samples",
                   "Use the first n training samples; 0: all."),
      count_option("validation_limit", 0, 0, 1e9, "samples",
                   "Use the first n validation samples; 0: all."),
      count_option("test_limit", 0, 0, 1e9, "samples", "Use the first n test samples; 0: all.")};
  for (OptionSpec& spec : list) spec.in_arm = false;
  return list;
}

Strings files_of(const DataRequest& request, const Strings& standard) {
  const Strings& named = request.options.texts(request.split + "_files");
  return named.empty() ? standard : named;
}

std::string folder_of(const DataRequest& request, const std::string& file,
                      const std::string& archive) {
  namespace fs = std::filesystem;
  const std::string& root = request.options.text("root");
  RETORT_CHECK(!root.empty(), "[data] expected data.root=DIR, the folder of the ", request.format,
               " files (or the environment variable RETORT_DATA)");
  std::error_code error;
  RETORT_CHECK_AS(kIo, fs::is_directory(root, error), "[data] data.root: there is no folder ",
                  escaped(root, 4096));
  std::string looked;
  for (const std::string& inner : {std::string(), "/" + request.format}) {
    const std::string folder = root + inner;
    if (packed_exists(folder + "/" + file) ||
        (!archive.empty() && packed_exists(folder + "/" + archive + "/" + file)))
      return folder;
    looked += (looked.empty() ? "" : ", ") + folder;
  }
  if (file.starts_with('/')) return root;
  fail(ErrorCode::kIo, "[data] there is no file ", escaped(file, 4096), " nor ",
       escaped(file, 4096), ".xz in ", escaped(looked, 4096),
       archive.empty() ? "" : " or a folder " + archive + " there");
}

std::shared_ptr<const Dataset> first_of(std::shared_ptr<const Dataset> data, std::int64_t limit) {
  if (limit == 0 || limit >= data->size()) return data;
  std::vector<std::int64_t> samples(static_cast<std::size_t>(limit));
  std::iota(samples.begin(), samples.end(), 0);
  return data->subset(samples);
}

}  // namespace retort::nn
