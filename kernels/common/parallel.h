// The one thread pool. Work is cut into chunks whose bounds depend on the sizes alone, never on the
// number of threads, so results are the same bytes with any thread count.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace retort {

/// Threads that parallel_for may use: RETORT_NUM_THREADS, else OMP_NUM_THREADS, else all cores that
/// this process may run on.
int thread_count();
/// Sets the number of threads for this process (kdtrain --threads). n >= 1.
void set_thread_count(int n);
/// True inside a parallel_for body: nested calls run inline.
bool in_parallel();
/// Chunks that were begun so far by calls from outside a body: that this process gets on, for
/// whoever watches it (engine/runtime/progress.h).
std::int64_t chunks_begun() noexcept;

/// While one lives, parallel_for runs inline in this thread: for helper threads, which must not
/// start a second pool beside the one that computes.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool before_;
};

/// While one lives, libraries that use OpenMP (oneDNN) stay on the calling thread: they run inside
/// chunks, and how they split a sum would depend on the number of threads.
class OneOpenMpThread {
 public:
  OneOpenMpThread();
  ~OneOpenMpThread();
  OneOpenMpThread(const OneOpenMpThread&) = delete;
  OneOpenMpThread& operator=(const OneOpenMpThread&) = delete;

 private:
  int before_;
};

namespace detail {
using ChunkFn = void (*)(void* body, std::int64_t begin, std::int64_t end);
void count_chunk() noexcept;
void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, void* body);
}  // namespace detail

/// Calls body(begin, end) for consecutive chunks of [0, n) of `grain` elements (the last may be
/// shorter), on several threads. Chunk c covers [c * grain, (c + 1) * grain). An exception thrown
/// by a body is rethrown here after all chunks ended (the one of the lowest chunk).
///
/// The calling thread takes chunks like any other and never waits for a thread that has not begun
/// one, so a busy machine costs parallelism, not time. Safe from any thread: while one call has the
/// pool, others run inline.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  if (n <= 0) return;
  const bool nested = in_parallel();
  if (n <= grain || thread_count() == 1 || nested) {
    for (std::int64_t begin = 0; begin < n; begin += grain) {
      if (!nested) detail::count_chunk();
      body(begin, begin + grain < n ? begin + grain : n);
    }
    return;
  }
  using Plain = std::remove_reference_t<Body>;
  detail::run_chunks(
      n, grain,
      [](void* b, std::int64_t begin, std::int64_t end) { (*static_cast<Plain*>(b))(begin, end); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace retort
