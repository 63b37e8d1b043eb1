#include "nn/checkpoint/weights.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

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

WeightsInfo load(const Module::Named& targets, const Module::NamePairs& spellings,
                 const SafetensorsReader& reader) {
  const std::string place = escaped(reader.path(), 4096);
  WeightsInfo info;
  info.path = reader.path();
  info.metadata = reader.header().metadata;

  std::unordered_map<std::string, std::size_t> wanted;  // place in targets
  for (std::size_t i = 0; i < targets.size(); ++i)
    wanted.emplace(canonical(targets[i].first, spellings), i);
  std::vector<std::optional<SafetensorsEntry>> found(targets.size());
  List missing, unexpected, misshaped;
  for (const SafetensorsEntry& entry : reader.header().entries) {  // in file order
    if (carries_nothing(entry.name)) {
      info.ignored.push_back(entry.name);
      continue;
    }
    const auto target = wanted.find(canonical(entry.name, spellings));
    if (target == wanted.end()) {
      unexpected.add(escaped(entry.name));
      continue;
    }
    std::optional<SafetensorsEntry>& slot = found[target->second];
    RETORT_CHECK_AS(kBadInput, !slot, place, ": '", escaped(entry.name), "' and '",
                    escaped(slot ? slot->name : ""), "' are the same weight");
    slot = entry;
  }
  struct Match {
    Tensor to;
    const SafetensorsEntry* entry;
  };
  std::vector<Match> matches;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const auto& [path, tensor] = targets[i];
    if (!found[i]) {
      missing.add(path);
      continue;
    }
    const SafetensorsEntry* entry = &*found[i];
    if (!entry->dtype || !is_floating(*entry->dtype)) {
      misshaped.add(
          join(escaped(entry->name), ": expected a floating dtype, got ", entry->dtype_name));
    } else if (!(entry->shape == file_shape(tensor))) {
      misshaped.add(
          join(escaped(entry->name), ": expected ", file_shape(tensor), ", got ", entry->shape));
    } else {
      matches.push_back({tensor, entry});
    }
  }
  if (!missing.empty() && !unexpected.empty())
    if (const std::string prefix = common_prefix(reader.header().entries, wanted, spellings);
        !prefix.empty())
      fail(ErrorCode::kBadInput, place, ": the weights are there, but their names begin with '",
           escaped(prefix), "': save them without it, in Python {k.removeprefix('", escaped(prefix),
           "'): v for k, v in weights.items()}");
  if (!missing.empty() || !unexpected.empty() || !misshaped.empty())
    fail(ErrorCode::kBadInput, place, ": the weights do not fit the model",
         missing.empty() ? "" : "; missing: " + missing.str(),
         unexpected.empty() ? "" : "; unexpected: " + unexpected.str(),
         misshaped.empty() ? "" : "; wrong shape: " + misshaped.str());

  // All are read and checked before the first is changed.
  std::vector<Tensor> values;
  for (const Match& match : matches) {
    const Tensor converted = reader.read(*match.entry).to(match.to.dtype());
    const std::int64_t bad = first_not_finite(converted);  // 1e300 is none as f32
    RETORT_CHECK_AS(kBadInput, bad < 0, place, ": '", escaped(match.entry->name),
                    "' has a NaN or an infinity at element ", bad, " (as ",
                    name_of(match.to.dtype()), ")");
    values.push_back(converted.rank() == 4 ? move_channels(converted, /*to_torch=*/false)
                                           : converted);
  }
  for (std::size_t i = 0; i < matches.size(); ++i) matches[i].to.copy_from(values[i]);
  return info;
}

NamedTensors in_file_layout(const Module::Named& tensors) {
  NamedTensors list;
  for (const auto& [path, tensor] : tensors) {
    const Tensor host = tensor.detach().contiguous().to(Device::kCpu);
    list.emplace_back(path, host.rank() == 4 ? move_channels(host, /*to_torch=*/true) : host);
  }
  return list;
}

}  // namespace

WeightsInfo load_weights(Module& module, const std::string& path) {
  return load(all_tensors(module), module.file_names(), SafetensorsReader(path));
}

WeightsInfo load_weights(const TrainedModules& modules, const std::string& path) {
  Module::NamePairs spellings;
  for (const auto& [prefix, module] : modules)
    for (auto& pair : module->file_names()) spellings.push_back(std::move(pair));
  return load(all_tensors(modules), spellings, SafetensorsReader(path));
}

NamedTensors weights_of(const Module& module) { return in_file_layout(all_tensors(module)); }
NamedTensors weights_of(const TrainedModules& modules) {
  return in_file_layout(all_tensors(modules));
}

void save_weights(const Module& module, const std::string& path,
                  const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, weights_of(module), metadata);
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
