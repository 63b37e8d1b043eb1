// Fuzz target of the CIFAR reader and of the xz unpacking before it: any bytes are either refused
// with Error(kBadInput), or accepted, and then every image can be made into a batch. The first byte
// chooses the format and whether the rest is an xz archive.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/cifar_fuzz.cpp
//     nn/data/cifar.cpp nn/data/packed_file.cpp nn/data/image_dataset.cpp nn/data/image_source.cpp
//     -Lbuild/lib -lretort -llzma -lxxhash -Wl,-rpath,build/lib -o cifar_fuzz
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "nn/data/cifar.h"
#include "nn/data/packed_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retort;
  if (size == 0) return 0;
  const auto expect = [](bool condition) {
    if (!condition) std::abort();
  };
  const auto format = data[0] & 1 ? nn::CifarFormat::kCifar100 : nn::CifarFormat::kCifar10;
  std::string content(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] & 2) content = nn::unpack_xz(content, "fuzz.xz", 1 << 20);
    const auto dataset = nn::parse_cifar(content, format, "fuzz");
    expect(dataset->size() > 0 && dataset->size() <= static_cast<std::int64_t>(content.size()));
    std::vector<std::int64_t> all(static_cast<std::size_t>(dataset->size()));
    std::iota(all.begin(), all.end(), 0);
    const nn::Batch batch = dataset->source({.treatment = {{"augment", "crop_flip"}}})->make(all);
    for (const std::int32_t target : batch.targets.to_vector<std::int32_t>())
      expect(target >= 0 && target < dataset->classes());
  } catch (const Error& e) {
    expect(e.code() == ErrorCode::kBadInput);
  }
  return 0;
}
