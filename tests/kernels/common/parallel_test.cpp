#include "kernels/common/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

struct Threads {  // for the length of a test
  explicit Threads(int n) : before(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  int before;
};

TEST(Parallel, chunks_cover_the_range_once_and_do_not_depend_on_the_threads) {
  std::set<std::pair<std::int64_t, std::int64_t>> reference;
  for (const int threads : {1, 2, 5}) {
    const Threads scope(threads);
    for (const std::int64_t n : {0, 1, 9, 10, 11, 1000}) {
      std::mutex mutex;
      std::set<std::pair<std::int64_t, std::int64_t>> chunks;
      std::vector<int> seen(static_cast<std::size_t>(n), 0);
      parallel_for(n, 10, [&](std::int64_t begin, std::int64_t end) {
        const std::lock_guard lock(mutex);
        chunks.emplace(begin, end);
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const int count : seen) EXPECT_EQ(count, 1);
      if (n != 1000) continue;
      if (threads == 1) reference = chunks;
      EXPECT_EQ(chunks, reference);
      EXPECT_EQ(chunks.size(), 100u);
    }
  }
}

TEST(Parallel, the_error_of_the_lowest_chunk_is_the_one_thrown) {
  const Threads scope(4);
  std::atomic<int> ran{0};
  try {
    parallel_for(100, 10, [&](std::int64_t begin, std::int64_t) {
      ++ran;
      if (begin >= 30) fail(ErrorCode::kBadInput, "chunk ", begin);
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "chunk 30");
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
  }
  EXPECT_EQ(ran, 10);  // the others ran to their end
}

TEST(Parallel, nested_calls_run_inline) {
  const Threads scope(4);
  std::atomic<int> total{0};
  EXPECT_FALSE(in_parallel());
  parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
    EXPECT_TRUE(in_parallel());
    parallel_for(10, 1, [&](std::int64_t, std::int64_t) { ++total; });
  });
  EXPECT_FALSE(in_parallel());
  EXPECT_EQ(total, 80);
}

TEST(Parallel, thread_count_is_at_least_one) {
  const Threads scope(0);
  EXPECT_EQ(thread_count(), 1);
}

// 1 + 2 + ... + n, each chunk's part in a place of its own.
std::int64_t sum_to(std::int64_t n, std::int64_t grain) {
  std::vector<std::int64_t> parts(static_cast<std::size_t>(n / grain + 1), 0);
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) parts[static_cast<std::size_t>(i / grain)] += i + 1;
  });
  std::int64_t sum = 0;
  for (const std::int64_t part : parts) sum += part;
  return sum;
}

TEST(Parallel, many_short_jobs_with_changing_thread_counts) {
  const Threads scope(4);
  for (int i = 0; i < 3000; ++i) {
    if (i % 100 == 0) set_thread_count(1 + i / 100 % 5);
    ASSERT_EQ(sum_to(64 + i % 7, 8), (64 + i % 7) * (65 + i % 7) / 2) << i;
  }
}

TEST(Parallel, never_more_threads_at_once_than_allowed) {
  const Threads scope(6);
  sum_to(1000, 1);  // starts 5 workers
  set_thread_count(2);
  std::atomic<int> inside{0}, most{0};
  for (int i = 0; i < 50; ++i)
    parallel_for(64, 1, [&](std::int64_t, std::int64_t) {
      const int now = ++inside;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
      }
      std::this_thread::yield();
      --inside;
    });
  EXPECT_LE(most, 2);
}

TEST(Parallel, a_second_thread_begins_at_its_own_part_and_the_first_takes_over_what_is_left) {
  const Threads scope(2);
  for (int job = 0; job < 20; ++job) {
    const std::thread::id caller = std::this_thread::get_id();
    std::vector<std::thread::id> by(64);
    std::atomic<bool> other_is_here{false};
    std::atomic<int> done{0};
    parallel_for(64, 1, [&](std::int64_t chunk, std::int64_t) {
      by[static_cast<std::size_t>(chunk)] = std::this_thread::get_id();
      if (std::this_thread::get_id() == caller) {
        while (!other_is_here) std::this_thread::yield();
      } else {
        other_is_here = true;
        while (done < 63) std::this_thread::yield();
      }
      ++done;
    });
    for (std::size_t chunk = 0; chunk < by.size(); ++chunk)
      EXPECT_EQ(by[chunk] == caller, chunk != 32) << chunk;
  }
}

TEST(Parallel, callers_on_several_threads_do_not_meet) {
  const Threads scope(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&wrong, t] {
      for (int i = 0; i < 300; ++i) wrong += sum_to(100 + t, 10) != (100 + t) * (101 + t) / 2;
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Parallel, an_error_leaves_the_pool_usable) {
  const Threads scope(3);
  for (int i = 0; i < 100; ++i) {
    EXPECT_THROW(parallel_for(16, 1,
                              [](std::int64_t b, std::int64_t) {
                                if (b == 3) throw 1;
                              }),
                 int);
    EXPECT_FALSE(in_parallel());
    ASSERT_EQ(sum_to(100, 10), 5050);
  }
}

#if !defined(__SANITIZE_THREAD__)  // which refuses threads in a child of a threaded process
TEST(Parallel, works_in_a_forked_child) {
  const Threads scope(3);
  ASSERT_EQ(sum_to(1000, 10), 500500);  // the parent's workers are up
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(sum_to(1000, 10) == 500500 && sum_to(77, 1) == 3003 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(sum_to(1000, 10), 500500);
}
#endif

}  // namespace
}  // namespace retort::test
