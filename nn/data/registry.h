// Data by the names that recipes use: what keys it reads, and how it is opened.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/data/dataset.h"
#include "nn/registry.h"

namespace retort::nn {

/// Which part of the data, with complete options of the kind.
struct DataRequest {
  std::string format;  // one of the kind's names
  std::string split;   // "train", "validation", "test"
  Options options = {};
  /// Told a sentence now and then of what takes long; may be empty.
  std::function<void(const std::string&)> tell = {};
};

/// A kind of data: one row of the registry.
struct DataKind {
  std::vector<std::string> names;
  Reads gives = Reads::kFeatures;
  bool endless = false;                    // split "train" has no end: nothing to order or count
  std::vector<OptionSpec> options = {};    // what and where it is: data.<key>
  std::vector<OptionSpec> treatment = {};  // what training does to a sample: data.<key>
  std::vector<OptionSpec> reading = {};    // how a model reads it: student.<key>, teacher.<key>
  std::string doc = {};                    // one sentence
  /// Of complete options; null: every value that fits its row is right.
  std::function<std::optional<OptionFault>(const Options&)> check = {};
  /// Null for a split that nobody named and that has no standard name.
  /// Errors    kUsage, kIo, kBadInput, as the kind says.
  std::function<std::shared_ptr<const Dataset>(const DataRequest&)> open = {};
};

/// The rows; data_kinds().add(kind) from outside. See nn/registry.h.
Registry<DataKind>& data_kinds();

/// Opens a split. Errors    those of the kind; kUsage for an unknown format or option.
std::shared_ptr<const Dataset> open_data(const DataRequest& request);

/// The keys of data that is made of files: root, {train,validation,test}_files, train_per_file,
/// {train,validation,test}_limit.
std::vector<OptionSpec> file_options();
/// The files of a split as named, else the standard ones. Empty: there is no such split.
Strings files_of(const DataRequest& request, const Strings& standard);
/// The folder below options' "root" that holds the file: the root itself, the folder named like the
/// format inside it, or `archive` (what an official archive unpacks to) in either.
/// Errors    kUsage without a root; kIo naming all that was tried.
std::string folder_of(const DataRequest& request, const std::string& file,
                      const std::string& archive);
/// The first `limit` samples; all for 0 or where there are fewer.
std::shared_ptr<const Dataset> first_of(std::shared_ptr<const Dataset> data, std::int64_t limit);

}  // namespace retort::nn
