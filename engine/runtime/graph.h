// Work on CUDA that is captured once and replayed with one launch.
//
// Note [What a captured function may do]
//   It launches ops, copies and fills on the device. It must not wait for the device, read back,
//   copy from pageable memory or need memory that its rehearsal did not: each is an error that
//   names the launch before it. What changes from replay to replay it reads from device memory
//   (UploadRing). Its tensors come from the graph's own pool, so they must not outlive it: results
//   go to memory made before.
#pragma once
#include <functional>
#include <memory>

#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"

namespace retort {

/// Pools and scratch of one or more graphs that never run at the same time.
class GraphMemory {
 public:
  GraphMemory();
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
  std::size_t reserved_bytes() const;

  struct Parts;
  Parts& parts() { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

class Graph {
 public:
  explicit Graph(std::shared_ptr<GraphMemory> memory);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Runs f at once, with the memory that capture() will use. True once the system was asked for
  /// nothing: capture() of the same work will not have to ask either.
  bool rehearse(const std::function<void()>& f);
  /// Records f without running it on the device. On an error nothing has run and nothing is kept.
  void capture(const std::function<void()>& f);
  bool captured() const { return graph_ != nullptr; }
  GraphInfo info() const;
  /// Enqueues the captured work on this thread's main stream.
  void launch();

 private:
  void drop() noexcept;
  std::shared_ptr<GraphMemory> memory_;
  void* graph_ = nullptr;
};

/// While one lives, this thread's ops go to its second stream, which first waits for what the main
/// one has enqueued so far. In a graph's function their tensors come from a pool of their own; what
/// passes between the streams lies in memory made before. Every fork must be joined.
class OnSideStream {
 public:
  OnSideStream();
  ~OnSideStream();
  OnSideStream(const OnSideStream&) = delete;
  OnSideStream& operator=(const OnSideStream&) = delete;

 private:
  std::unique_ptr<MemoryPoolScope> pool_;
};
/// Work enqueued on the main stream from now on waits for what the side stream has enqueued.
void join_side_stream();

}  // namespace retort
