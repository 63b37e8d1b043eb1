// The table of a run: a line a case, its figures as plain numbers. Google Benchmark's own writes
// 0.0025 ms as "2.5m" in a column of milliseconds.
#pragma once
#include <benchmark/benchmark.h>

namespace retort::bench {

class Console final : public benchmark::ConsoleReporter {
 public:
  Console() : ConsoleReporter(OO_None) {}

 protected:
  void PrintHeader(const Run& run) override;
  void PrintRunData(const Run& run) override;
};

}  // namespace retort::bench
