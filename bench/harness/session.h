// A case made ready to be timed, and what is found out about it besides time.
#pragma once
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bench/harness/case.h"
#include "bench/harness/timer.h"
#include "engine/runtime/graph.h"
#include "kernels/common/context.h"

namespace retort::bench {

/// The context kernels of a case run in: the engine's, with the temporary memory they ask for
/// noted. Valid for this thread.
const Context& kernel_context(Device device);

/// Of the first processor's last cache level.
double last_cache_bytes();

/// Bytes to rotate through so that no call finds its operands in the last cache level: twice that
/// cache, as the machine reports it.
double cold_bytes(Device device);

/// What one run shows besides time. Figures that do not apply are NaN or empty.
struct Facts {
  double max_error = 0;        // read only where the work has an oracle
  double workspace_bytes = 0;  // temporary memory: scratch and what the allocator gave on top
  double launches = std::numeric_limits<double>::quiet_NaN();  // hand-written kernels, CUDA
  std::string hash;  // XXH3-128 of the outputs; of a sample where that is what can be copied soon
  double hashed_bytes = 0;
  bool hash_equal = true;  // of a second run
};

/// A call on CUDA that takes less is timed as one graph of many: launched one by one, the gaps
/// between such kernels would be measured too.
inline constexpr double kGraphedBelowMs = 0.02;

class Session {
 public:
  /// Makes as many works as cold caches need (`smoke`: at most 2; steps: 1), runs each once, and
  /// finds how many calls make a sample that the clock resolves.
  Session(const Case& c, bool smoke, double graphed_below_ms = kGraphedBelowMs);

  const Case& bench_case() const { return case_; }
  int works() const { return static_cast<int>(works_.size()); }
  int calls_per_sample() const { return calls_; }
  /// False where caches may be warm: too many works would be needed.
  bool cold() const { return cold_; }
  /// True where a sample is the replay of a graph of its calls.
  bool graphed() const { return graph_ != nullptr; }
  bool has_composed() const { return static_cast<bool>(works_[0].composed); }
  /// The same of the chain: false beside a graphed kernel means its launches' gaps are in its time.
  bool composed_graphed() const { return composed_graph_ != nullptr; }
  Work& work() { return works_[0]; }

  double sample();  // ms per call
  /// The same of the chain of plain ops, of as many calls, and as a graph where the kernel's is one
  /// and the chain can be captured.
  double sample_composed();
  /// Builds what the chain needs once and runs it once per work: nothing of that is timed. The
  /// first sample_composed() does it where it was not done.
  void prepare_composed();
  Facts facts();  // runs the first work twice

 private:
  Work& next();
  Work& next_composed();
  std::unique_ptr<Graph> captured(const std::function<void()>& call);
  double time_calls(const std::function<void()>& call, Graph* graph);
  Case case_;
  std::vector<Work> works_;
  std::size_t at_ = 0, composed_at_ = 0;  // apart: else one would always meet the same works
  int calls_ = 1;
  bool cold_ = true;
  Timer timer_;
  bool composed_ready_ = false;
  std::unique_ptr<Graph> graph_;  // of the calls of a sample; gone before the works
  std::unique_ptr<Graph> composed_graph_;
};

}  // namespace retort::bench
