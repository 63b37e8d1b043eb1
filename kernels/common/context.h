// Where and how an op runs: the first argument of every op.
#pragma once
#include <cstddef>
#include <cstdint>

namespace retort {

enum class Device : std::uint8_t { kCpu, kCuda };

constexpr const char* name_of(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

/// Temporary memory of an op on the context's device, 256-byte aligned. One block per context: the
/// pointer is good until the next call of get(), or for work already enqueued on the stream.
class Scratch {
 public:
  virtual void* get(std::size_t bytes) = 0;

 protected:
  ~Scratch() = default;
};

/// Ops never synchronise, allocate device memory other than scratch, or read results back.
struct Context {
  Device device = Device::kCpu;
  void* stream = nullptr;      // cudaStream_t; null on the CPU
  void* libraries = nullptr;   // the plug-in's cuBLASLt and cuDNN handles; null on the CPU
  Scratch* scratch = nullptr;  // never null in a context made by the engine
  bool allow_tf32 = false;     // f32 on CUDA is true f32 unless this is asked for
};

}  // namespace retort
