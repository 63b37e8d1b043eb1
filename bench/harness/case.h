// What is measured: a case is one op at one shape; a work is one set of its inputs and outputs.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/tensor/tensor.h"

namespace retort::bench {

/// One set of inputs and outputs, ready to run. The functions own what they use; all but `run` may
/// be empty.
struct Work {
  std::function<void()> run;       // enqueues one call
  std::function<void()> composed;  // the same function as a chain of plain ops
  /// Makes what the chain needs once (labels as one-hot rows), before its first call. Apart from
  /// `make`, since a peer's turns count the memory of a work.
  std::function<void()> prepare_composed;
  /// Puts back what run() overwrites of its own inputs, so that two runs can be compared. Without
  /// it run() writes every output whole: they are filled with other bytes before each of the two.
  std::function<void()> reset;
  /// After one run(): the largest error against the definition in double, relative to the largest
  /// result (of the same row where rows are independent). Each case says what it samples.
  std::function<double()> error;
  /// All that a run leaves behind; hashed to see whether two runs give the same bits.
  std::function<std::vector<Tensor>()> outputs;
  /// Inputs and first parameters for a peer that is to do the same work.
  std::function<NamedTensors()> exports;
  /// After one run(): a few numbers a peer must find too. May run again, from the first inputs.
  std::function<std::vector<double>()> digest;
};

/// What Work::error may be for a case that says nothing else, by the dtype of its results: what the
/// kernels' tests allow an element (tests/support/close.h), here as a share of the largest. On the
/// CPU all cases but those with a bound of their own stay below 1e-6 in f32, and at 4e-3 in bf16,
/// whose last rounding alone is up to 2^-8.
constexpr double default_error_bound(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return 1.6e-2;
    case DType::kF16: return 2e-3;
    case DType::kF32: return 1e-5;
    default: return 1e-7;
  }
}
/// Matrix work in f32 sums thousands of products, which left up to 5e-6.
inline constexpr double kMatrixErrorBound = 1e-4;

struct Case {
  std::string name;  // "op/variant/shape": unique per device and dtype; what filters match
  DType dtype = DType::kF32;
  Device device = Device::kCpu;
  double bytes = 0;  // read and written by formula: every operand once. 0: no such formula
  double flops = 0;  // multiplications and additions, each counted as one
  std::function<double()> count_flops = {};  // where counting takes a while: asked when it is run
  double working_set = 0;  // bytes that one work holds: how many are rotated follows from it
  bool matrix = false;     // compared with the matrix rate, else with the copy bandwidth
  bool step = false;       // a whole step: long, measured fewer times
  bool goal = false;       // what the project promises a time for: never left out for others
  double error_bound = 0;  // 0: that of its dtype, see bound()
  std::uint64_t seed = 1;  // of the inputs
  std::function<Work(const Case&)> make;

  double bound() const {
    if (error_bound > 0) return error_bound;
    return matrix && dtype == DType::kF32 ? kMatrixErrorBound : default_error_bound(dtype);
  }
  /// "cpu/op/variant/shape/f32"
  std::string full_name() const {
    return std::string(name_of(device)) + "/" + name + "/" + name_of(dtype);
  }
};

/// Cases are made for one device at a time.
struct Plan {
  Device device = Device::kCpu;
  bool smoke = false;  // toy sizes
  std::vector<Case> cases;

  void add(Case c) {
    c.device = device;
    cases.push_back(std::move(c));
  }
  /// A memory-bound kernel: what one work holds is what it moves.
  void add(const std::string& name, DType dtype, double bytes, double flops,
           std::function<Work(const Case&)> make) {
    Case c;
    c.name = name;
    c.dtype = dtype;
    c.bytes = c.working_set = bytes;
    c.flops = flops;
    c.make = std::move(make);
    add(std::move(c));
  }
  /// The size to use: toy, CPU or GPU.
  template <class T>
  T pick(T toy, T cpu, T gpu) const {
    return smoke ? toy : device == Device::kCpu ? cpu : gpu;
  }
};

/// "1024x10"
template <class... N>
std::string shape_name(std::int64_t first, N... rest) {
  std::string text = std::to_string(first);
  ((text += "x" + std::to_string(rest)), ...);
  return text;
}

}  // namespace retort::bench
