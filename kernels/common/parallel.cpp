#include "kernels/common/parallel.h"

#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

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
#if defined(_OPENMP)
  return omp_get_num_procs();
#else
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
#endif
}

std::atomic<int>& threads() {
  static std::atomic<int> n{default_threads()};
  return n;
}

thread_local bool t_in_parallel = false;

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

}  // namespace

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int n) {
  threads().store(n < 1 ? 1 : n, std::memory_order_relaxed);
#if defined(_OPENMP)
  omp_set_num_threads(n < 1 ? 1 : n);  // oneDNN reads this
#endif
}

bool in_parallel() { return t_in_parallel; }

SerialScope::SerialScope() : before_(t_in_parallel) { t_in_parallel = true; }
SerialScope::~SerialScope() { t_in_parallel = before_; }

namespace detail {

void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, void* body) {
  const std::int64_t chunks = (n + grain - 1) / grain;
  const int workers = static_cast<int>(chunks < thread_count() ? chunks : thread_count());
  FirstError first;
  auto run = [&](std::int64_t c) {
    try {
      fn(body, c * grain, c + 1 == chunks ? n : (c + 1) * grain);
    } catch (...) {
      first.keep(c);
    }
  };
#if defined(_OPENMP)
#pragma omp parallel num_threads(workers)
  {
    t_in_parallel = true;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t c = 0; c < chunks; ++c) run(c);
    t_in_parallel = false;
  }
#else
  // ThreadSanitizer does not know libgomp's barriers, so that build uses plain threads.
  std::atomic<std::int64_t> next{0};
  auto work = [&] {
    t_in_parallel = true;
    for (std::int64_t c; (c = next.fetch_add(1)) < chunks;) run(c);
    t_in_parallel = false;
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < workers; ++i) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
#endif
  if (first.error) std::rethrow_exception(first.error);
}

}  // namespace detail
}  // namespace retort
