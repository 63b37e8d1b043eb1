// Fuzz target of the safetensors reader: any bytes are either refused with Error(kBadInput), or
// accepted, and then every tensor can be read and the file survives a round trip.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//   tests/fuzz/safetensors_fuzz.cpp
//     engine/io/{file,json,safetensors}.cpp -Lbuild/lib -lretort -lxxhash -Wl,-rpath,build/lib
//     -o safetensors_fuzz && ./safetensors_fuzz -max_len=4096
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "engine/io/safetensors.h"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

std::string temporary_path(const char* suffix) {
  const char* folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  return std::string(folder) + "/retort-fuzz-" + std::to_string(getpid()) + suffix;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string path = temporary_path(".safetensors"), again = temporary_path(".again");
  std::FILE* file = std::fopen(path.c_str(), "wb");
  expect(file != nullptr);
  expect(std::fwrite(data, 1, size, file) == size);
  std::fclose(file);
  try {
    const retort::SafetensorsReader reader(path);
    retort::NamedTensors tensors;
    for (const retort::SafetensorsEntry& entry : reader.header().entries)
      if (entry.dtype) tensors.emplace_back(entry.name, reader.read(entry));
    retort::write_safetensors(again, tensors, reader.header().metadata);
    const retort::SafetensorsReader second(again);
    expect(second.header().entries.size() == tensors.size());
    for (const auto& [name, tensor] : tensors) {
      const retort::Tensor back = second.read(name);
      expect(back.shape() == tensor.shape() && back.dtype() == tensor.dtype());
      expect(tensor.numel() == 0 || std::memcmp(back.raw(), tensor.raw(), tensor.bytes()) == 0);
    }
  } catch (const retort::Error& e) {
    expect(e.code() == retort::ErrorCode::kBadInput);
  }
  unlink(path.c_str());
  unlink(again.c_str());
  return 0;
}
