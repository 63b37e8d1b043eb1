#include "nn/checkpoint/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/checkpoint/weight_files.h"

namespace retort::nn {
namespace {

// (A, B, C, D) -> (A, D, B, C) if to_torch, else (A, C, D, B): between (K, R, S, C) and (K, C, R,
// S).
Tensor move_channels(const Tensor& from, bool to_torch) {
  const std::int64_t k = from.dim(0), a = from.dim(1), b = from.dim(2), c = from.dim(3);
  const Tensor to = Tensor::empty(to_torch ? Shape{k, c, a, b} : Shape{k, b, c, a}, from.dtype());
  const std::size_t size = size_of(from.dtype());
  if (from.numel() == 0) return to;
  // Each filter is a matrix: (R S, C) <-> (C, R S).
  const std::int64_t rows = to_torch ? a * b : a, columns = to_torch ? c : b * c;
  const char* source = static_cast<const char*>(from.raw());
  char* target = static_cast<char*>(to.raw());
  for (std::int64_t f = 0; f < k; ++f)
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        std::memcpy(target + static_cast<std::size_t>((f * columns + j) * rows + i) * size,
                    source + static_cast<std::size_t>((f * rows + i) * columns + j) * size, size);
  return to;
}

Tensor transposed_copy(const Tensor& from) {  // (A, B) -> (B, A)
  const std::int64_t rows = from.dim(0), columns = from.dim(1);
  const Tensor to = Tensor::empty({columns, rows}, from.dtype());
  const std::size_t size = size_of(from.dtype());
  const char* const source = static_cast<const char*>(from.raw());
  char* const target = static_cast<char*>(to.raw());
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      std::memcpy(target + static_cast<std::size_t>(j * rows + i) * size,
                  source + static_cast<std::size_t>(i * columns + j) * size, size);
  return to;
}

Shape file_shape(const Tensor& tensor) {
  if (tensor.rank() != 4) return tensor.shape();
  return {tensor.dim(0), tensor.dim(3), tensor.dim(1), tensor.dim(2)};
}

// Names that mean the same tensor in the public code bases get one spelling.
std::string canonical(std::string name, const Module::NamePairs& spellings) {
  for (bool again = true; again;) {
    again = false;
    for (const char* wrapper : {"module.", "_orig_mod."})
      if (name.rfind(wrapper, 0) == 0) {
        name.erase(0, std::strlen(wrapper));
        again = true;
      }
  }
  for (std::size_t at; (at = name.find("._orig_mod.")) != std::string::npos;) name.erase(at, 10);
  for (const auto& [theirs, ours] : spellings) {
    const std::size_t at = name.find(theirs);
    if (at == 0 || (at != std::string::npos && theirs.starts_with('.')))
      name.replace(at, theirs.size(), ours);
  }
  return name;
}

// Counters: of batch norms, and of an averaged model (torch.optim.swa_utils.AveragedModel).
bool carries_nothing(std::string_view name) {
  const std::size_t point = name.rfind('.');
  const std::string_view last = point == name.npos ? name : name.substr(point + 1);
  return last == "num_batches_tracked" || last == "n_averaged";
}

Module::Named all_tensors(const Module& module, const std::string& prefix = "") {
  Module::Named all;
  for (auto& [name, tensor] : module.named_parameters()) all.emplace_back(prefix + name, tensor);
  for (auto& [name, tensor] : module.named_buffers()) all.emplace_back(prefix + name, tensor);
  return all;
}

Module::Named all_tensors(const TrainedModules& modules) {
  Module::Named all;
  for (const auto& [prefix, module] : modules)
    for (auto& named : all_tensors(*module, prefix)) all.push_back(std::move(named));
  return all;
}

// "a, b, c and 7 more"
class List {
 public:
  void add(const std::string& item) {
    if (++count_ <= kShown) text_ += (count_ > 1 ? ", " : "") + item;
  }
  bool empty() const { return count_ == 0; }
  std::string str() const {
    return count_ > kShown ? join(text_, " and ", count_ - kShown, " more") : text_;
  }

 private:
  static constexpr std::size_t kShown = 20;
  std::string text_;
  std::size_t count_ = 0;
};

// Index of the first NaN or infinity, -1 if all are finite.
std::int64_t first_not_finite(const Tensor& tensor) {
  if (tensor.dtype() == DType::kF32) {
    const float* const values = tensor.data<float>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i)
      if (!std::isfinite(values[i])) return i;
    return -1;
  }
  const std::vector<double> values = tensor.to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) return static_cast<std::int64_t>(i);
  return -1;
}

// The part of the names in a file behind which every weight of the model is found: "model." where a
// training script saved itself and not its model. "" if there is none.
std::string common_prefix(const SafetensorsEntries& entries,
                          const std::unordered_map<std::string, std::size_t>& wanted,
                          const Module::NamePairs& spellings) {
  std::unordered_map<std::string, std::size_t> found;
  for (const SafetensorsEntry& entry : entries)
    for (std::size_t at = entry.name.find('.'); at != std::string::npos;
         at = entry.name.find('.', at + 1))
      if (wanted.contains(canonical(entry.name.substr(at + 1), spellings)) &&
          ++found[entry.name.substr(0, at + 1)] == wanted.size())
        return entry.name.substr(0, at + 1);
  return "";
}

using Names = Module::FileRules::Names;

bool begins_with_one_of(const std::string& name, const Names& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}
bool ends_with_one_of(const std::string& name, const Names& ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](const std::string& end) { return name.ends_with(end); });
}

// Of what class a saved model is, by the text of its config.json; "" where it does not say.
std::string architecture_of(const Json& config) {
  const Json* const list =
      config.kind() == Json::Kind::kObject ? config.find("architectures") : nullptr;
  if (list == nullptr || list->kind() != Json::Kind::kArray || list->items().empty() ||
      list->items()[0].kind() != Json::Kind::kString)
    return "";
  return list->items()[0].as_string();
}

// True if the folder says that its weights are of the module's own class: then nothing may lack.
bool same_architecture(const Module& module, const std::string& folder) {
  const auto* const model = dynamic_cast<const Model*>(&module);
  if (model == nullptr) return true;
  for (const auto& [name, text] : model->companions()) {
    std::error_code error;
    if (name != "config.json" || !std::filesystem::exists(folder + "/" + name, error)) continue;
    const std::string own = architecture_of(Json::parse(text, name));
    return !own.empty() && own == architecture_of(Json::read(folder + "/" + name));
  }
  return false;
}

// Reads files for some tensors: finds for each the one that holds it, and changes nothing before
// all of them are known to fit.
class Loading {
 public:
  Loading(const Module::Named& targets, const Module::NamePairs& spellings,
          const Module::FileRules& rules, const WeightFiles& files)
      : targets_(targets),
        spellings_(spellings),
        rules_(rules),
        files_(files),
        place_(escaped(files.path(), 4096)),
        found_(targets.size()) {
    for (std::size_t i = 0; i < targets.size(); ++i)
      wanted_.emplace(canonical(targets[i].first, spellings), i);
  }

  WeightsInfo run() {
    info_.path = files_.path();
    info_.metadata = files_.readers().front().header().metadata;
    for (const SafetensorsReader& reader : files_.readers())
      for (const SafetensorsEntry& entry : reader.header().entries)  // in file order
        sort(reader, entry);
    stand_in();
    List missing;
    for (std::size_t i = 0; i < targets_.size(); ++i)
      if (!found_[i] && !may_lack(i)) missing.add(targets_[i].first);
    if (!missing.empty() && !unexpected_.empty())
      for (const SafetensorsReader& reader : files_.readers())
        if (const std::string prefix = common_prefix(reader.header().entries, wanted_, spellings_);
            !prefix.empty())
          fail(ErrorCode::kBadInput, place_,
               ": the weights are there, but their names begin with '", escaped(prefix),
               "': save them without it, in Python {k.removeprefix('", escaped(prefix),
               "'): v for k, v in weights.items()}");
    // All are read and checked before the first is changed.
    std::vector<std::optional<Tensor>> values;
    for (std::size_t i = 0; i < targets_.size(); ++i) values.push_back(value_of(i));
    for (const Second& second : seconds_) compare(second, values[second.target]);
    if (!missing.empty() || !unexpected_.empty() || !misshaped_.empty() || !untied_.empty())
      fail(ErrorCode::kBadInput, place_, ": the weights do not fit the model",
           missing.empty() ? "" : "; missing: " + missing.str(),
           unexpected_.empty() ? "" : "; unexpected: " + unexpected_.str(),
           misshaped_.empty() ? "" : "; wrong shape: " + misshaped_.str(),
           untied_.empty() ? "" : "; not tied: " + untied_.str(),
           not_finite_.empty() ? "" : "; " + not_finite_.str());
    if (!not_finite_.empty()) fail(ErrorCode::kBadInput, place_, ": ", not_finite_.str());
    for (std::size_t i = 0; i < targets_.size(); ++i)
      if (values[i])
        targets_[i].second.copy_from(*values[i]);
      else
        info_.drawn.push_back(targets_[i].first);
    return std::move(info_);
  }

 private:
  struct Slot {
    const SafetensorsReader* reader;
    SafetensorsEntry entry;
  };
  struct Second {  // a tied weight under its second name
    Slot slot;
    std::size_t target;
  };

  void sort(const SafetensorsReader& reader, const SafetensorsEntry& entry) {
    const std::string name = canonical(entry.name, spellings_);
    const auto target = wanted_.find(name);
    if (target != wanted_.end()) {
      std::optional<Slot>& slot = found_[target->second];
      RETORT_CHECK_AS(kBadInput, !slot, place_, ": '", escaped(entry.name), "' and '",
                      escaped(slot ? slot->entry.name : ""), "' are the same weight");
      slot = {&reader, entry};
      return;
    }
    for (const auto& [second, first] : rules_.tied)
      if (const auto at = wanted_.find(first); name == second && at != wanted_.end()) {
        seconds_.push_back({{&reader, entry}, at->second});
        return;
      }
    if (carries_nothing(entry.name) || begins_with_one_of(name, rules_.ignored) ||
        ends_with_one_of(name, rules_.ignored_at_end))
      info_.ignored.push_back(entry.name);
    else
      unexpected_.add(escaped(entry.name));
  }

  void stand_in() {
    for (const Second& second : seconds_)
      if (!found_[second.target]) found_[second.target] = second.slot;
  }

  // Part of something that lacks as a whole.
  bool may_lack(std::size_t i) const {
    for (const std::string& prefix : rules_.may_lack) {
      if (!targets_[i].first.starts_with(prefix)) continue;
      bool whole = true;
      for (std::size_t k = 0; k < targets_.size(); ++k)
        whole &= !(found_[k] && targets_[k].first.starts_with(prefix));
      return whole;
    }
    return false;
  }

  bool is_transposed(std::size_t i) const {
    return ends_with_one_of(targets_[i].first, rules_.transposed);
  }

  bool fits(std::size_t i, const SafetensorsEntry& entry) {
    const Tensor& tensor = targets_[i].second;
    const Shape wanted =
        is_transposed(i) ? Shape{tensor.dim(1), tensor.dim(0)} : file_shape(tensor);
    if (!entry.dtype || !is_floating(*entry.dtype)) {
      misshaped_.add(
          join(escaped(entry.name), ": expected a floating dtype, got ", entry.dtype_name));
      return false;
    }
    if (entry.shape == wanted) return true;
    misshaped_.add(join(escaped(entry.name), ": expected ", wanted, ", got ", entry.shape));
    return false;
  }

  Tensor read(std::size_t i, const Slot& slot) const {
    const Tensor converted = slot.reader->read(slot.entry).to(targets_[i].second.dtype());
    if (is_transposed(i)) return transposed_copy(converted);
    return converted.rank() == 4 ? move_channels(converted, /*to_torch=*/false) : converted;
  }

  std::optional<Tensor> value_of(std::size_t i) {
    if (!found_[i] || !fits(i, found_[i]->entry)) return std::nullopt;
    const Slot& slot = *found_[i];
    Tensor value = read(i, slot);
    // Looked for as the file has it: 1e300 is none as f32.
    const std::int64_t bad = is_transposed(i) || value.rank() == 4
                                 ? first_not_finite(slot.reader->read(slot.entry).to(value.dtype()))
                                 : first_not_finite(value);
    if (bad >= 0)
      not_finite_.add(join("'", escaped(slot.entry.name), "' has a NaN or an infinity at element ",
                           bad, " (as ", name_of(value.dtype()), ")"));
    return value;
  }

  void compare(const Second& second, const std::optional<Tensor>& first) {
    const std::size_t i = second.target;
    if (!first || second.slot.entry.name == found_[i]->entry.name) return;
    if (!fits(i, second.slot.entry)) return;
    const Tensor value = read(i, second.slot);
    if (std::memcmp(value.raw(), first->raw(), value.bytes()) != 0)
      untied_.add(join(escaped(second.slot.entry.name), ": expected the values of ",
                       escaped(found_[i]->entry.name)));
  }

  const Module::Named& targets_;
  const Module::NamePairs& spellings_;
  const Module::FileRules& rules_;
  const WeightFiles& files_;
  std::string place_;
  std::unordered_map<std::string, std::size_t> wanted_;  // place in targets_
  std::vector<std::optional<Slot>> found_;
  std::vector<Second> seconds_;
  List unexpected_, misshaped_, untied_, not_finite_;
  WeightsInfo info_;
};

NamedTensors in_file_layout(const Module::Named& tensors, const Module::FileRules& rules) {
  NamedTensors list;
  for (const auto& [path, tensor] : tensors) {
    const Tensor host = tensor.detach().contiguous().to(Device::kCpu);
    list.emplace_back(path, ends_with_one_of(path, rules.transposed) ? transposed_copy(host)
                            : host.rank() == 4 ? move_channels(host, /*to_torch=*/true)
                                               : host);
  }
  return list;
}

// Of modules that share a file: only what decides the layout.
Module::FileRules layout_rules(const TrainedModules& modules) {
  Module::FileRules rules;
  for (const auto& [prefix, module] : modules)
    for (const std::string& name : module->file_rules().transposed)
      rules.transposed.push_back(name);
  return rules;
}

}  // namespace

WeightsInfo load_weights(Module& module, const std::string& path) {
  const WeightFiles files(path);
  const Module::NamePairs spellings = module.file_names();
  Module::FileRules rules = module.file_rules();
  if (!rules.may_lack.empty() && same_architecture(module, files.folder())) rules.may_lack.clear();
  return Loading(all_tensors(module), spellings, rules, files).run();
}

WeightsInfo load_weights(const TrainedModules& modules, const std::string& path) {
  Module::NamePairs spellings;
  for (const auto& [prefix, module] : modules)
    for (auto& pair : module->file_names()) spellings.push_back(std::move(pair));
  return Loading(all_tensors(modules), spellings, layout_rules(modules), WeightFiles(path)).run();
}

NamedTensors weights_of(const Module& module) {
  return in_file_layout(all_tensors(module), module.file_rules());
}
NamedTensors weights_of(const TrainedModules& modules) {
  return in_file_layout(all_tensors(modules), layout_rules(modules));
}

void save_weights(const Module& module, const std::string& path,
                  const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, weights_of(module), metadata);
}

void save_model(const Model& model, const std::string& folder,
                const std::map<std::string, std::string>& metadata) {
  make_folders(folder);
  for (const auto& [name, text] : model.companions())
    write_file_atomically(folder + "/" + name, text);
  save_weights(model, folder + "/model.safetensors", metadata);
}

std::string weights_hash(const Module& module) {
  Hasher hasher;
  for (const auto& [path, tensor] : all_tensors(module)) {
    const std::string head = join(path, " ", name_of(tensor.dtype()), " ", tensor.shape(), "\n");
    hasher.update(head.data(), head.size());
    const Tensor host = tensor.detach().contiguous().to(Device::kCpu);
    if (host.numel() > 0) hasher.update(host.raw(), host.bytes());
  }
  return hasher.hex();
}

}  // namespace retort::nn
