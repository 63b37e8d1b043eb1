// The CUDA runtime's streams, events and graphs.
#include <algorithm>
#include <utility>

#include "tools/ptx/runtime.h"

namespace retort::ptx {
namespace {
struct Event {
  std::chrono::steady_clock::time_point time;
  Capture* capture = nullptr;
  Clock clock;
};
struct Graph {
  std::vector<Node> nodes;
};
Stream g_default;
}  // namespace

Stream& stream_of(cudaStream_t s) { return s ? *reinterpret_cast<Stream*>(s) : g_default; }
cudaError_t enqueue(cudaStream_t stream, cudaGraphNodeType type, std::function<void()> work) {
  const std::lock_guard lock(runtime().mutex);
  Stream& s = stream_of(stream);
  if (s.capture) {
    s.capture->nodes.push_back({type, std::move(work)});
    ++s.clock[&s];
    return cudaSuccess;
  }
  try {
    work();
  } catch (const std::exception& e) {
    return keep_fault(e);
  }
  return cudaSuccess;
}
}  // namespace retort::ptx

using namespace retort::ptx;

RETORT_CUDART cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  *s = reinterpret_cast<cudaStream_t>(new Stream());
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaStreamCreate(cudaStream_t* s) {
  return cudaStreamCreateWithFlags(s, 0);
}
RETORT_CUDART cudaError_t cudaStreamDestroy(cudaStream_t s) {
  delete reinterpret_cast<Stream*>(s);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  return stream_of(s).capture ? keep(cudaErrorStreamCaptureUnsupported) : fault_untaken();
}
RETORT_CUDART cudaError_t cudaDeviceSynchronize() { return fault_untaken(); }
RETORT_CUDART cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = reinterpret_cast<cudaEvent_t>(new Event());
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
RETORT_CUDART cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete reinterpret_cast<Event*>(e);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Event& e = *reinterpret_cast<Event*>(event);
  Stream& s = stream_of(stream);
  e.time = std::chrono::steady_clock::now();
  e.capture = s.capture;
  e.clock = s.clock;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaEventSynchronize(cudaEvent_t) { return fault_untaken(); }
RETORT_CUDART cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = std::chrono::duration<float, std::milli>(reinterpret_cast<Event*>(b)->time -
                                                 reinterpret_cast<Event*>(a)->time)
            .count();
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Event& e = *reinterpret_cast<Event*>(event);
  Stream& s = stream_of(stream);
  if (!e.capture) return cudaSuccess;
  s.capture = e.capture;
  s.capture->streams.insert(&s);
  for (const auto& [k, v] : e.clock) s.clock[k] = std::max(s.clock[k], v);
  if (&s != s.capture->origin) ++s.clock[&s];  // a fork must be joined again
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Stream& s = stream_of(stream);
  if (s.capture) return keep(cudaErrorIllegalState);
  s.capture = new Capture{&s, {}, {&s}};
  s.clock.clear();
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Stream& s = stream_of(stream);
  *graph = nullptr;
  if (!s.capture || s.capture->origin != &s) return keep(cudaErrorIllegalState);
  const std::unique_ptr<Capture> c(s.capture);
  bool joined = true;
  for (Stream* o : c->streams) {
    joined = joined && s.clock[o] >= o->clock[o];
    o->capture = nullptr;
  }
  for (Stream* o : c->streams) o->clock.clear();
  if (!joined) return keep(cudaErrorStreamCaptureUnjoined);
  *graph = reinterpret_cast<cudaGraph_t>(new Graph{std::move(c->nodes)});
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes,
                                            size_t* count) {
  Graph& g = *reinterpret_cast<Graph*>(graph);
  if (nodes)
    for (size_t k = 0; k < *count && k < g.nodes.size(); ++k)
      nodes[k] = reinterpret_cast<cudaGraphNode_t>(&g.nodes[k]);
  else
    *count = g.nodes.size();
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  *type = reinterpret_cast<Node*>(node)->type;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t graph,
                                               unsigned long long) {
  *e = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
RETORT_CUDART cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t stream) {
  for (const Node& n : reinterpret_cast<Graph*>(e)->nodes)
    if (const cudaError_t error = enqueue(stream, n.type, n.run); error != cudaSuccess)
      return error;
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete reinterpret_cast<Graph*>(g);
  return cudaSuccess;
}
RETORT_CUDART cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  delete reinterpret_cast<Graph*>(g);
  return cudaSuccess;
}
