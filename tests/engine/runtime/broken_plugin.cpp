// Plug-ins with one fault each, for plugin_file_test.cpp: KIND says which.
#include <stdexcept>

#include "kernels/common/cuda_runtime.h"
#include "retort_abi_hash.h"

#if KIND != 7  // the last one is a library without the entry
namespace {

enum Kind { kNullInfo, kNullHash, kOtherHash, kNullOpen, kThrowingEntry, kThrowingOpen, kEmpty };

retort::Status fill_nothing(retort::CudaRuntime*) noexcept { return {}; }
retort::Status throw_anyway(retort::CudaRuntime*) { throw std::runtime_error("open is broken"); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const retort::PluginInfo* retort_plugin() {
  static retort::PluginInfo info{RETORT_ABI_HASH, fill_nothing};
  if (KIND == kNullInfo) return nullptr;
  if (KIND == kNullHash) info.abi_hash = nullptr;
  if (KIND == kOtherHash) info.abi_hash = "0";
  if (KIND == kNullOpen) info.open = nullptr;
  if (KIND == kThrowingEntry) throw std::runtime_error("the entry is broken");
  if (KIND == kThrowingOpen)
    info.open = reinterpret_cast<retort::Status (*)(retort::CudaRuntime*) noexcept>(throw_anyway);
  return &info;
}
#endif
