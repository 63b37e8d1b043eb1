#include "bench/harness/session.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort::bench {
namespace {

constexpr int kMostWorks = 64;
constexpr double kMostRotated = 1 << 30;  // bytes

// Forwards to the engine's scratch and notes the most that was asked for.
class NotingScratch final : public Scratch {
 public:
  void* get(std::size_t bytes) override {
    most = std::max(most, bytes);
    return inner->get(bytes);
  }
  Scratch* inner = nullptr;
  std::size_t most = 0;
};

struct NotedContext {
  Context context;
  NotingScratch scratch;
};
NotedContext& noted(Device device) {
  thread_local NotedContext contexts[2];
  NotedContext& c = contexts[static_cast<int>(device)];
  c.scratch.inner = context_of(device).scratch;
  c.context = context_of(device);
  c.context.scratch = &c.scratch;
  return c;
}

// Launches of hand-written kernels so far; NaN where the device has none or does not count.
template <class Runtime>
double launches_of(const Runtime& runtime, Device device) {
  if constexpr (requires { runtime.launches(); })
    if (device == Device::kCuda && runtime.launches) return static_cast<double>(runtime.launches());
  return std::numeric_limits<double>::quiet_NaN();
}

struct Digest {
  std::string hash;
  double bytes = 0;
};
// All bytes of the outputs. Of one that is large and on a GPU, from which a gigabyte takes longer
// than its measurement, pieces from its beginning to its end.
Digest digest_of(const std::vector<Tensor>& outputs) {
  constexpr std::int64_t kPieces = 64, kPieceBytes = 64 << 10;
  Hasher hasher;
  Digest digest;
  const auto add = [&](const Tensor& t) {
    const Tensor host = t.to(Device::kCpu);
    if (host.numel() > 0) hasher.update(host.raw(), host.bytes());
    digest.bytes += static_cast<double>(host.bytes());
  };
  for (const Tensor& t : outputs) {
    const Tensor dense = t.detach().contiguous();
    const std::int64_t n = dense.numel(),
                       piece = kPieceBytes / static_cast<std::int64_t>(size_of(t.dtype()));
    if (t.device() == Device::kCpu || n <= kPieces * piece) {
      add(dense);
      continue;
    }
    const Tensor flat = dense.view({n});
    for (std::int64_t i = 0; i < kPieces; ++i) {
      const std::int64_t begin = (n - piece) / (kPieces - 1) * i;
      add(flat.slice(begin, begin + piece));
    }
    add(flat.slice(n - piece, n));
  }
  digest.hash = hasher.hex();
  return digest;
}

}  // namespace

const Context& kernel_context(Device device) { return noted(device).context; }

double last_cache_bytes() {
  // sysconf counts the caches of a whole machine where this one is a virtual part of it.
  double kib = 0;
  std::ifstream("/sys/devices/system/cpu/cpu0/cache/index3/size") >> kib;
  return kib > 0 ? kib * 1024 : 32e6;
}

double cold_bytes(Device device) {
  return device == Device::kCuda ? 256e6  // H200: 60 MB of L2
                                 : 2 * last_cache_bytes();
}

Session::Session(const Case& c, bool smoke, double graphed_below_ms) : case_(c), timer_(c.device) {
  const double cold = std::min(cold_bytes(c.device), kMostRotated);
  double wanted = c.working_set > 0 ? std::ceil(cold / c.working_set) : 1;
  if (wanted > kMostWorks) cold_ = false;
  if (smoke) wanted = std::min(wanted, 2.0);
  const int count = c.step ? 1 : static_cast<int>(std::clamp<double>(wanted, 1, kMostWorks));
  double fastest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < count; ++i) {
    case_.seed = c.seed + static_cast<std::uint64_t>(i);
    works_.push_back(case_.make(case_));
    works_.back().run();  // first touch of every page and every cached plan
    synchronize(c.device);
  }
  case_.seed = c.seed;
  if (case_.count_flops) case_.flops = case_.count_flops();
  if (c.step) return;
  for (int i = 0; i < 3; ++i) fastest = std::min(fastest, timer_.time(next().run));
  const double wanted_ms = c.device == Device::kCuda ? 0.2 : 0.02;
  calls_ =
      static_cast<int>(std::clamp(std::ceil(wanted_ms / std::max(fastest, 1e-5)), 1.0, 1000.0));
  if (c.device == Device::kCuda && fastest < graphed_below_ms) {
    // Whole turns through the works: a replay begins where the last one did, and must find it cold.
    calls_ = (calls_ + works() - 1) / works() * works();
    graph_ = captured([this] { next().run(); });
  }
}

// What cannot be captured, because it waits for the device or uploads, stays a loop of launches:
// null then.
std::unique_ptr<Graph> Session::captured(const std::function<void()>& call) {
  const auto calls = [&] {
    for (int i = 0; i < calls_; ++i) call();
  };
  auto graph = std::make_unique<Graph>(std::make_shared<GraphMemory>());
  try {
    for (int i = 0; i < 5 && !graph->captured(); ++i)
      if (graph->rehearse(calls)) graph->capture(calls);
  } catch (const Error&) {
    synchronize(case_.device);
  }
  return graph->captured() ? std::move(graph) : nullptr;
}

Work& Session::next() {
  at_ = (at_ + 1) % works_.size();
  return works_[at_];
}

Work& Session::next_composed() {
  composed_at_ = (composed_at_ + 1) % works_.size();
  return works_[composed_at_];
}

double Session::time_calls(const std::function<void()>& call, Graph* graph) {
  if (graph) return timer_.time([=] { graph->launch(); }) / calls_;
  return timer_.time([&] {
    for (int i = 0; i < calls_; ++i) call();
  }) / calls_;
}

double Session::sample() {
  return time_calls([this] { next().run(); }, graph_.get());
}

void Session::prepare_composed() {
  if (composed_ready_ || !has_composed()) return;
  for (Work& w : works_) {
    if (w.prepare_composed) w.prepare_composed();
    w.composed();  // also makes what a captured chain may not, such as its leaf's gradient
    synchronize(case_.device);
  }
  if (graph_) composed_graph_ = captured([this] { next_composed().composed(); });
  composed_ready_ = true;
}

double Session::sample_composed() {
  prepare_composed();
  return time_calls([this] { next_composed().composed(); }, composed_graph_.get());
}

Facts Session::facts() {
  Work& w = works_[0];
  const Device device = case_.device;
  Facts f;
  // Either what the run starts from is put back, or its outputs hold what it cannot give: a run
  // that leaves some of them alone shows in the error (NaN) and in the second hash.
  const auto before_run = [&](double value, double integer) {
    if (w.reset) return w.reset();
    if (!w.outputs) return;
    for (const Tensor& t : w.outputs())
      if (t.defined()) t.detach().fill(is_floating(t.dtype()) ? value : integer);
  };
  before_run(std::numeric_limits<double>::quiet_NaN(), 85);
  NotedContext& context = noted(device);
  context.scratch.most = 0;
  const std::size_t before = memory_statistics(device).current_bytes;
  reset_peak_memory(device);
  const double launched = launches_of(cuda_runtime, device);
  w.run();
  f.launches = launches_of(cuda_runtime, device) - launched;
  synchronize(device);
  f.workspace_bytes = static_cast<double>(memory_statistics(device).peak_bytes - before) +
                      static_cast<double>(context.scratch.most);
  if (w.outputs) {
    const Digest digest = digest_of(w.outputs());
    f.hash = digest.hash;
    f.hashed_bytes = digest.bytes;
  }
  if (w.error) f.max_error = w.error();
  if (w.outputs) {
    before_run(-1.5, 42);
    w.run();
    synchronize(device);
    f.hash_equal = digest_of(w.outputs()).hash == f.hash;
  }
  if (w.reset) w.reset();
  return f;
}

}  // namespace retort::bench
