// A CUDA runtime whose device is the interpreter: its state. cudart.cpp, cudart_memory.cpp and
// cudart_graph.cpp hold the functions that nvcc's host code and the plug-in call; linked in place
// of cudart they make of the unchanged plug-in one that runs the unchanged PTX. Streams are
// synchronous.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tools/ptx/machine.h"

#ifdef RETORT_CUDART_EXPORTED  // a library of its own, for programs
#define RETORT_CUDART extern "C" __attribute__((visibility("default")))
#else  // in a plug-in, beside whatever else is loaded
#define RETORT_CUDART extern "C" __attribute__((visibility("hidden")))
#endif

namespace retort::ptx {

/// 80 or 90, from RETORT_PTX_ARCH (default 90): which of the embedded PTX texts runs, and the
/// compute capability that the device reports.
int architecture();

/// The texts of one file. They are parsed when a kernel of theirs is first needed.
struct Image {
  std::string text[2];  // sm_80, sm_90a
  std::unique_ptr<Module> module;
};
/// Takes the PTX texts of a fat binary: plain, or compressed as nvcc 13 does it.
void read_fatbin(const unsigned char* bytes, Image& image);

/// Parses the text of architecture(), once.
void parse_image(Image& image);

struct Kernel {
  Image* image;
  std::string name;
  int granted = 48 * 1024;  // dynamic shared memory
};
Function& function_of(Kernel& kernel);

struct Runtime {
  std::recursive_mutex mutex;
  std::vector<std::unique_ptr<Image>> images;
  std::map<const void*, Kernel> kernels;  // by host function
  Machine machine;
};
Runtime& runtime();

/// Keeps an error until it is asked for, as a runtime does.
cudaError_t keep(cudaError_t error);
/// What those who wait for the device get: the fault of a launch for which nobody has asked. A GPU
/// would say it from then on; here the program may go on once cudaGetLastError has told it.
cudaError_t fault_untaken();
/// Keeps `what` as the text of a launch failure, and prints it: a test may only say "unspecified".
cudaError_t keep_fault(const std::exception& what);

struct Stream;
struct Node {
  cudaGraphNodeType type;
  std::function<void()> run;
};
struct Capture {
  Stream* origin;
  std::vector<Node> nodes;
  std::set<Stream*> streams;
};
using Clock = std::map<const Stream*, u64>;  // how far each captured stream is known to have come
struct Stream {
  Capture* capture = nullptr;
  Clock clock;
};
Stream& stream_of(cudaStream_t stream);
/// Runs `work` now or, while the stream is captured, when the graph is launched.
cudaError_t enqueue(cudaStream_t stream, cudaGraphNodeType type, std::function<void()> work);

/// At exit, to the files that are named: what ran and what it cost. report.cpp has the formats.
void write_reports();
}  // namespace retort::ptx
