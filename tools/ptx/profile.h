// What running kernels showed, for people who write them: instructions by class, coverage, what
// loads and stores cost, hazards; by line of source where the PTX names lines (nvcc -lineinfo).
#pragma once
#include <iosfwd>
#include <string>
#include <vector>

#include "tools/ptx/machine.h"

namespace retort::ptx {

/// A load, store or asynchronous copy that ran. Of global memory in sectors of 32 bytes, of shared
/// memory in passes over the 32 banks.
struct AccessProfile {
  Class kind;
  u32 line = 0;        // of the PTX
  std::string source;  // "" without -lineinfo
  std::string text;    // of the PTX
  Traffic traffic;

  bool shared() const { return kind == Class::kSharedLoad || kind == Class::kSharedStore; }
  /// Units per least: 1 is the best, 32 the worst; below 1 where lanes share what they read.
  double excess() const;
};
struct LineProfile {  // of source
  std::string file;   // as nvcc names it
  u32 line = 0;
  u32 instructions = 0, ran = 0;
  u64 warps = 0;  // executions
  Traffic global, shared;
};
struct KernelProfile {
  std::string name;  // demangled, without namespaces and parameters
  u64 launches = 0, blocks = 0, warp_instructions = 0, lane_instructions = 0;
  u32 instructions = 0, ran = 0;
  u64 by_class[kClasses] = {};          // executions by warps
  std::vector<AccessProfile> accesses;  // the most units above the least first
  std::vector<LineProfile> lines;       // by file and number
  std::vector<std::string> hazards;

  /// Of 32 lanes, how many took part on average.
  double lanes() const;
};

/// Of every kernel of `module` that was launched.
std::vector<KernelProfile> profile(const Machine& machine, const Module& module);

/// The text, and one page of HTML that needs no other file. `title` says what ran, and on what.
void write_text(std::ostream& out, const std::string& title,
                const std::vector<KernelProfile>& kernels);
void write_html(std::ostream& out, const std::string& title,
                const std::vector<KernelProfile>& kernels);

const char* name_of(Class c);
}  // namespace retort::ptx
