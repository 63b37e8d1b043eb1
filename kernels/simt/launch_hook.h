// What stands between a launch and the device: a count of launches, the name of the last one, and
// in the emulator whoever records launches in place of running them
// (kernels/plugin/emulated_graph.h).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

namespace retort::simt {

/// Launches of hand-written kernels in this library since it was loaded, recorded ones included.
inline std::atomic<std::uint64_t> g_launches{0};
inline thread_local const char* t_last_launch = nullptr;

inline void count_launch(const char* name) {
  g_launches.fetch_add(1, std::memory_order_relaxed);
  t_last_launch = name;
}

/// "a synchronisation cannot be captured (after the launch of 'conv2d')".
inline std::string not_capturable(const std::string& what) {
  const char* const last = t_last_launch;
  return what + " cannot be captured (" +
         (last ? std::string("after the launch of '") + last + "')" : "before any launch)");
}

/// Why a capture ends without a graph, in the same words on a GPU and in the emulator.
inline constexpr const char* kForkNotJoined =
    "a stream that the capture forked was not joined again";

/// Takes the launches of a thread while a graph is captured.
class LaunchRecorder {
 public:
  virtual void record(const char* name, void* stream, std::function<void()> run) = 0;

 protected:
  ~LaunchRecorder() = default;
};
inline thread_local LaunchRecorder* t_recorder = nullptr;

}  // namespace retort::simt
