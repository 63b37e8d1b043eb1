#include "kernels/common/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace retort {
namespace {

int default_threads() {
  for (const char* name : {"RETORT_NUM_THREADS", "OMP_NUM_THREADS"})
    if (const char* text = std::getenv(name)) {
      const int n = std::atoi(text);
      if (n >= 1) return n;
    }
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
}

std::atomic<int>& threads() {
  static std::atomic<int> n{default_threads()};
  return n;
}

thread_local bool t_in_parallel = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Keeps the exception of the lowest chunk, so that which error is seen does not depend on timing.
struct FirstError {
  std::mutex mutex;
  std::int64_t chunk = -1;
  std::exception_ptr error;
  void keep(std::int64_t c) {
    const std::lock_guard lock(mutex);
    if (chunk < 0 || c < chunk) {
      chunk = c;
      error = std::current_exception();
    }
  }
};

struct Job {
  detail::ChunkFn fn = nullptr;
  void* body = nullptr;
  std::int64_t n = 0, grain = 0, chunks = 0;
  FirstError* first = nullptr;
};

// Note [The pool]
//   A caller publishes its job, opens the gate and works. Workers that happen to be awake pass the
//   gate (which counts them) and take chunks. When no chunk is left the caller shuts the gate and
//   waits for those inside, who by then are in their last chunk. A worker that wakes up later finds
//   the gate shut. So nobody waits for a thread that has not started: where other processes keep
//   the cores busy the caller does the work itself.
//
//   Chunks are dealt in equal parts, one after the other, so that a thread has the same part of
//   each op's tensors and finds in its core's caches what it wrote there before. Who is done with
//   its part goes on with those of others.
//
//   Who waits polls for some 20 us, then gives the core away between looks (sched_yield: any other
//   thread that wants it has it), then sleeps in the kernel. The first two bridge the serial
//   stretches of a training step and the last chunk of another thread: to wake a sleeper costs tens
//   of microseconds where cores are virtual. Once hot, a call costs some 0.3 us.
class Pool {
 public:
  // False if another caller has the pool.
  bool run(const Job& job, int wanted) {
    if (busy_.test_and_set(std::memory_order_acquire)) return false;
    start_workers(wanted);
    job_ = job;
    deal(wanted + 1);
    const std::uint64_t epoch = ++epoch_;
    gate_.store(epoch << kEpochShift | static_cast<std::uint64_t>(wanted) << kLimitShift | kOpen);
    bell_.fetch_add(1);
    if (wanted >= started_)
      bell_.notify_all();
    else
      for (int i = 0; i < wanted; ++i) bell_.notify_one();
    work(0);
    if (active(gate_.fetch_and(~kOpen)) != 0) wait_for_those_inside();
    busy_.clear(std::memory_order_release);
    return true;
  }

 private:
  // The gate: | epoch 31 | limit 16 | active 16 | open 1 |
  static constexpr std::uint64_t kOpen = 1, kOne = 2, kMask = 0xffff;
  static constexpr int kActiveShift = 1, kLimitShift = 17, kEpochShift = 33;
  static constexpr int kSpins = 600;  // pauses of some 40 ns
  static constexpr std::chrono::microseconds kYieldFor{500};
  static std::uint64_t active(std::uint64_t gate) { return gate >> kActiveShift & kMask; }

  void start_workers(int wanted) {
    if (started_ >= wanted) return;
    // Signals are for the program's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; started_ < wanted; ++started_)
        std::thread([this, slot = started_ + 1] { live(slot); }).detach();
    } catch (const std::system_error&) {  // no more threads to be had: those there are will do
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void live(int slot) {
    t_in_parallel = true;
#if defined(_OPENMP)
    omp_set_num_threads(1);  // a library called in a chunk stays on this thread
#endif
    std::uint64_t last = 0;  // epoch of the job this worker was in
    for (;;) {
      const std::uint32_t heard = bell_.load();
      if (enter(last)) {
        work(slot);
        leave();
        continue;
      }
      if (!poll([&] { return bell_.load(std::memory_order_relaxed) != heard; })) bell_.wait(heard);
    }
  }

  // False if it did not happen for so long that it is time to sleep.
  template <class Happened>
  static bool poll(Happened happened) {
    for (int i = 0; i < kSpins; ++i, relax())
      if (happened()) return true;
    const auto until = std::chrono::steady_clock::now() + kYieldFor;
    while (!happened()) {
      if (std::chrono::steady_clock::now() >= until) return false;
      sched_yield();
    }
    return true;
  }

  bool enter(std::uint64_t& last) {
    std::uint64_t gate = gate_.load();
    while ((gate & kOpen) != 0 && gate >> kEpochShift != last &&
           active(gate) < (gate >> kLimitShift & kMask)) {
      if (!gate_.compare_exchange_weak(gate, gate + kOne)) continue;
      last = gate >> kEpochShift;
      return true;
    }
    return false;
  }

  void leave() {
    const std::uint64_t before = gate_.fetch_sub(kOne);
    if (active(before) != 1 || (before & kOpen) != 0) return;
    left_.fetch_add(1);
    left_.notify_one();
  }

  void wait_for_those_inside() {
    if (poll([&] { return active(gate_.load()) == 0; })) return;
    for (;;) {
      const std::uint32_t left = left_.load();
      if (active(gate_.load()) == 0) return;
      left_.wait(left);
    }
  }

  void deal(int parts) {
    if (parts > room_) {
      hands_ = std::make_unique<Hand[]>(static_cast<std::size_t>(parts));
      room_ = parts;
    }
    parts_ = parts;
    for (int i = 0; i < parts; ++i) {
      hands_[i].next.store(job_.chunks * i / parts, std::memory_order_relaxed);
      hands_[i].end = job_.chunks * (i + 1) / parts;
    }
  }

  // Its own part, then what is left of those of others. Part 0 is the caller's, who is slot 0.
  void work(int slot) {
    const Job& job = job_;
    if (slot >= parts_) slot = 1 + (slot - 1) % (parts_ - 1);
    for (int i = 0; i < parts_; ++i) {
      Hand& hand = hands_[(slot + i) % parts_];
      for (std::int64_t c; (c = hand.next.fetch_add(1, std::memory_order_relaxed)) < hand.end;)
        try {
          detail::count_chunk();
          job.fn(job.body, c * job.grain, c + 1 == job.chunks ? job.n : (c + 1) * job.grain);
        } catch (...) {
          job.first->keep(c);
        }
    }
  }

  struct alignas(64) Hand {
    std::atomic<std::int64_t> next{0};  // chunk
    std::int64_t end = 0;
  };

  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::uint32_t> bell_{0};  // rings once per job; what sleepers wait on
  alignas(64) std::atomic<std::uint32_t> left_{0};  // counts jobs whose last worker left late
  std::atomic_flag busy_;
  // Written by the caller while the gate is shut and nobody inside:
  Job job_;
  std::unique_ptr<Hand[]> hands_;
  int parts_ = 0, room_ = 0;
  std::uint64_t epoch_ = 0;  // guarded by busy_, like started_
  int started_ = 0;
};

std::atomic<std::int64_t> g_chunks{0};

// Never destroyed: workers outlive main. A forked child has no workers, so it gets a pool of its
// own.
std::atomic<Pool*> g_pool{nullptr};

Pool& pool() {
  static const bool once = [] {
    g_pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, [] { g_pool.store(new Pool); });
    return true;
  }();
  static_cast<void>(once);
  return *g_pool.load(std::memory_order_acquire);
}

}  // namespace

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int n) {
  threads().store(n < 1 ? 1 : n, std::memory_order_relaxed);
#if defined(_OPENMP)
  omp_set_num_threads(n < 1 ? 1 : n);  // for libraries that a program uses beside this one
#endif
}

bool in_parallel() { return t_in_parallel; }

std::int64_t chunks_begun() noexcept { return g_chunks.load(std::memory_order_relaxed); }
void detail::count_chunk() noexcept { g_chunks.fetch_add(1, std::memory_order_relaxed); }

SerialScope::SerialScope() : before_(t_in_parallel) { t_in_parallel = true; }
SerialScope::~SerialScope() { t_in_parallel = before_; }

#if defined(_OPENMP)
OneOpenMpThread::OneOpenMpThread() : before_(omp_get_max_threads()) {
  if (before_ != 1) omp_set_num_threads(1);
}
OneOpenMpThread::~OneOpenMpThread() {
  if (before_ != 1) omp_set_num_threads(before_);
}
#else
OneOpenMpThread::OneOpenMpThread() : before_(1) {}
OneOpenMpThread::~OneOpenMpThread() = default;
#endif

namespace detail {

void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, void* body) {
  const std::int64_t chunks = (n + grain - 1) / grain;
  const int limit = thread_count() < 65536 ? thread_count() : 65536;
  const int helpers = static_cast<int>(chunks < limit ? chunks : limit) - 1;
  FirstError first;
  const Job job{fn, body, n, grain, chunks, &first};
  const SerialScope inside;
  if (!pool().run(job, helpers))
    for (std::int64_t c = 0; c < chunks; ++c) try {
        count_chunk();
        fn(body, c * grain, c + 1 == chunks ? n : (c + 1) * grain);
      } catch (...) {
        first.keep(c);
      }
  if (first.error) std::rethrow_exception(first.error);
}

}  // namespace detail
}  // namespace retort
