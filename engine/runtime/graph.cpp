#include "engine/runtime/graph.h"

#include <utility>

#include "engine/runtime/thread_context.h"

namespace retort {

struct GraphMemory::Parts {
  MemoryPool main{Device::kCuda}, side{Device::kCuda};
  GrowingScratch main_scratch{Device::kCuda}, side_scratch{Device::kCuda};
};

GraphMemory::GraphMemory() : parts_(std::make_unique<Parts>()) {}
GraphMemory::~GraphMemory() = default;
std::size_t GraphMemory::reserved_bytes() const {
  return parts_->main.reserved_bytes() + parts_->side.reserved_bytes();
}

namespace {

// The graph memory in use by this thread.
thread_local GraphMemory::Parts* t_parts = nullptr;

class UseMemory {
 public:
  explicit UseMemory(GraphMemory& memory) : pool_(memory.parts().main) {
    RETORT_CHECK(t_parts == nullptr, "[graph] expected no graph inside a graph's function");
    t_parts = &memory.parts();
    cuda_context(Lane::kMain).context.scratch = &t_parts->main_scratch;
    cuda_context(Lane::kSide).context.scratch = &t_parts->side_scratch;
  }
  ~UseMemory() {
    for (const Lane lane : {Lane::kMain, Lane::kSide}) {
      ThreadContext& c = cuda_context(lane);
      c.context.scratch = &c.scratch;
    }
    t_parts = nullptr;
  }
  UseMemory(const UseMemory&) = delete;
  UseMemory& operator=(const UseMemory&) = delete;

 private:
  MemoryPoolScope pool_;
};

}  // namespace

Graph::Graph(std::shared_ptr<GraphMemory> memory) : memory_(std::move(memory)) {
  RETORT_CHECK(memory_ != nullptr, "[graph] expected memory, got null");
  context_of(Device::kCuda);  // throws the plain sentence where there is no CUDA
}
Graph::~Graph() { drop(); }

void Graph::drop() noexcept {
  if (graph_ != nullptr) static_cast<void>(cuda_runtime.destroy_graph(graph_));
  graph_ = nullptr;
}

bool Graph::rehearse(const std::function<void()>& f) {
  const UseMemory use(*memory_);
  const auto asked = [&] {
    return memory_->parts().main.system_allocations() + memory_->parts().side.system_allocations();
  };
  const std::uint64_t before = asked();
  f();
  return asked() == before;
}

void Graph::capture(const std::function<void()>& f) {
  drop();
  const UseMemory use(*memory_);
  const NoSystemMemory no_system;
  void* const stream = context_of(Device::kCuda).stream;
  check(cuda_runtime.begin_capture(stream), "graph");
  try {
    f();
  } catch (...) {
    static_cast<void>(cuda_runtime.end_capture(stream, nullptr));
    throw;
  }
  check(cuda_runtime.end_capture(stream, &graph_), "graph");
}

GraphInfo Graph::info() const {
  RETORT_CHECK(captured(), "[graph] expected a captured graph");
  GraphInfo info;
  check(cuda_runtime.describe_graph(graph_, &info), "graph");
  return info;
}

void Graph::launch() {
  RETORT_CHECK(captured(), "[graph] expected a captured graph");
  check(cuda_runtime.launch_graph(graph_, context_of(Device::kCuda).stream), "graph");
}

OnSideStream::OnSideStream() {
  ThreadContext& main = cuda_context(Lane::kMain);
  ThreadContext& side = cuda_context(Lane::kSide);
  side.context.allow_tf32 = main.context.allow_tf32;
  check(cuda_runtime.record_event(main.event, main.context.stream), "side stream");
  check(cuda_runtime.wait_event(side.context.stream, main.event), "side stream");
  if (t_parts != nullptr) pool_ = std::make_unique<MemoryPoolScope>(t_parts->side);
  set_lane(Lane::kSide);
}
OnSideStream::~OnSideStream() { set_lane(Lane::kMain); }

void join_side_stream() {
  ThreadContext& main = cuda_context(Lane::kMain);
  ThreadContext& side = cuda_context(Lane::kSide);
  check(cuda_runtime.record_event(side.event, side.context.stream), "side stream");
  check(cuda_runtime.wait_event(main.context.stream, side.event), "side stream");
}

}  // namespace retort
