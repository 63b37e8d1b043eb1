// Streams, events and graphs of the emulated device. Outside a capture everything runs at once;
// within one, launches, copies and fills become nodes, and replaying runs them in an order that
// their dependencies allow. The order changes from replay to replay: oldest first, newest first,
// and in turns, so that a missing dependency, or memory that two streams share, shows as other
// bytes.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/cuda_runtime.h"
#include "kernels/simt/launch_hook.h"

namespace retort::emulated {

struct Stream {
  char name = 0;
};

struct Capture;
struct Event {
  std::chrono::steady_clock::time_point time;
  Capture* capture = nullptr;  // recorded within this one
  std::vector<int> after;      // what its stream had enqueued last
};

enum class NodeKind { kKernel, kCopy, kFill };

struct Graph {
  struct Node {
    NodeKind kind;
    std::function<void()> run;
    std::vector<int> after;  // earlier nodes that must have run
  };
  std::vector<Node> nodes;
  std::uint64_t replays = 0;

  GraphInfo info() const {
    GraphInfo out;
    for (const Node& node : nodes)
      ++(node.kind == NodeKind::kKernel ? out.kernels
         : node.kind == NodeKind::kCopy ? out.copies
                                        : out.fills);
    return out;
  }

  void replay() {
    const std::uint64_t order = replays++ % 3;  // oldest first, newest first, in turns
    bool newest = order == 1;
    std::vector<std::size_t> waits(nodes.size());
    std::vector<std::vector<std::size_t>> before(nodes.size());
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      waits[i] = nodes[i].after.size();
      for (const int a : nodes[i].after) before[static_cast<std::size_t>(a)].push_back(i);
      if (waits[i] == 0) ready.push_back(i);
    }
    while (!ready.empty()) {
      const auto pick = newest ? std::max_element(ready.begin(), ready.end())
                               : std::min_element(ready.begin(), ready.end());
      const std::size_t node = *pick;
      ready.erase(pick);
      if (order == 2) newest = !newest;
      nodes[node].run();
      for (const std::size_t next : before[node])
        if (--waits[next] == 0) ready.push_back(next);
    }
  }
};

/// The capture of one thread.
struct Capture final : simt::LaunchRecorder {
  Stream* origin = nullptr;
  std::map<Stream*, std::vector<int>> last;  // by stream: what its next node comes after
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  std::string violation;  // the first; the capture is void then

  void add(NodeKind kind, void* stream, std::function<void()> run) {
    auto at = last.find(static_cast<Stream*>(stream));
    if (at == last.end())
      refuse("work on a stream that does not wait for the captured one");  // throws
    graph->nodes.push_back({kind, std::move(run), at->second});
    at->second = {static_cast<int>(graph->nodes.size()) - 1};
  }
  void record(const char*, void* stream, std::function<void()> run) override {
    add(NodeKind::kKernel, stream, std::move(run));
  }
  [[noreturn]] void refuse(const std::string& what) {
    const std::string text = simt::not_capturable(what);
    if (violation.empty()) violation = text;
    fail(ErrorCode::kDevice, text);
  }

  void record_event(Event& event, void* stream) {
    const auto at = last.find(static_cast<Stream*>(stream));
    if (at == last.end()) refuse("an event of another stream");
    event.capture = this;
    event.after = at->second;
  }
  void wait_event(void* stream, const Event& event) {
    if (event.capture != this) refuse("waiting for an event from before the capture");
    std::vector<int>& list = last[static_cast<Stream*>(stream)];
    for (const int node : event.after)
      if (std::find(list.begin(), list.end(), node) == list.end()) list.push_back(node);
  }

  /// Everything enqueued must come before the end of the origin's work.
  bool joined() const {
    std::vector<bool> seen(graph->nodes.size());
    std::vector<int> stack = last.at(origin);
    while (!stack.empty()) {
      const auto node = static_cast<std::size_t>(stack.back());
      stack.pop_back();
      if (seen[node]) continue;
      seen[node] = true;
      const auto& after = graph->nodes[node].after;
      stack.insert(stack.end(), after.begin(), after.end());
    }
    return std::find(seen.begin(), seen.end(), false) == seen.end();
  }
};

}  // namespace retort::emulated
