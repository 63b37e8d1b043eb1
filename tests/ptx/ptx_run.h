// Runs small PTX texts for the interpreter's own tests.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tools/ptx/instructions.h"

namespace retort::ptx {

struct Result {
  std::vector<u32> out;  // a word per thread, or two where the test asks for them
  std::string fault;
};

/// A kernel around `body`, which finds tid.x in %r1, the address of its own word in %rd3 and that
/// of the first in %rd1. `dynamic` names the dynamic shared memory.
inline std::string kernel_text(const std::string& body) {
  return ".version 9.0\n.target sm_90a\n.address_size 64\n"
         ".extern .shared .align 1024 .b8 dynamic[];\n"
         ".visible .entry k(.param .u64 out) .maxntid 256, 1, 1\n{\n"
         ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<40>; .reg .f32 %f<80>;\n"
         ".reg .b64 %rd<20>; .reg .f64 %fd<10>; .local .align 8 .b8 frame[16];\n"
         "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n"
         "add.s64 %rd3, %rd1, %rd2;\n" +
         body + "\nret;\n}\n";
}

using SetOptions = std::function<void(Options&)>;

inline Result run_text(const std::string& text, u32 threads = 32, u32 cluster = 1,
                       const SetOptions& set = {}, u32 words = 1) {
  Result r;
  r.out.assign(std::size_t{threads} * cluster * words, 0);
  const std::size_t bytes = r.out.size() * 4;
  std::vector<u8> room(bytes + 512);
  u8* const at = room.data() + (256 - reinterpret_cast<u64>(room.data()) % 256);
  const u64 begin = reinterpret_cast<u64>(at) + kDeviceBias;
  memory().add(begin, bytes, at);
  try {
    const auto module = parse(text);
    Machine machine;
    if (set) set(machine.options);
    Launch launch;
    launch.grid.x = launch.cluster = cluster;
    launch.block.x = threads;
    launch.dynamic_shared = 16384;
    launch.params.resize(8);
    std::memcpy(launch.params.data(), &begin, 8);
    machine.run(*module, *module->functions.at("k"), launch);
  } catch (const Fault& e) {
    r.fault = e.what();
  }
  std::memcpy(r.out.data(), at, bytes);
  memory().remove(begin);
  return r;
}
inline Result run(const std::string& body, u32 threads = 32, u32 cluster = 1,
                  const SetOptions& set = {}) {
  return run_text(kernel_text(body), threads, cluster, set);
}

/// Every thread's word, or the fault.
template <class F>
void expect_words(const Result& r, F want) {
  ASSERT_EQ(r.fault, "");
  for (u32 t = 0; t < r.out.size(); ++t) ASSERT_EQ(r.out[t], want(t)) << "thread " << t;
}
inline void expect_fault(const Result& r, const std::string& what) {
  EXPECT_NE(r.fault.find(what), std::string::npos)
      << "expected a fault that says '" << what << "', got '" << r.fault << "'";
}

/// What `body` leaves in %r9 of thread 0.
inline u32 value32(const std::string& body, const SetOptions& set = {}) {
  const Result r = run(body + "\nst.global.u32 [%rd3], %r9;", 32, 1, set);
  EXPECT_EQ(r.fault, "") << body;
  return r.out[0];
}
/// What `body` leaves in %rd9.
inline u64 value64(const std::string& body) {
  const Result r = run(body + "\nmul.wide.u32 %rd2, %r1, 0;\nst.global.u64 [%rd1], %rd9;");
  EXPECT_EQ(r.fault, "") << body;
  return u64{r.out[1]} << 32 | r.out[0];
}
/// What `body` leaves in %f9, from float arguments in %f1, %f2, %f3.
inline float value_f32(const std::string& body, float a, float b = 0, float c = 0,
                       const SetOptions& set = {}) {
  std::string text;
  int k = 1;
  for (const float v : {a, b, c})
    text +=
        "mov.b32 %f" + std::to_string(k++) + ", " + std::to_string(std::bit_cast<u32>(v)) + ";\n";
  return std::bit_cast<float>(value32(text + body + "\nmov.b32 %r9, %f9;", set));
}
inline u32 float_bits(float v) { return std::bit_cast<u32>(v); }
}  // namespace retort::ptx
